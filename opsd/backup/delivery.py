"""Bring one stream into the repositories as a backup: write, commit, read back, publish.

The order is the promise. Nothing is committed before the producer ended well and a reader
of the format has read the stream to its end; nothing is published before the stored bytes
were read back and are the same. What fails on the way is taken away again. Each repository
fails alone.

Limits: when a repository does not answer while a manifest is written, nobody knows whether
it is there. Its data then stays, and a later sweep removes it only if no manifest names it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from opsd import __version__
from opsd.backup.catalog import AlreadyPublished, publish, read_back
from opsd.backup.manifest import Level, Manifest, Verification, data_key
from opsd.backup.repository import Repository, Stored
from opsd.backup.stream import Fanout, NoRepositoryLeft, Write
from opsd.clock import Deadline
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.progress import Progress

log = structlog.get_logger()


class Corrupted(PermanentError):
    """A repository returned other bytes than it was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be delivered where."""

    kind: str
    subject: str
    slot: datetime
    run_id: str
    suffix: str  #: of the data object: ``.dump``; ``.age`` is appended when encrypted
    repositories: Sequence[Repository]
    recipients: Sequence[str]  #: age public keys; empty: not encrypted
    size_hint: int  #: upper bound of the stream in bytes, 0 when unknown
    deadline: Deadline
    progress: Progress
    #: How the producer's reader read it, for people.
    parsed: str = "read to its end by the program that restores it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A backup as it now exists in one repository."""

    key: str  #: of the manifest
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How it went, by the repositories' names; each is in exactly one of the three."""

    published: Mapping[str, Published]
    failures: Mapping[str, OpsdError]
    already: frozenset[str] = frozenset()  #: another run's result for this slot stands there


Source = dict[str, object]


def deliver(order: Order, produce: Callable[[Write], Source]) -> Delivery:
    """Deliver what `produce` writes.

    Args:
        order: what and where.
        produce: writes the stream, encrypted if there are recipients, has a reader of the
            format read all of it, and returns `Manifest.source`; an error of its own takes
            everything back.

    Raises:
        OpsdError: whatever `produce` raises.
    """
    key = data_key(
        order.subject, order.slot, order.run_id, order.suffix + (".age" * bool(order.recipients))
    )
    started = order.deadline.clock.monotonic()
    with Fanout(order.repositories, key, run_id=order.run_id, size_hint=order.size_hint) as fanout:
        try:
            source = produce(fanout.write)
        except NoRepositoryLeft:
            return Delivery(published={}, failures=fanout.failures)
        stored = fanout.commit()
    log.info(
        "dump.stored",
        subject=order.subject,
        repositories=sorted(stored),
        duration_s=round(order.deadline.clock.monotonic() - started, 3),
    )
    return _Proof(order, stored, fanout.failures).conclude(source)


class _Proof:
    """The objects of one delivery between commit and publication."""

    def __init__(
        self, order: Order, stored: Mapping[str, Stored], failures: Mapping[str, OpsdError]
    ) -> None:
        self._order = order
        self._stored = stored
        self._failures = dict(failures)
        self._published: dict[str, Published] = {}
        self._already: set[str] = set()
        self._parsed_at = order.deadline.clock.now()

    def conclude(self, source: Source) -> Delivery:
        for repository in self._order.repositories:
            if repository.name in self._stored:
                self._conclude_one(repository, source)
        return Delivery(
            published=self._published,
            failures=self._failures,
            already=frozenset(self._already),
        )

    def _conclude_one(self, repository: Repository, source: Source) -> None:
        stored = self._stored[repository.name]
        try:
            proofs = (self._read_back(repository, stored), self._parsed())
            manifest = self._manifest(stored, source, proofs)
            key = publish(repository, manifest)
        except AlreadyPublished:
            self._take_back(repository)
            self._already.add(repository.name)
        except Corrupted as exc:
            self._take_back(repository)
            self._failures[repository.name] = exc
        except (TransientError, PermanentError) as exc:
            self._failures[repository.name] = exc
        else:
            self._published[repository.name] = Published(key=key, manifest=manifest)

    def _read_back(self, repository: Repository, stored: Stored) -> Verification:
        verdict = read_back(
            repository,
            stored.key,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            deadline=self._order.deadline,
            progress=self._order.progress,
        )
        if not verdict.ok:
            raise Corrupted(f"repository {repository.name}: {stored.key}: {verdict.detail}")
        return verdict

    def _manifest(
        self, stored: Stored, source: Source, proofs: tuple[Verification, ...]
    ) -> Manifest:
        order = self._order
        return Manifest(
            kind=order.kind,
            subject=order.subject,
            slot=order.slot,
            run_id=order.run_id,
            created_at=order.deadline.clock.now(),
            key=stored.key,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            encryption="age" if order.recipients else "",
            recipients=tuple(order.recipients),
            source=source,
            verified=proofs,
            opsd_version=__version__,
        )

    def _parsed(self) -> Verification:
        """The producer's reader saw the very bytes that were read back."""
        detail = self._order.parsed
        return Verification(level=Level.PARSED.label, at=self._parsed_at, ok=True, detail=detail)

    def _take_back(self, repository: Repository) -> None:
        """Delete our data; what the repository refuses now, a later sweep removes."""
        with contextlib.suppress(TransientError, PermanentError):
            repository.delete(self._stored[repository.name].key)
