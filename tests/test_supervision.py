"""The daemon looks after itself: its timer, its threads, its clock and its orphans."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from opsd import daemon as daemon_module
from opsd.daemon import LATE_TICKS, TICK
from opsd.daemon.scheduler import GRACE
from opsd.executors.process import OVERSTAY
from opsd.job import Context
from opsd.model import Outcome
from opsd.timer import Timer
from opsd.triage import OWN
from tests.rig.scheduling import HOUR, Place, scheduled, tick

NOON = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
DUE = NOON.replace(second=0)
JOB = "test-job"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place.made(tmp_path, now=NOON, jobs=[scheduled(JOB, "@hourly")])
    yield made
    made.state.close()


class Pulse:
    def __init__(self) -> None:
        self.beats: list[tuple[float, tuple[str, ...]]] = []

    def beat_if_due(self, *, ticked_at: float, overdue: Sequence[str] = ()) -> None:
        self.beats.append((ticked_at, tuple(overdue)))


def test_the_pulse_learns_when_the_daemon_last_looked_and_which_runs_are_overdue(
    place: Place,
) -> None:
    pulse, may_end = Pulse(), threading.Event()

    def hangs(_ctx: Context) -> None:
        may_end.wait(30)

    daemon = place.daemon(pulse=pulse)
    place.children.work = hangs
    daemon.tick()
    looked_at = place.clock.monotonic()
    daemon.supervise()
    place.clock.ticks_s += (HOUR + OVERSTAY + GRACE).total_seconds() + 1
    daemon.supervise()
    may_end.set()
    daemon.wait()

    assert pulse.beats[0] == (looked_at, ())
    assert pulse.beats[1][1] == (JOB,)


@pytest.mark.parametrize(("late_s", "is_told"), [(0, False), (1, True)])
def test_a_run_that_neither_ends_nor_can_be_ended_is_told_until_it_does(
    place: Place, late_s: int, *, is_told: bool
) -> None:
    may_end = threading.Event()

    def hangs(_ctx: Context) -> None:
        may_end.wait(30)

    daemon = place.daemon()
    place.children.work = hangs
    daemon.tick()
    place.clock.ticks_s += (HOUR + OVERSTAY + GRACE).total_seconds() + late_s
    daemon.tick()
    told = [entry.finding.check for entry in place.state.open_findings(job=OWN)]
    may_end.set()
    tick(daemon, 2)

    assert told == ["job.overdue"] * is_told
    assert place.state.open_findings(job=OWN) == ()


def test_what_the_life_before_told_of_itself_ends_when_it_is_over(place: Place) -> None:
    finding = daemon_module._overdue(JOB)
    place.state.observe(
        OWN, findings=[finding], seen=[], tell=lambda alerts, _open, _at: (alerts, ())
    )

    tick(place.daemon())

    assert place.state.open_findings(job=OWN) == ()


def test_a_dead_timer_is_made_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Timer] = []

    class Watched(Timer):
        def __init__(self, tick: Callable[[], object], *, every: timedelta) -> None:
            super().__init__(tick, every=every)
            timers.append(self)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(daemon_module, "Timer", Watched)
    monkeypatch.setattr(daemon_module, "TICK", timedelta(seconds=0.05))
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    looks = threading.Semaphore(0)
    daemon = place.daemon(report=lambda _now: looks.release())

    def told_to_stop(timeout_s: float) -> bool:
        place.clock.ticks_s += timeout_s
        if len(timers) == 1 and looks.acquire(timeout=timeout_s):
            # What a full disk did to it, in its own thread.
            timers[0]._scheduler._jobstores["default"].update_job = full
        return len(timers) > 1 and looks.acquire(timeout=30)

    with structlog.testing.capture_logs() as told:
        daemon.run(told_to_stop)

    assert len(timers) == 2
    assert "timer.late" in [line["event"] for line in told]


@pytest.mark.parametrize(("late_s", "is_late"), [(0, False), (1, True)])
def test_a_late_timer_is_replaced_on_the_monotonic_clock(
    place: Place, late_s: int, *, is_late: bool
) -> None:
    daemon = place.daemon()
    place.clock.ticks_s += LATE_TICKS * TICK.total_seconds() + late_s

    needs_new_timer = daemon.supervise()
    daemon.wait()

    assert needs_new_timer is is_late
    assert place.outcomes(JOB) == [(DUE, Outcome.COMPLETED)] * is_late


def test_a_report_that_fails_does_not_keep_the_daemon_from_its_work(place: Place) -> None:
    def breaks(_now: datetime) -> None:
        raise ZeroDivisionError

    tick(place.daemon(report=breaks))

    assert place.outcomes(JOB) == [(DUE, Outcome.COMPLETED)]
