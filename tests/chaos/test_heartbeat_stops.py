"""I6: whatever keeps a whole daemon from its work stops the sign of life within two periods."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from opsd.alerts.heartbeat import MUTE_AFTER, OLDEST_TICK, Heartbeat
from opsd.clients.pings import Endpoint
from opsd.daemon import Daemon
from opsd.daemon.scheduler import GRACE
from opsd.executors.process import OVERSTAY, Ended
from opsd.secrets import Secret
from opsd.testing import FakeClock
from tests.chaos.lives import Launcher, Life, scheduled
from tests.chaos.world import JOBS, TARGETS, TIMEOUT, Weather, World
from tests.rig import scratch, sink
from tests.rig.sink import Sink

pytestmark = pytest.mark.real

BEGIN = datetime(2027, 3, 1, 17, 30, tzinfo=UTC)  # half an hour before a slot
EVERY = timedelta(minutes=5)
TICK = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)
TOLD = timedelta(minutes=30)  # after its last try a run that failed is told by then


class Stuck(Launcher):
    """A launcher whose runs may be made to hang for ever."""

    def __init__(self, life: Life, clock: FakeClock) -> None:
        super().__init__(life, clock)
        self.hangs = False
        self.let_go = threading.Event()

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        if self.hangs:
            self.let_go.wait()
        return super().run_job(job, slot=slot, timeout=timeout, stop=stop)


class Watched:
    """A daemon that somebody outside watches."""

    def __init__(self, world: World, service: Sink) -> None:
        self.world = world
        self.service = service
        self.clock = FakeClock(BEGIN)
        self.launcher = Stuck(Life(world=world, wall=BEGIN, steps=()), self.clock)
        self.opened = contextlib.ExitStack()
        self.trouble = contextlib.ExitStack()
        self.ticks_hang = False
        self.runs_end = True
        state = self.opened.enter_context(world.opened(self.clock))
        endpoint = Endpoint(name="heartbeat", url=Secret("env:CHAOS_BEAT"), kind="plain")
        self.pulse = Heartbeat(endpoint, every=EVERY, state=state, clock=self.clock)
        self.daemon = Daemon(
            [scheduled(world, job) for job in JOBS],
            state=state,
            launcher=self.launcher,
            tell=world.tell,
            clock=self.clock,
            report=self._report,
            pulse=self.pulse,
        )

    def goes_on(self, duration: timedelta) -> int:
        """Let so much time pass; how many beats came in it."""
        before = len(self.service.requests)
        for _ in range(int(duration / TICK)):
            self.clock.advance(TICK)
            ticking = threading.Thread(target=self.daemon.tick)
            ticking.start()
            if not self.ticks_hang:
                ticking.join()
            if self.runs_end:
                self.daemon.wait()
            self.daemon.supervise()
            self.pulse.wait(10)
        return len(self.service.requests) - before

    def _report(self, _at: datetime) -> None:
        if self.ticks_hang:
            self.launcher.let_go.wait()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr("opsd.state.database.BUSY_TIMEOUT", timedelta(seconds=0.01))
    monkeypatch.setattr("opsd.daemon.scheduler.RECORD_AGAIN_S", 0.01)
    with scratch.directory("pulse", in_memory=True) as place, sink.running() as service:
        monkeypatch.setenv("CHAOS_BEAT", f"{service.url}/beat")
        one = Watched(World(place=place).make(), service)
        yield one
        one.launcher.let_go.set()
        one.trouble.close()
        one.daemon.wait()
        one.opened.close()


def hang_the_ticks(watched: Watched) -> None:
    watched.ticks_hang = True


def hang_a_run(watched: Watched) -> None:
    watched.launcher.hangs = True
    watched.runs_end = False


def lock_the_state(watched: Watched) -> None:
    watched.runs_end = False  # they are over when they are on record
    other = sqlite3.connect(watched.world.state_path)
    watched.trouble.callback(other.close)
    other.execute("BEGIN IMMEDIATE")


def reach_nobody(watched: Watched) -> None:
    weather = Weather(failing=JOBS, dead_targets=TARGETS)
    watched.launcher.life = replace(watched.launcher.life, weather=weather)


@pytest.mark.parametrize(
    ("trouble", "noticed_after"),
    [
        pytest.param(hang_the_ticks, OLDEST_TICK, id="the scheduler hangs"),
        pytest.param(hang_a_run, MINUTE + TIMEOUT + OVERSTAY + GRACE, id="a run cannot be ended"),
        pytest.param(lock_the_state, timedelta(0), id="the state cannot be written"),
        pytest.param(reach_nobody, TOLD + MUTE_AFTER, id="nobody is reached"),
    ],
)
def test_a_daemon_that_is_kept_from_its_work_gives_no_sign_of_life(
    watched: Watched, trouble: Callable[[Watched], None], noticed_after: timedelta
) -> None:
    well = watched.goes_on(29 * MINUTE)

    trouble(watched)
    watched.goes_on(noticed_after + 2 * EVERY)
    stuck = watched.goes_on(4 * EVERY)

    assert (well, stuck) == (6, 0)
