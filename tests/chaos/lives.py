"""One life of the daemon after another, on a clock that the test moves.

A life is the daemon's own code from its start to its end, in a process that may be killed at
any point. Its runs happen in the same process (a power cut ends everything at once) or apart,
in children of their own (which may die alone, as when memory runs out).

Limits: the timer is not part of it, a life ticks when its script says so; what is due together
runs one after another, because all share one clock.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from opsd.alerts import outbox
from opsd.clock import Deadline
from opsd.daemon import Daemon, Scheduled
from opsd.errors import LeaseHeld, OpsdError
from opsd.executors.inline import run_now
from opsd.executors.ledger import LEASE_HELD_STATUS
from opsd.executors.process import OVERSTAY, Ended, Ending
from opsd.model import Outcome
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock
from tests.chaos.forks import Ending as ForkEnding
from tests.chaos.forks import Forks, forked
from tests.chaos.world import (
    FAIR,
    JOBS,
    TIMEOUT,
    Contexts,
    Inboxes,
    Settings,
    Weather,
    World,
    job_of,
)
from tests.faults.failpoints import Failpoint, arm

DELIVERY_S = 60.0
RETRIES = 2
CATCH_UP = None  # until the next slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to the clocks before a tick."""

    passes: timedelta = timedelta(0)  #: on both
    jumps: timedelta = timedelta(0)  #: on the wall clock alone


TICK = Step(passes=timedelta(seconds=10))
SETTLE = (Step(), TICK, TICK)  # a restart has two ticks to settle; the third changes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """From a start of the daemon to its end."""

    world: World
    wall: datetime  #: what the clock shows at its start, aware UTC
    steps: tuple[Step, ...]  #: it ticks after each
    weather: Weather = FAIR
    failpoint: Failpoint | None = None
    apart: bool = False  #: runs and deliveries have processes of their own; the failpoint too


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """What a life that was not killed says."""

    wall: datetime  #: of its clock, at the end
    struck: bool  #: whether its failpoint did
    settled: bool  #: whether its last tick changed nothing on record


def live(life: Life) -> Lived:
    """Live `life` in this process, which should not be used afterwards."""
    life.world.log_here()
    clock = FakeClock(life.wall)
    struck = arm(life.failpoint) if life.failpoint and not life.apart else bool
    with contextlib.ExitStack() as stack:
        forks = stack.enter_context(forked()) if life.apart else None
        state = stack.enter_context(life.world.opened(clock))
        daemon = awake(life, state=state, clock=clock, forks=forks)
        before = after = on_record(state)
        for step in life.steps:
            clock.advance(step.passes)
            clock.wall += step.jumps
            daemon.tick()
            daemon.wait()
            before, after = after, on_record(state)
    return Lived(wall=clock.wall, struck=struck(), settled=before == after)


def on_record(state: SqliteState) -> tuple[object, ...]:
    """How the slots stand; messages are not part of it, they go out when they can."""
    return state.runs(limit=20), state.running(), state.open_findings()


def awake(life: Life, *, state: SqliteState, clock: FakeClock, forks: Forks | None) -> Daemon:
    """A daemon that has just started."""
    world = life.world
    jobs = [
        Scheduled(
            job=job, cron=world.cron(job), timeout=TIMEOUT, catch_up=CATCH_UP, retries=RETRIES
        )
        for job in JOBS
    ]
    launcher = Apart(life, clock, forks) if forks else Here(life, clock)
    daemon = Daemon(jobs, state=state, launcher=launcher, tell=world.tell, clock=clock)
    for job in JOBS:
        daemon._ledger.settle(job)
    return daemon


class Here:
    """Fulfils `opsd.daemon.Launcher` in the process of the daemon."""

    def __init__(self, life: Life, clock: FakeClock) -> None:
        self._life = life
        self._clock = clock
        self._turn = threading.Lock()

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        with self._turn:
            assert (timeout, stop.is_set()) == (TIMEOUT, False)
            return Ended(
                ending=Ending.BY_ITSELF, status=run_child(self._life, job, slot, self._clock)
            )

    def deliver(self, *, stop: threading.Event) -> Ended:
        with self._turn:
            assert not stop.is_set()
            return Ended(ending=Ending.BY_ITSELF, status=deliver(self._life, self._clock))


class Apart:
    """Fulfils `opsd.daemon.Launcher` with a process for each run."""

    def __init__(self, life: Life, clock: FakeClock, forks: Forks) -> None:
        self._life = life
        self._clock = clock
        self._forks = forks
        self._turn = threading.Lock()

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        with self._turn:
            assert not stop.is_set()
            now, ticks_s = self._clock.wall, self._clock.ticks_s
            work = functools.partial(_run_apart, self._life, job, slot, now, ticks_s)
            return self._ended(self._forks.run(work), timeout=timeout)

    def deliver(self, *, stop: threading.Event) -> Ended:
        with self._turn:
            assert not stop.is_set()
            work = functools.partial(
                _deliver_apart, self._life, self._clock.wall, self._clock.ticks_s
            )
            return self._ended(self._forks.run(work), timeout=timedelta(seconds=DELIVERY_S))

    def _ended(self, ending: ForkEnding, *, timeout: timedelta) -> Ended:
        """What `opsd.executors.process.supervise` would say of it."""
        if ending.was_stopped:
            self._clock.advance(timeout + OVERSTAY)
            return Ended(ending=Ending.OVERSTAYED, status=ending.status)
        if ending.result is None:
            return Ended(ending=Ending.BY_ITSELF, status=ending.status)
        status, took = ending.result
        self._clock.advance(took)
        return Ended(ending=Ending.BY_ITSELF, status=status)


def run_child(life: Life, job: str, slot: datetime, clock: FakeClock) -> int:
    """What `opsd run-job JOB --slot SLOT` does; its exit status."""
    with life.world.opened(clock) as state:
        try:
            run = run_now(
                job_of(job, life.weather),
                Settings(),
                slot=slot,
                timeout=TIMEOUT,
                state=state,
                clock=clock,
                context=Contexts(life.world, clock),
                tell=life.world.tell,
            )
        except LeaseHeld:
            return LEASE_HELD_STATUS
        except OpsdError:
            return 1
        return int(run.outcome is not Outcome.COMPLETED)


def deliver(life: Life, clock: FakeClock) -> int:
    """What `opsd deliver` does; its exit status."""
    with life.world.opened(clock) as state:
        notifier = Inboxes(life.world, life.weather)
        deadline = Deadline.after(DELIVERY_S, clock)
        done = outbox.deliver(
            state, notifier, tell=life.world.tell, clock=clock, deadline=deadline
        )
        return int(bool(done.failed))


def _run_apart(
    life: Life, job: str, slot: datetime, wall: datetime, ticks_s: float
) -> tuple[int, timedelta]:
    clock = _apart(life, wall, ticks_s)
    status = run_child(life, job, slot, clock)
    return status, timedelta(seconds=clock.ticks_s - ticks_s)


def _deliver_apart(life: Life, wall: datetime, ticks_s: float) -> tuple[int, timedelta]:
    clock = _apart(life, wall, ticks_s)
    status = deliver(life, clock)
    return status, timedelta(seconds=clock.ticks_s - ticks_s)


def _apart(life: Life, wall: datetime, ticks_s: float) -> FakeClock:
    """The clock of a child, with the life's failpoint armed in it."""
    if life.failpoint:
        arm(life.failpoint)
    clock = FakeClock(wall)
    clock.ticks_s = ticks_s
    return clock
