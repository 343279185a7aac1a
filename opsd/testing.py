"""What a test of a job or of opsd itself needs: a repository in memory, a clock, a context.

The repository passes the same conformance suite as a directory and S3, so a job that is
right with it is right with them.

Limits: nothing here is durable, and nothing fails by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, cast

from opsd.alerts.policy import Policy, advance
from opsd.backup.naming import check_key, check_prefix
from opsd.backup.repository import (
    CHUNK_BYTES,
    AlreadyExists,
    NotFound,
    Repository,
    Stored,
    StoredObject,
    Unfinished,
    Upload,
    try_rights,
)
from opsd.clock import Clock, Deadline
from opsd.errors import ConfigError, OpsdError, PermanentError, TransientError
from opsd.hosts.fleet import Roster, Visit, Way
from opsd.hosts.machine import Machine
from opsd.hosts.script import Script, Section
from opsd.incidents import AlertState
from opsd.job import Context
from opsd.model import Message, OpenFinding
from opsd.progress import NoProgress, Progress

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube
    from opsd.clients.pgserver import Postgres
    from opsd.hosts.fleet import Fleet

START = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)  # a Sunday
RUN_ID = "0123456789ab"


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: datetime = START) -> None:
        self.wall = now  #: settable; does not move the monotonic clock
        self.ticks_s = 1000.0  #: settable; the monotonic clock

    def now(self) -> datetime:
        """The wall time that was set."""
        return self.wall

    def monotonic(self) -> float:
        """The monotonic time that was set."""
        return self.ticks_s

    def advance(self, by: timedelta) -> None:
        """Let time pass on both clocks."""
        self.wall += by
        self.ticks_s += by.total_seconds()


def tell_nobody(
    alerts: AlertState, _open_findings: Sequence[OpenFinding], _at: datetime
) -> tuple[AlertState, tuple[Message, ...]]:
    """A `opsd.state.Tell` that has nothing to say."""
    return alerts, ()


def tell_at_once(
    alerts: AlertState, open_findings: Sequence[OpenFinding], at: datetime
) -> tuple[AlertState, tuple[Message, ...]]:
    """A `opsd.state.Tell` that knows no quiet hours: the policy with nothing configured."""
    return advance(alerts, open_findings, at, policy=Policy())


class MemoryRepository:
    """Objects in a dictionary. Safe for several threads."""

    def __init__(self, name: str = "memory", *, clock: Clock | None = None) -> None:
        self._name = name
        self._clock = clock or FakeClock()
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._unfinished: dict[str, Unfinished] = {}
        self._tokens = itertools.count()

    @property
    def name(self) -> str:
        """The name given."""
        return self._name

    @property
    def location(self) -> str:
        """Nowhere."""
        return "memory:"

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:  # noqa: ARG002 - protocol
        """Begin an object; see `Repository.upload`."""
        leftover = Unfinished(
            key=check_key(key),
            run_id=run_id,
            started_at=self._clock.now(),
            token=str(next(self._tokens)),
        )
        with self._lock:
            self._unfinished[leftover.token] = leftover
        return _MemoryUpload(self, leftover)

    def create(self, key: str, content: bytes) -> None:
        """Write a small object in one step; see `Repository.create`."""
        self.publish(check_key(key), bytes(content), same_is_fine=True)

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes; see `Repository.read`."""
        with self._lock:
            found = self._objects.get(check_key(key))
        if found is None:
            raise NotFound(f"repository {self._name}: read {key}: no such object")
        content = found[0]
        for start in range(0, len(content), CHUNK_BYTES):
            yield content[start : start + CHUNK_BYTES]

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects under `prefix`; see `Repository.list`."""
        check_prefix(prefix)
        with self._lock:
            objects = sorted(self._objects.items())
        for key, (content, modified_at) in objects:
            if key.startswith(prefix):
                yield StoredObject(key=key, size_bytes=len(content), modified_at=modified_at)

    def delete(self, key: str) -> None:
        """Remove one object; see `Repository.delete`."""
        with self._lock:
            self._objects.pop(check_key(key), None)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """What was begun and not finished; see `Repository.unfinished`."""
        check_prefix(prefix)
        with self._lock:
            leftovers = sorted(self._unfinished.values(), key=lambda one: (one.key, one.token))
        yield from (leftover for leftover in leftovers if leftover.key.startswith(prefix))

    def discard(self, leftover: Unfinished) -> None:
        """Forget an unfinished object; see `Repository.discard`."""
        with self._lock:
            self._unfinished.pop(leftover.token, None)

    def probe(self) -> None:
        """Try every right; see `Repository.probe`."""
        try_rights(self)

    def replace(self, key: str, content: bytes) -> None:
        """Damage an object, as a failing disk would: for tests of what notices it."""
        with self._lock:
            _, modified_at = self._objects[key]
            self._objects[key] = (content, modified_at)

    def publish(self, key: str, content: bytes, *, same_is_fine: bool) -> None:
        """Put an object under its key if the key is free.

        Raises:
            AlreadyExists: it is not.
        """
        with self._lock:
            found = self._objects.get(key)
            if found is None:
                self._objects[key] = (content, self._clock.now())
        if found is not None and not (same_is_fine and found[0] == content):
            raise AlreadyExists(
                f"repository {self._name}: write {key}: an object with this key is there"
            )


class _MemoryUpload:
    def __init__(self, repository: MemoryRepository, leftover: Unfinished) -> None:
        self._repository = repository
        self._leftover = leftover
        self._content = bytearray()

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._content += chunk

    def commit(self) -> Stored:
        key, content = self._leftover.key, bytes(self._content)
        self._repository.publish(key, content, same_is_fine=False)
        self.abort()
        return Stored(key=key, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

    def abort(self) -> None:
        self._repository.discard(self._leftover)


class MemoryFleet:
    """Machines whose answers are written down; held equal to the real ones by a suite."""

    def __init__(
        self,
        machines: Iterable[Machine],
        answers: Mapping[str, Mapping[str, Section | str] | OpsdError],
        *,
        unknown: str = "",
        offsets_s: Mapping[str, float] | None = None,
    ) -> None:
        """Say who there is.

        Args:
            machines: all of them.
            answers: by name of the machine, and then of the probe: what it says, or its stdout
                when it succeeds; a probe that is left out was cut off. Or why it cannot be asked.
            unknown: see `Roster.unknown`.
            offsets_s: by name of the machine; see `Visit.clock_offset_s`.
        """
        self._roster = Roster(machines=tuple(machines), unknown=unknown)
        self._answers = dict(answers)
        self._offsets_s = dict(offsets_s or {})
        self.scripts: list[Script] = []  #: that were run, one for each pass

    def roster(self) -> Roster:
        """Who belongs to it."""
        return self._roster

    def visit(self, machines: Iterable[Machine], script: Script) -> Iterator[Visit]:
        """What is written down."""
        self.scripts.append(script)
        for machine in machines:
            answers = self._answers[machine.name]
            if isinstance(answers, OpsdError):
                yield Visit(machine=machine, problem=answers)
                continue
            asked = [probe.name for probe in script.probes]
            sections = {name: _section(name, answers[name]) for name in asked if name in answers}
            is_whole = len(sections) == len(asked)
            yield Visit(
                machine=machine,
                sections=sections,
                problem=None if is_whole else TransientError(f"ask {machine.name}: cut off"),
                login_s=0.1,
                clock_offset_s=self._offsets_s.get(machine.name, 0.0),
            )

    def way(self, machine: Machine) -> AbstractContextManager[Way]:
        """It leads nowhere."""
        raise PermanentError(f"log in to {machine.name}: it is only written down")


def _section(name: str, answer: Section | str) -> Section:
    if isinstance(answer, str):
        return Section(name=name, stdout=answer, stderr="", status=0)
    return answer


def context(
    *,
    scratch: Path,
    repositories: Iterable[Repository] = (),
    postgres: Postgres | None = None,
    kube: Kube | None = None,
    fleet: Fleet | None = None,
    clock: Clock | None = None,
    job: str = "test-job",
    run_id: str = RUN_ID,
    slot: datetime = START,
    timezone: tzinfo = UTC,
    timeout: timedelta = timedelta(minutes=1),
    dry_run: bool = False,
    progress: Progress | None = None,
    dead_runs: Iterable[str] = (),
) -> Context:
    """A context as the runner makes it, on a clock that stands still unless one is given."""
    by_name = {repository.name: repository for repository in repositories}
    clock = clock or FakeClock(slot)

    def repository(name: str) -> Repository:
        try:
            return by_name[name]
        except KeyError:
            raise ConfigError(f"repository {name} is not configured") from None

    def open_kube(_deadline: Deadline) -> Kube:
        if kube is None:
            raise ConfigError("this test's context has no Kubernetes cluster")
        return kube

    def open_fleet(_deadline: Deadline) -> Fleet:
        if fleet is None:
            raise ConfigError("this test's context has no machines")
        return fleet

    return Context(
        job=job,
        run_id=run_id,
        slot=slot,
        timezone=timezone,
        clock=clock,
        deadline=Deadline.after(timeout.total_seconds(), clock),
        dry_run=dry_run,
        progress=progress or NoProgress(),
        scratch=scratch,
        dead_runs=frozenset(dead_runs),
        repository=repository,
        open_postgres=lambda: postgres or cast("Postgres", _NoPostgres()),
        open_kube=open_kube,
        open_fleet=open_fleet,
    )


class _NoPostgres:
    def __getattr__(self, name: str) -> object:
        raise PermanentError(f"this test's context has no PostgreSQL (asked for {name})")
