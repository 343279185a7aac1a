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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from opsd.alerts import outbox
from opsd.clock import Deadline
from opsd.daemon import Daemon, Scheduled
from opsd.errors import LeaseHeld, OpsdError, SlotAnswered
from opsd.executors.inline import run_now
from opsd.executors.ledger import LEASE_HELD_STATUS
from opsd.executors.process import OVERSTAY, Ended, Ending
from opsd.model import Outcome
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock
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
        daemon = awake(Launcher(life, clock, forks), state=state, clock=clock)
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


def awake(launcher: Launcher, *, state: SqliteState, clock: FakeClock) -> Daemon:
    """A daemon that has just started."""
    life = launcher.life
    jobs = [scheduled(life.world, job) for job in JOBS]
    return Daemon(jobs, state=state, launcher=launcher, tell=life.world.tell, clock=clock)


def scheduled(world: World, job: str) -> Scheduled:
    """A job as the daemon knows it."""
    return Scheduled(job=job, cron=world.cron(job), timeout=TIMEOUT, retries=RETRIES)


class Launcher:
    """Fulfils `opsd.daemon.Launcher`: here, or with a process for each run."""

    def __init__(self, life: Life, clock: FakeClock, forks: Forks | None = None) -> None:
        self.life = life  #: settable: what befalls the next runs
        self._clock = clock
        self._forks = forks  # where `life.apart`
        self._turn = threading.Lock()

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        assert (timeout, stop.is_set()) == (TIMEOUT, False)
        return self._launch(functools.partial(run_child, self.life, job, slot), timeout)

    def deliver(self, *, stop: threading.Event) -> Ended:
        assert not stop.is_set()
        work = functools.partial(deliver, self.life)
        return self._launch(work, timedelta(seconds=DELIVERY_S))

    def _launch(self, work: Callable[[FakeClock], int], timeout: timedelta) -> Ended:
        """What `opsd.executors.process.supervise` would say of it."""
        with self._turn:
            if not self.life.apart:
                return Ended(ending=Ending.BY_ITSELF, status=work(self._clock))
            assert self._forks is not None
            order = functools.partial(_apart, self.life, work, self._clock)
            ending = self._forks.run(order)
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
                patience=scheduled(life.world, job).patience,
                is_scheduled=True,
            )
        except (LeaseHeld, SlotAnswered):
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


def _apart(
    life: Life, work: Callable[[FakeClock], int], clock: FakeClock
) -> tuple[int, timedelta]:
    """Work in a child, with the life's failpoint armed in it: its status and how long it took."""
    life.world.log_here()
    if life.failpoint:
        arm(life.failpoint)
    began = clock.ticks_s
    status = work(clock)
    return status, timedelta(seconds=clock.ticks_s - began)
