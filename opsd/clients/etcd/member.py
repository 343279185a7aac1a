"""Ask one etcd member how it is and what it holds, and stream its snapshot.

It is asked by HTTP and JSON (the gateway that every etcd since 3.4 has), so that no program of
etcd's own, in the right version, is needed. A read is linearizable: it is answered only by a
member that has caught up with the majority, so what is read afterwards is not old.

Limits: an etcd with users and passwords of its own is not supported (kubeadm's has none). With
``--enable-grpc-gateway=false`` there is no answer, which is told.
Source: etcd API reference, KV, Cluster and Maintenance; api/etcdserverpb/rpc.proto.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from opsd.clients.etcd.answers import (
    Alarm,
    Alarms,
    Hash,
    Line,
    Member,
    Members,
    Piece,
    Range,
    Status,
)
from opsd.clients.etcd.exchange import Endpoint, Exchange, NotEtcd, context_of, said
from opsd.clock import Deadline
from opsd.errors import TransientError

SHA256_BYTES = 32  # of a snapshot's own SHA-256, at its end
_EVERYTHING = "AA=="  # a zero byte: from the first key to the last

AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many keys there are at a revision."""

    keys: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot on its way."""

    size_bytes: int  #: of all pieces together, as the member promises
    pieces: Iterator[bytes]


class Etcd:
    """Questions to one member. One connection each; used by one thread."""

    def __init__(self, endpoint: Endpoint, *, deadline: Deadline) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._deadline = deadline
        self._tls = context_of(endpoint) if endpoint.identity else None

    def status(self) -> Status:
        """How it is; also a member without a leader answers.

        Raises:
            CertificateRefused, NotEtcd, PermanentError: asking again is useless.
            TransientError: it does not answer, or says that it has trouble.
            DeadlineExceeded: no time is left.
        """
        return self._ask("ask its status", "/v3/maintenance/status", {}, Status)

    def members(self) -> tuple[Member, ...]:
        """Everybody who belongs to the cluster; raises as `status`."""
        return self._ask("list its members", "/v3/cluster/member/list", {}, Members).members

    def alarms(self) -> tuple[Alarm, ...]:
        """What the members raised; raises as `status`."""
        path, body = "/v3/maintenance/alarm", {"action": "GET"}
        return self._ask("list its alarms", path, body, Alarms).alarms

    def count(self, *, revision: int = 0) -> Count:
        """How many keys there are.

        Args:
            revision: as of then; 0: now, by a linearizable read.

        Raises:
            PermanentError: that revision was compacted, or is not there yet.
            CertificateRefused, NotEtcd, TransientError, DeadlineExceeded: as `status`.
        """
        body = {
            "key": _EVERYTHING,
            "range_end": _EVERYTHING,
            "count_only": True,
            "revision": str(revision),
        }
        found = self._ask("count its keys", "/v3/kv/range", body, Range)
        return Count(keys=found.count, revision=revision or int(found.header.revision))

    def get(self, key: str) -> bytes | None:
        """The value of one key; None: there is none. Raises as `status`."""
        found = self._ask(f"get {key}", "/v3/kv/range", {"key": _base64(key.encode())}, Range)
        return found.kvs[0].value if found.kvs else None

    def hash(self, revision: int) -> Hash:
        """Of all keys and values up to `revision`, as this member has them.

        Raises:
            PermanentError: that revision was compacted, or is not there yet.
            CertificateRefused, NotEtcd, TransientError, DeadlineExceeded: as `status`.
        """
        body = {"revision": str(revision)}
        return self._ask("hash its keys", "/v3/maintenance/hashkv", body, Hash)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The member's whole database, and at its end 32 bytes of SHA-256.

        That the pieces end says nothing: hold them against the size and the SHA-256.

        Raises:
            as `status`, also out of the pieces.
        """
        with self._exchange("take a snapshot", "/v3/maintenance/snapshot", {}) as exchange:
            lines = exchange.lines()
            first = _piece(next(lines, b"{}"), exchange.what)
            yield Snapshot(
                size_bytes=len(first.blob) + first.remaining_bytes + SHA256_BYTES,
                pieces=self._pieces(first, lines, exchange.what),
            )

    def _pieces(self, first: Piece, lines: Iterator[bytes], what: str) -> Iterator[bytes]:
        yield first.blob
        for line in lines:
            self._deadline.remaining()
            yield _piece(line, what).blob

    def _ask(self, what: str, path: str, body: object, into: type[AnswerT]) -> AnswerT:
        with self._exchange(what, path, body) as exchange:
            return _decoded(exchange.whole(), into, exchange.what)

    def _exchange(self, what: str, path: str, body: object) -> Exchange:
        return Exchange(
            self._endpoint,
            self._tls,
            what=f"{self.name}: {what}",
            path=path,
            body=msgspec.json.encode(body),
            deadline=self._deadline,
        )


def _piece(line: bytes, what: str) -> Piece:
    found = _decoded(line, Line, what)
    if found.error is not None:
        raise TransientError(f"{what}: it broke off: {said(found.error)}")
    return found.result or Piece()


def _decoded(raw: bytes, into: type[AnswerT], what: str) -> AnswerT:
    try:
        return msgspec.json.decode(raw, type=into, strict=False)
    except (msgspec.DecodeError, ValueError) as exc:
        raise NotEtcd(f"{what}: the answer is not that of an etcd: {exc}") from exc


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
