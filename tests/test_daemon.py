from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from opsd.cron import parse
from opsd.daemon import LATE_TICKS, TICK, Daemon, Scheduled
from opsd.errors import TransientError
from opsd.executors.ledger import LEASE_HELD_STATUS
from opsd.executors.process import Ended, Ending
from opsd.model import Finding, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, tell_at_once

MIDNIGHT = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
JOB = "postgres-backup"
OK = Ended(ending=Ending.BY_ITSELF, status=0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(MIDNIGHT + HOUR)


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteState]:
    store = SqliteState(tmp_path / "state.db", clock=clock)
    yield store
    store.close()


def record(
    state: SqliteState, slot: datetime, outcome: Outcome = Outcome.COMPLETED, *, run_id: str = ""
) -> None:
    findings = (
        (Finding(check="x", subject="s/a", severity=Severity.CRITICAL, summary="s"),)
        if outcome is Outcome.FAILED
        else ()
    )
    run = Run(
        job=JOB,
        run_id=run_id or slot.isoformat(),
        slot=slot,
        started_at=slot,
        duration=timedelta(0),
        outcome=outcome,
        findings=findings,
        attempt=1,
    )
    state.record(run, tell=tell_at_once)


class Children:
    """Stands for child processes: does to the state what a child would do."""

    def __init__(self, state: SqliteState) -> None:
        self.state = state
        self.slots: list[datetime] = []
        self.deliveries = 0
        self.work: Callable[[datetime], Ended] = self.complete
        self.stopped = threading.Event()

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        assert (job, timeout) == (JOB, HOUR)
        self.stopped = stop
        self.slots.append(slot)
        return self.work(slot)

    def deliver(self, *, stop: threading.Event) -> Ended:
        assert not stop.is_set()
        self.deliveries += 1
        for entry in self.state.undelivered():
            self.state.mark_delivered(entry.id, at=MIDNIGHT)
        return OK

    def complete(self, slot: datetime) -> Ended:
        record(self.state, slot)
        return OK


@pytest.fixture
def children(state: SqliteState) -> Children:
    return Children(state)


@pytest.fixture
def daemon(state: SqliteState, children: Children, clock: FakeClock) -> Daemon:
    return make_daemon(state, children, clock)


def make_daemon(
    state: SqliteState,
    children: Children,
    clock: FakeClock,
    *,
    schedule: str = "@daily",
    catch_up: timedelta | None = None,
) -> Daemon:
    cron = parse(schedule, timezone=UTC, spread_by=JOB)
    jobs = [Scheduled(job=JOB, cron=cron, timeout=HOUR, catch_up=catch_up)]
    return Daemon(jobs, state=state, launcher=children, tell=tell_at_once, clock=clock)


def tick(daemon: Daemon, times: int = 1) -> None:
    for _ in range(times):
        daemon.tick()
        daemon.wait()


def outcomes(state: SqliteState) -> list[tuple[datetime, Outcome]]:
    return [(run.slot, run.outcome) for run in reversed(state.runs(job=JOB))]


def test_a_due_slot_runs_once_however_often_the_daemon_looks(
    daemon: Daemon, children: Children, clock: FakeClock
) -> None:
    tick(daemon, 3)
    clock.advance(DAY)
    tick(daemon, 3)

    assert children.slots == [MIDNIGHT, MIDNIGHT + DAY]


def test_a_restart_runs_nothing_twice(
    state: SqliteState, children: Children, clock: FakeClock
) -> None:
    tick(make_daemon(state, children, clock))
    tick(make_daemon(state, children, clock))

    assert children.slots == [MIDNIGHT]


