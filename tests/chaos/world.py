"""A small installation in one folder, real but for its clock and what is dumped.

Two jobs publish through the real delivery into a real directory, on a real state file, and the
real outbox delivers to two targets, each a file. What a job dumps follows from subject and slot
alone, so that anybody can tell what a backup must hold.

Limits: a file stands for the service that takes a message; it takes it wholly or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from opsd import logs
from opsd.alerts.policy import Policy
from opsd.backup import housekeeping
from opsd.backup.catalog import read_catalog
from opsd.backup.delivery import Order, deliver
from opsd.backup.directory import DirectoryRepository
from opsd.backup.manifest import manifest_key
from opsd.backup.stream import Write
from opsd.cli.wiring import telling
from opsd.clock import Clock, Deadline
from opsd.config import Keep, Table
from opsd.cron import Cron, parse
from opsd.errors import PartialFailure, TransientError
from opsd.job import Context, Job, Observation
from opsd.model import Artifact, Finding, Message, Seen, Severity
from opsd.state import Tell
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, context

JOBS = ("nightly", "other")
SCHEDULES = {"nightly": "30 2 * * *", "other": "0 */6 * * *"}
SUBJECTS = {"nightly": "database/main/nightly", "other": "database/main/other"}
TARGETS = ("phone", "mail")
TIMEOUT = timedelta(minutes=10)
# All that no rule keeps may go at once: nobody is there to answer when that is refused.
KEEP = Keep(last=3, daily=0, weekly=0, monthly=0, minimum=2, max_removed_percent=100)
LOG_LEVEL = "debug"
DUMP_BYTES = 3000
PIECES = 3
SLOW_STEP = timedelta(seconds=4)  # less than what a run may overstay
CANARY = "canary-of-the-chaos-5f1e"  # a secret that stands in no file but the dumps


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What the outside does to the runs and messages of one life."""

    failing: tuple[str, ...] = ()  #: jobs whose server refuses
    slow: tuple[str, ...] = ()  #: jobs that do not end by themselves
    crashing: tuple[str, ...] = ()  #: jobs with a bug
    dead_targets: tuple[str, ...] = ()  #: services that are down


FAIR = Weather()


class Settings(Table):
    """A job of the chaos needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The folder and the rules; everything else is on disk."""

    place: Path
    timezone: str = "UTC"
    quiet_hours: str = ""
    schedules: Mapping[str, str] = field(default_factory=lambda: SCHEDULES)  #: by job

    @property
    def state_path(self) -> Path:
        return self.place / "state" / "state.db"

    @property
    def repository(self) -> DirectoryRepository:
        return DirectoryRepository("disk", self.place / "repository")

    @property
    def policy(self) -> Policy:
        return Policy(timezone=self.timezone, quiet_hours=self.quiet_hours)

    @property
    def tell(self) -> Tell:
        return telling(self.policy, somebody=True)

    def make(self) -> World:
        """The same world with its folders made."""
        for name in ("repository", "inbox", "scratch"):
            (self.place / name).mkdir(parents=True, exist_ok=True)
        return self

    def cron(self, job: str) -> Cron:
        return parse(self.schedules[job], timezone=ZoneInfo(self.timezone), spread_by=job)

    @contextlib.contextmanager
    def opened(self, clock: Clock) -> Iterator[SqliteState]:
        """Its state."""
        state = SqliteState(self.state_path, clock=clock)
        try:
            yield state
        finally:
            state.close()

    def inbox(self, target: str) -> list[str]:
        """Keys of the messages that a target took, in order; a torn line is no message."""
        try:
            lines = (self.place / "inbox" / target).read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line)["key"] for line in lines]

    def log_here(self) -> None:
        """Send this process's log to a file of the world."""
        logs.configure(level=LOG_LEVEL, stream=(self.place / "log").open("a"))


