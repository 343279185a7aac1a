"""Bring one stream into the repositories as a backup: write, commit, read back, publish.

The order is the promise. Nothing is committed before the producer ended well; nothing is
published before the stored bytes were read back, equal what was written, and were read to
their end by a reader of their format. What fails on the way is taken away again. Each
repository fails alone.

Limits: when a repository does not answer while a manifest is written, nobody knows whether
it is there. Its data then stays, and a later sweep removes it only if no manifest names it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from opsd import __version__
from opsd.backup.catalog import AlreadyPublished, publish, read_back
from opsd.backup.manifest import Level, Manifest, Verification, data_key
from opsd.backup.repository import Repository, Stored
from opsd.backup.stream import Check, Fanout, Incomplete, NoRepositoryLeft, Write
from opsd.clock import Deadline
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.progress import Progress


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


def deliver(
    order: Order, produce: Callable[[Write], Source], *, check: Callable[[], Check]
) -> Delivery:
    """Deliver what `produce` writes.

    Args:
        order: what and where.
        produce: writes the stream and returns `Manifest.source`; an error of its own takes
            everything back. Encrypts, and checks what it encrypts, when there are
            recipients.
        check: makes a reader of the format, for the stored bytes of what is not encrypted.

    Raises:
        Incomplete: the data is stored as written, but its reader says that it is not whole.
        OpsdError: whatever `produce` raises.
    """
    key = data_key(
        order.subject, order.slot, order.run_id, order.suffix + (".age" * bool(order.recipients))
    )
    with Fanout(order.repositories, key, run_id=order.run_id, size_hint=order.size_hint) as fanout:
        try:
            source = produce(fanout.write)
        except NoRepositoryLeft:
            return Delivery(published={}, failures=fanout.failures)
        stored = fanout.commit()
    return _Proof(order, stored, fanout.failures).conclude(source, check)


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
        self._parsed: Verification | None = None

    def conclude(self, source: Source, check: Callable[[], Check]) -> Delivery:
        if self._order.recipients:
            self._parsed = self._verified(Level.PARSED, "read to its end before it was encrypted")
        for repository in self._order.repositories:
            if repository.name in self._stored:
                self._conclude_one(repository, source, check)
        return Delivery(
            published=self._published,
            failures=self._failures,
            already=frozenset(self._already),
        )

    def _conclude_one(
        self, repository: Repository, source: Source, check: Callable[[], Check]
    ) -> None:
        stored = self._stored[repository.name]
        try:
            proofs = self._prove(repository, stored, check)
            manifest = self._manifest(stored, source, proofs)
            key = publish(repository, manifest)
        except Incomplete:
            self._take_all_back()
            raise
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

    def _prove(
        self, repository: Repository, stored: Stored, check: Callable[[], Check]
    ) -> tuple[Verification, ...]:
        """Read back; equal bytes were parsed once, so one repository's parse is for all."""
        if self._parsed is not None:
            return (self._read_back(repository, stored, None), self._parsed)
        with check() as reader:
            read = self._read_back(repository, stored, reader)
            reader.finish()
        self._parsed = self._verified(Level.PARSED, "stored bytes read to their end")
        return (read, self._parsed)

    def _read_back(
        self, repository: Repository, stored: Stored, reader: Check | None
    ) -> Verification:
        verdict = read_back(
            repository,
            stored.key,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            deadline=self._order.deadline,
            progress=self._order.progress,
            also=reader.feed if reader else None,
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

    def _verified(self, level: Level, detail: str) -> Verification:
        now = self._order.deadline.clock.now()
        return Verification(level=level.label, at=now, ok=True, detail=detail)

    def _take_all_back(self) -> None:
        for repository in self._order.repositories:
            if repository.name in self._stored:
                self._take_back(repository)

    def _take_back(self, repository: Repository) -> None:
        """Delete our data; what the repository refuses now, a later sweep removes."""
        with contextlib.suppress(TransientError, PermanentError):
            repository.delete(self._stored[repository.name].key)