def test_what_was_missed_is_recorded_and_told_and_the_newest_slot_runs(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    record(state, MIDNIGHT - 2 * DAY)

    tick(daemon)

    assert outcomes(state)[1:] == [
        (MIDNIGHT - DAY, Outcome.MISSED),
        (MIDNIGHT, Outcome.COMPLETED),
    ]
    assert children.deliveries == 1


def test_a_slot_that_is_too_old_to_be_useful_is_missed(
    state: SqliteState, children: Children, clock: FakeClock
) -> None:
    record(state, MIDNIGHT - DAY)
    daemon = make_daemon(state, children, clock, catch_up=timedelta(minutes=30))

    tick(daemon, 2)

    assert children.slots == []
    assert outcomes(state)[1:] == [(MIDNIGHT, Outcome.MISSED)]


def test_a_run_that_lasts_into_the_next_slot_is_not_doubled_and_the_slot_is_skipped(
    state: SqliteState, children: Children, clock: FakeClock
) -> None:
    daemon = make_daemon(state, children, clock, schedule="@hourly")
    begun, may_end = threading.Event(), threading.Event()

    def lasts(slot: datetime) -> Ended:
        state.begin(job=JOB, run_id=slot.isoformat(), slot=slot, at=slot, attempt=1)
        begun.set()
        may_end.wait(30)
        return children.complete(slot)

    children.work = lasts
    daemon.tick()
    begun.wait(30)
    clock.advance(HOUR)
    daemon.tick()
    daemon.tick()
    may_end.set()
    daemon.wait()

    first = MIDNIGHT + HOUR
    assert children.slots == [first]
    assert sorted(outcomes(state)) == [
        (first, Outcome.COMPLETED),
        (first + HOUR, Outcome.SKIPPED),
    ]


def test_a_run_under_way_is_not_taken_for_one_that_is_due(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    may_end = threading.Event()

    def lasts(slot: datetime) -> Ended:
        may_end.wait(30)
        return children.complete(slot)

    children.work = lasts
    daemon.tick()
    daemon.tick()
    may_end.set()
    daemon.wait()

    assert outcomes(state) == [(MIDNIGHT, Outcome.COMPLETED)]


def test_a_record_of_a_wrong_clock_does_not_make_a_job_run_for_ever(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    record(state, MIDNIGHT + 400 * DAY)

    tick(daemon, 3)

    assert children.slots == [MIDNIGHT]


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(ending=Ending.BY_ITSELF, status=2), Outcome.FAILED),
        (Ended(ending=Ending.BY_ITSELF, status=-9), Outcome.FAILED),
        (Ended(ending=Ending.OVERSTAYED, status=-9), Outcome.FAILED),
    ],
)
def test_a_child_that_recorded_nothing_does_not_go_unnoticed(
    ended: Ended, outcome: Outcome, daemon: Daemon, state: SqliteState, children: Children
) -> None:
    children.work = lambda _slot: ended

    tick(daemon, 2)

    assert outcomes(state) == [(MIDNIGHT, outcome)]


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(ending=Ending.BY_ITSELF, status=-9), Outcome.INTERRUPTED),
        (Ended(ending=Ending.STOPPED, status=-9), Outcome.INTERRUPTED),
        (Ended(ending=Ending.OVERSTAYED, status=-9), Outcome.TIMED_OUT),
    ],
)
def test_a_child_that_died_in_its_run_is_recorded(
    ended: Ended, outcome: Outcome, daemon: Daemon, state: SqliteState, children: Children
) -> None:
    def dies(slot: datetime) -> Ended:
        state.begin(job=JOB, run_id="dead", slot=slot, at=slot, attempt=1)
        return ended

    children.work = dies
    tick(daemon)

    assert outcomes(state) == [(MIDNIGHT, outcome)]
    assert state.running() == ()