@dataclass(frozen=True, slots=True)
class Inboxes:
    """Fulfils `opsd.alerts.outbox.Notifier`: one file for each target."""

    world: World
    weather: Weather

    @property
    def known(self) -> Mapping[str, Severity]:
        return dict.fromkeys(TARGETS, Severity.WARNING)

    def targets(self, message: Message) -> tuple[str, ...]:
        wanted = tuple(name for name in TARGETS if name in message.tags)
        return wanted or TARGETS

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        deadline.remaining()
        if target in self.weather.dead_targets:
            raise TransientError(f"send to {target}: connection refused")
        line = json.dumps({"key": message.key, "title": message.title, "body": message.body})
        descriptor = os.open(
            self.world.place / "inbox" / target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
        )
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Contexts:
    """Fulfils `opsd.executors.inline.ContextFactory`."""

    world: World
    clock: FakeClock

    def __call__(
        self,
        *,
        job: str,
        run_id: str,
        slot: datetime,
        deadline: Deadline,
        dead_runs: frozenset[str],
        dry_run: bool,
    ) -> Context:
        return context(
            scratch=self.world.place / "scratch",
            repositories=[self.world.repository],
            clock=self.clock,
            job=job,
            run_id=run_id,
            slot=slot,
            timezone=ZoneInfo(self.world.timezone),
            timeout=timedelta(seconds=deadline.remaining()),
            dead_runs=dead_runs,
            dry_run=dry_run,
        )


def job_of(name: str, weather: Weather) -> Job[Settings]:
    """The job of this name in such weather."""

    def run(ctx: Context, _settings: Settings) -> Iterator[Observation]:
        if name in weather.crashing:
            raise RuntimeError(f"a bug in {name}")
        while name in weather.slow:
            ctx.remaining()
            assert isinstance(ctx.clock, FakeClock)
            ctx.clock.advance(SLOW_STEP)
        yield from back_up(ctx, SUBJECTS[name], refuses=name in weather.failing)

    return Job(
        name=name,
        summary="",
        group="",
        schedule=SCHEDULES[name],
        timeout=TIMEOUT,
        settings=Settings,
        run=run,
    )


def content(subject: str, slot: datetime) -> bytes:
    """What the source held at that time."""
    seed = f"{CANARY} {subject} {slot.astimezone(UTC).isoformat()}".encode()
    return hashlib.shake_256(seed).digest(DUMP_BYTES)


def back_up(ctx: Context, subject: str, *, refuses: bool) -> Iterator[Observation]:
    """What a backup job does, in the order in which it does it."""
    repository = ctx.repository("disk")
    now = ctx.clock.now()
    before = read_catalog(repository, f"{subject}/")
    yield from housekeeping.damaged("disk", before)
    yield from housekeeping.clear_leftovers(repository, subject, dead_runs=ctx.dead_runs, now=now)
    if any(one.key == manifest_key(subject, ctx.slot) for one in before.backups):
        yield Seen(subject=subject)
        return
    if refuses:
        yield Finding(
            check="postgres.unreachable",
            subject=subject,
            severity=Severity.CRITICAL,
            summary="the server refuses",
        )
        raise PartialFailure("1 of 1 failed")
    yield from _publish(ctx, subject)
    yield from housekeeping.retain(repository, subject, KEEP, now=now, timezone=ctx.timezone)


def _publish(ctx: Context, subject: str) -> Iterator[Observation]:
    dump = content(subject, ctx.slot)

    def produce(write: Write) -> dict[str, object]:
        step = len(dump) // PIECES
        for start in range(0, len(dump), step):
            write(dump[start : start + step])
        return {}

    order = Order(
        kind="pg_dump",
        subject=subject,
        slot=ctx.slot,
        run_id=ctx.run_id,
        suffix=".dump",
        repositories=[ctx.repository("disk")],
        recipients=(),
        size_hint=0,
        deadline=ctx.deadline,
        progress=ctx.progress,
    )
    delivery = deliver(order, produce)
    for failure in delivery.failures.values():
        raise failure
    yield Seen(subject=subject)
    for published in delivery.published.values():
        yield Artifact(
            kind="pg_dump",
            subject=subject,
            repository="disk",
            key=published.key,
            size_bytes=published.manifest.size_bytes,
            sha256=published.manifest.sha256,
            level="parsed",
        )
