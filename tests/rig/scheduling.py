"""A daemon whose children are threads of the test, and whose clock moves only when told to.

Everything but the child's process is real: the daemon, `run_now`, the state on its file system.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from opsd.config import Table
from opsd.cron import parse
from opsd.daemon import Daemon, Scheduled
from opsd.errors import LeaseHeld
from opsd.executors.inline import run_now
from opsd.executors.ledger import LEASE_HELD_STATUS
from opsd.executors.process import Ended, Ending
from opsd.job import Context, Job, Observation
from opsd.model import Outcome, Run
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, context, tell_at_once

OK = Ended(ending=Ending.BY_ITSELF, status=0)
KILLED = Ended(ending=Ending.BY_ITSELF, status=-9)
TURNED_AWAY = Ended(ending=Ending.BY_ITSELF, status=LEASE_HELD_STATUS)
HOUR = timedelta(hours=1)
Work = Callable[[Context], None]


class Settings(Table):
    """The job of the tests needs none."""


class Died(BaseException):
    """Stands for SIGKILL: nothing catches it, so nothing is recorded."""


def nothing(_ctx: Context) -> None:
    """The work of a job that finds everything in order."""


@dataclass
class Threads:
    """Fulfils `opsd.daemon.Launcher` without processes."""

    jobs: dict[str, Scheduled]
    state: SqliteState
    clock: FakeClock
    scratch: Path
    work: Work = nothing
    started: list[datetime] = field(default_factory=list)
    deliveries: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        """Run it in this thread, as the child would."""
        self.stop = stop
        self.started.append(slot)
        try:
            self.run(job, slot, timeout=timeout, is_scheduled=True)
        except LeaseHeld:
            return TURNED_AWAY
        except Died:
            return KILLED
        return OK

    def deliver(self, *, stop: threading.Event) -> Ended:
        """Take every message."""
        assert not stop.is_set()
        self.deliveries += 1
        for entry in self.state.undelivered():
            self.state.mark_delivered(entry.id, at=self.clock.now())
        return OK

    def run(
        self, job: str, slot: datetime, *, timeout: timedelta = HOUR, is_scheduled: bool = False
    ) -> Run:
        """Run a job now."""

        def works(ctx: Context, _settings: Settings) -> Iterator[Observation]:
            self.work(ctx)
            yield from ()

        return run_now(
            Job(
                name=job,
                summary="",
                group="",
                schedule="@daily",
                timeout=timeout,
                settings=Settings,
                run=works,
            ),
            Settings(),
            slot=slot,
            timeout=timeout,
            state=self.state,
            clock=self.clock,
            context=self._context,
            tell=tell_at_once,
            patience=self.jobs[job].patience,
            is_scheduled=is_scheduled,
        )

    def _context(self, **given: Any) -> Context:
        deadline = given.pop("deadline")
        return context(scratch=self.scratch, clock=deadline.clock, **given)


@dataclass
class Place:
    """One state, one clock, and as many daemons as a test wants."""

    state: SqliteState
    clock: FakeClock
    children: Threads
    jobs: Sequence[Scheduled]

    @classmethod
    def made(cls, folder: Path, *, now: datetime, jobs: Sequence[Scheduled]) -> Place:
        """A new one in an existing folder."""
        clock = FakeClock(now)
        state = SqliteState(folder / "state.db", clock=clock)
        by_name = {one.job: one for one in jobs}
        children = Threads(jobs=by_name, state=state, clock=clock, scratch=folder)
        return cls(state=state, clock=clock, children=children, jobs=jobs)

    def daemon(self, **changes: Any) -> Daemon:
        """A daemon that starts now."""
        values: dict[str, Any] = {
            "state": self.state,
            "launcher": self.children,
            "tell": tell_at_once,
            "clock": self.clock,
        }
        return Daemon(self.jobs, **{**values, **changes})

    def outcomes(self, job: str) -> list[tuple[datetime, Outcome]]:
        """How its slots ended, in the order in which it was recorded."""
        return [(run.slot, run.outcome) for run in reversed(self.state.runs(job=job, limit=5000))]


def scheduled(name: str, schedule: str, **changes: Any) -> Scheduled:
    """A job in UTC that may take an hour."""
    cron = parse(schedule, timezone=UTC, spread_by=name)
    return Scheduled(**{"job": name, "cron": cron, "timeout": HOUR, **changes})


def tick(daemon: Daemon, times: int = 1) -> None:
    """Let the daemon look, and wait for what it started."""
    for _ in range(times):
        daemon.tick()
        daemon.wait()