def test_a_child_that_was_turned_away_is_started_again_when_its_slot_has_no_end(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    turned_away = Ended(ending=Ending.BY_ITSELF, status=LEASE_HELD_STATUS)
    children.work = lambda _slot: turned_away
    tick(daemon)
    before = outcomes(state)
    children.work = children.complete
    tick(daemon, 2)

    assert before == []
    assert children.slots == [MIDNIGHT, MIDNIGHT]
    assert outcomes(state) == [(MIDNIGHT, Outcome.COMPLETED)]


def test_a_child_that_cannot_be_killed_is_recorded_although_it_holds_its_lease(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    def hangs(slot: datetime) -> Ended:
        held.enter_context(state.lease(JOB, "stuck"))
        state.begin(job=JOB, run_id="stuck", slot=slot, at=slot, attempt=1)
        return Ended(ending=Ending.OVERSTAYED, status=None)

    children.work = hangs
    with contextlib.ExitStack() as held:
        tick(daemon, 2)

    (run,) = state.runs()
    assert (run.run_id, run.outcome) == ("stuck", Outcome.TIMED_OUT)
    assert "cannot be killed" in run.error


def test_a_child_that_cannot_be_killed_ends_nobody_elses_run(
    daemon: Daemon, state: SqliteState, children: Children, clock: FakeClock
) -> None:
    def hangs(_slot: datetime) -> Ended:
        held.enter_context(state.lease(JOB, "somebody"))
        state.begin(job=JOB, run_id="somebody", slot=clock.now(), at=clock.now())
        return Ended(ending=Ending.OVERSTAYED, status=None)

    children.work = hangs
    with contextlib.ExitStack() as held:
        tick(daemon)

        assert [run.run_id for run in state.unfinished_runs(JOB)] == ["somebody"]


def test_a_child_that_cannot_be_started_is_a_failed_run(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    def missing(_slot: datetime) -> Ended:
        raise TransientError("no more processes")

    children.work = missing
    tick(daemon)

    assert outcomes(state) == [(MIDNIGHT, Outcome.FAILED)]


def test_waiting_messages_are_sent_by_one_child_at_a_time(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    record(state, MIDNIGHT, Outcome.FAILED)

    tick(daemon, 3)

    assert children.deliveries == 1


def test_the_state_may_be_away_for_a_while(
    daemon: Daemon, state: SqliteState, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> datetime:
        raise TransientError("disk full")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as told:
        patch.setattr(state, "last_slot", away)
        tick(daemon)
    tick(daemon)

    assert [line["event"] for line in told] == ["schedule.failed"]
    assert children.slots == [MIDNIGHT]


def test_nothing_runs_before_the_clock_is_set(
    daemon: Daemon, children: Children, clock: FakeClock
) -> None:
    right = clock.wall
    clock.wall = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    tick(daemon)
    before = list(children.slots)
    clock.wall = right
    tick(daemon)

    assert before == []
    assert children.slots == [MIDNIGHT]


def test_a_clock_that_goes_back_runs_nothing_twice(
    daemon: Daemon, children: Children, clock: FakeClock
) -> None:
    tick(daemon)
    clock.wall -= 2 * HOUR
    tick(daemon)
    clock.wall += 2 * HOUR
    tick(daemon)

    assert children.slots == [MIDNIGHT]


@pytest.mark.parametrize(("late", "ticks"), [(0, 0), (1, 1)])
def test_a_timer_that_is_late_is_stood_in_for(
    late: float, ticks: int, daemon: Daemon, children: Children, clock: FakeClock
) -> None:
    clock.ticks_s += LATE_TICKS * TICK.total_seconds() + late

    daemon.supervise()
    daemon.wait()

    assert len(children.slots) == ticks


def test_stopping_tells_the_children_and_waits_for_them(
    daemon: Daemon, state: SqliteState, children: Children
) -> None:
    started = threading.Event()

    def until_stopped(slot: datetime) -> Ended:
        started.set()
        assert children.stopped.wait(30)
        record(state, slot, Outcome.INTERRUPTED)
        return Ended(ending=Ending.STOPPED, status=1)

    children.work = until_stopped
    daemon.tick()
    started.wait(30)
    daemon.stop()

    assert outcomes(state) == [(MIDNIGHT, Outcome.INTERRUPTED)]


_DAEMON = """
import sys
from datetime import UTC, timedelta
from pathlib import Path
from opsd import logs
from opsd.testing import tell_at_once
from opsd.clock import SystemClock
from opsd.cron import parse
from opsd.daemon import Daemon, Scheduled
from opsd.daemon.signals import stop_signals
from opsd.executors import process
from opsd.state.sqlite import SqliteState

logs.configure()
clock = SystemClock()
children = process.Children(config=Path("none.toml"), clock=clock)
children._command = (sys.executable, sys.argv[2], sys.argv[1])
jobs = [Scheduled(job="test-job", cron=parse("@yearly", timezone=UTC, spread_by="j"),
                  timeout=timedelta(hours=1))]
state = SqliteState(Path(sys.argv[1]), clock=clock)
with stop_signals() as told_to_stop:
    Daemon(jobs, state=state, launcher=children, tell=tell_at_once, clock=clock).run(told_to_stop)
"""
_CHILD = """
import sys
from datetime import datetime, timedelta
from pathlib import Path
from opsd.testing import tell_at_once
from opsd.clients.process import Process
from opsd.clock import Deadline, SystemClock
from opsd.executors.inline import run_now
from opsd.state.sqlite import SqliteState
from tests.test_inline import Contexts, Settings, job_that

_, path, command, *rest = sys.argv
if command == "deliver":
    sys.exit(0)
clock = SystemClock()
folder = Path(path).parent

def waits(ctx, settings):
    with Process(["sleep", "600"], deadline=Deadline.after(600, clock)) as child:
        print("child is at work", file=sys.stderr, flush=True)
        child.wait()
    yield

run_now(job_that(waits), Settings(), slot=datetime.fromisoformat(rest[2]), is_scheduled=True,
        timeout=timedelta(hours=1), state=SqliteState(Path(path), clock=clock), clock=clock,
        context=Contexts(folder), tell=tell_at_once)
"""


def test_a_real_daemon_starts_a_run_and_ends_it_cleanly_on_sigterm(
    state: SqliteState, tmp_path: Path
) -> None:
    long_ago = datetime(2025, 1, 1, tzinfo=UTC)
    state.begin(job="test-job", run_id="lost", slot=long_ago, at=long_ago)
    child = tmp_path / "child.py"
    child.write_text(_CHILD)
    with subprocess.Popen(
        [sys.executable, "-c", _DAEMON, str(tmp_path / "state.db"), str(child)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
    ) as daemon:
        assert daemon.stderr is not None
        last_resort = threading.Timer(60, daemon.kill)
        last_resort.start()
        log: list[str] = []
        for line in daemon.stderr:
            log.append(line)
            if "child is at work" in line:
                break
        daemon.send_signal(signal.SIGTERM)
        log += daemon.stderr.readlines()
        status = daemon.wait()
        last_resort.cancel()

    recorded = [
        (run.outcome, run.error)
        for run in state.runs(job="test-job", limit=200)
        if run.outcome is not Outcome.MISSED
    ]
    assert status == 0, log
    assert recorded == [
        (Outcome.INTERRUPTED, "ended by SIGTERM"),
        (Outcome.INTERRUPTED, "its process ended before the run did"),
    ]
    assert any('"event": "daemon.stopped"' in line for line in log)
    assert state.running() == ()
