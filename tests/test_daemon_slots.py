"""What the daemon does with slots that fail, wait, overlap or are not wanted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsd.cron import parse
from opsd.daemon import Window
from opsd.daemon.scheduler import MANY_OVERLAPS
from opsd.errors import PermanentError, TransientError
from opsd.incidents import Pause
from opsd.job import Context
from opsd.model import Outcome, Run
from opsd.schedule import OVERLAPS
from tests.rig.scheduling import Died, Place, nothing, scheduled, tick

NOON = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
DUE = NOON.replace(second=0)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
JOB = "test-job"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place.made(tmp_path, now=NOON, jobs=[scheduled(JOB, "@hourly", retries=2)])
    yield made
    made.state.close()


def refuses(_ctx: Context) -> None:
    raise TransientError("connection refused")


def dies(_ctx: Context) -> None:
    raise Died


def tries(place: Place) -> list[tuple[int, Outcome]]:
    return [(run.attempt, run.outcome) for run in place.state.slot_runs(JOB, DUE)]


def messages(place: Place) -> list[str]:
    return [entry.message.title for entry in place.state.undelivered()]


@pytest.mark.parametrize(
    ("fault", "outcome"), [(refuses, Outcome.FAILED), (dies, Outcome.INTERRUPTED)]
)
def test_a_run_that_heals_at_its_second_try_wakes_nobody(
    place: Place, fault: object, outcome: Outcome
) -> None:
    daemon = place.daemon()
    place.children.work = fault  # type: ignore[assignment]
    tick(daemon, 3)
    place.children.work = nothing
    place.clock.advance(MINUTE)
    tick(daemon, 3)

    assert tries(place) == [(1, outcome), (2, Outcome.COMPLETED)]
    assert place.state.open_findings() == ()
    assert place.children.deliveries == 0
    assert messages(place) == []


def test_a_run_that_fails_at_every_try_is_told_after_the_last(place: Place) -> None:
    daemon = place.daemon()
    place.children.work = refuses
    told = []
    for pause in (0, 1, 5):
        place.clock.advance(pause * MINUTE)
        tick(daemon, 2)
        told.append(place.children.deliveries)

    assert tries(place) == [(number, Outcome.FAILED) for number in (1, 2, 3)]
    assert told == [0, 0, 1]


def test_a_run_that_cannot_heal_is_told_at_once_and_not_tried_again(place: Place) -> None:
    def is_refused(_ctx: Context) -> None:
        raise PermanentError("wrong password")

    daemon = place.daemon()
    place.children.work = is_refused
    tick(daemon, 2)
    place.clock.advance(30 * MINUTE)
    tick(daemon, 2)

    assert tries(place) == [(1, Outcome.FAILED)]
    assert place.children.deliveries == 1


def test_a_try_is_due_after_a_restart_because_the_ledger_says_so(place: Place) -> None:
    place.children.work = refuses
    tick(place.daemon(), 2)
    place.children.work = nothing
    place.clock.advance(MINUTE)
    tick(place.daemon(), 2)

    assert tries(place) == [(1, Outcome.FAILED), (2, Outcome.COMPLETED)]


def test_a_restart_comes_to_the_same_truth_within_two_looks(place: Place) -> None:
    place.children.work = dies
    tick(place.daemon())
    place.state.begin(job="gone-job", run_id="lost", slot=DUE, at=DUE, attempt=1)
    place.clock.advance(3 * HOUR)
    place.children.work = nothing
    daemon = place.daemon()
    tick(daemon, 2)
    after = place.state.runs(), place.state.running(), place.state.open_findings()
    tick(daemon, 3)

    assert (place.state.runs(), place.state.running(), place.state.open_findings()) == after
    assert place.state.running() == ()
    assert [one for _, one in place.outcomes(JOB)] == [
        Outcome.INTERRUPTED,
        Outcome.MISSED,
        Outcome.MISSED,
        Outcome.COMPLETED,
    ]


def test_a_run_by_hand_that_died_is_recorded_while_the_daemon_runs(place: Place) -> None:
    daemon = place.daemon()
    tick(daemon, 2)
    place.children.work = dies
    with pytest.raises(Died):
        place.children.run(JOB, NOON + MINUTE)
    place.children.work = nothing
    tick(daemon, 2)

    assert place.state.running() == ()
    assert place.outcomes(JOB)[-1] == (NOON + MINUTE, Outcome.INTERRUPTED)


def test_a_run_by_hand_that_completed_answers_the_slot_and_nothing_runs_twice(
    place: Place,
) -> None:
    place.children.run(JOB, DUE + 10 * timedelta(seconds=1))

    tick(place.daemon(), 2)

    assert place.children.started == []
    assert place.outcomes(JOB)[-1] == (DUE, Outcome.SKIPPED)


def test_a_paused_job_does_not_start_and_starts_again_by_itself(place: Place) -> None:
    pause = Pause(job=JOB, since=NOON - HOUR, until=NOON + 90 * MINUTE, reason="the server moves")
    place.state.pause(pause)
    daemon = place.daemon()
    for _ in range(3):
        tick(daemon, 2)
        place.clock.advance(HOUR)

    assert place.outcomes(JOB) == [
        (DUE, Outcome.SKIPPED),
        (DUE + HOUR, Outcome.SKIPPED),
        (DUE + 2 * HOUR, Outcome.COMPLETED),
    ]
    assert "the server moves" in place.state.slot_runs(JOB, DUE)[0].error
    assert place.children.deliveries == 0


def test_a_slot_waits_for_the_end_of_a_window_and_nobody_is_disturbed(place: Place) -> None:
    cron = parse("30 11 * * *", timezone=UTC, spread_by="")
    window = Window(name="updates", cron=cron, duration=HOUR, jobs=("test-*",))
    daemon = place.daemon(windows=[window])
    tick(daemon, 2)
    in_window = place.state.runs()
    place.clock.advance(30 * MINUTE)
    tick(daemon, 2)

    assert in_window == ()
    assert place.outcomes(JOB) == [(DUE, Outcome.COMPLETED)]
    assert place.children.deliveries == 0


def test_the_third_slot_in_a_row_that_finds_a_run_under_way_is_told(place: Place) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def lasts(_ctx: Context) -> None:
        begun.set()
        may_end.wait(30)

    daemon = place.daemon()
    place.children.work = lasts
    daemon.tick()
    begun.wait(30)
    open_checks = []
    for _ in range(MANY_OVERLAPS):
        place.clock.advance(HOUR)
        daemon.tick()
        open_checks.append([one.finding.check for one in place.state.open_findings(job=JOB)])
    may_end.set()
    daemon.wait()

    assert open_checks == [[], [], ["job.overlaps"]]
    assert place.children.started == [DUE]
    assert [run.error for run in place.state.runs() if run.error] == [OVERLAPS] * MANY_OVERLAPS
    assert place.state.open_findings(job=JOB) == ()


def test_jitter_starts_a_slot_later_and_a_restart_does_not_change_when(place: Place) -> None:
    job = scheduled(JOB, "@hourly", jitter=50 * MINUTE)
    place.jobs = [job]
    place.clock.wall = job.starts_at(DUE)
    tick(place.daemon())
    first = list(place.children.started)
    slot = DUE + HOUR
    place.clock.wall = job.starts_at(slot) - timedelta(seconds=1)
    tick(place.daemon(), 2)
    before = list(place.children.started)
    place.clock.advance(timedelta(seconds=1))
    tick(place.daemon(), 2)

    assert before == first
    assert place.children.started[len(before) :] == [slot]


def test_two_daemons_on_one_state_answer_each_slot_once_and_tell_it_once(place: Place) -> None:
    daemons = [place.daemon(), place.daemon()]
    place.children.work = refuses
    for _ in range(4):
        looks = [threading.Thread(target=tick, args=(daemon, 3)) for daemon in daemons]
        for look in looks:
            look.start()
        for look in looks:
            look.join()
        place.clock.advance(20 * MINUTE)

    runs = place.state.runs(limit=1000)
    ended = [run.slot for run in runs if run.retry_at is None]
    assert sorted(ended) == sorted(set(ended))
    assert place.state.alerts().generation == 1


def test_slots_that_cannot_be_recorded_are_found_by_the_next_look(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(place.daemon())
    place.clock.advance(3 * HOUR)
    daemon = place.daemon()

    def full(*_: object, **__: object) -> bool:
        raise TransientError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(place.state, "close_slot", full)
        tick(daemon)
    tick(daemon, 2)

    assert [one for _, one in place.outcomes(JOB)] == [
        Outcome.COMPLETED,
        Outcome.MISSED,
        Outcome.MISSED,
        Outcome.COMPLETED,
    ]


def test_the_end_of_a_child_is_recorded_as_soon_as_the_state_lets_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.daemon.scheduler.RECORD_AGAIN_S", 0.01)
    refused: list[str] = []
    settle = place.state.lease

    def busy(job: str, run_id: str) -> object:
        if run_id == "ledger" and len(refused) < 3:
            refused.append(job)
            raise TransientError("locked")
        return settle(job, run_id)

    place.jobs = [replace(place.jobs[0], retries=0)]
    place.children.jobs = {JOB: place.jobs[0]}
    place.children.work = dies
    monkeypatch.setattr(place.state, "lease", busy)
    tick(place.daemon())

    assert len(refused) == 3
    assert place.outcomes(JOB) == [(DUE, Outcome.INTERRUPTED)]


def test_one_job_that_cannot_be_considered_does_not_starve_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = scheduled("other-job", "@hourly")
    place.jobs = [*place.jobs, other]
    place.children.jobs["other-job"] = other
    last_slot = place.state.last_slot

    def breaks(job: str, *, at: datetime) -> datetime | None:
        if job == JOB:
            raise ZeroDivisionError
        return last_slot(job, at=at)

    monkeypatch.setattr(place.state, "last_slot", breaks)
    tick(place.daemon(), 2)

    assert [run.job for run in place.state.runs()] == ["other-job"]


def test_a_child_that_breaks_the_daemons_thread_is_a_failed_run(place: Place) -> None:
    def bug(*_: object, **__: object) -> Run:
        raise ZeroDivisionError

    place.children.run = bug  # type: ignore[method-assign]

    tick(place.daemon(), 3)

    assert place.outcomes(JOB) == [(DUE, Outcome.FAILED)]
    assert len(place.children.started) == 1


def test_a_slot_whose_child_has_not_begun_yet_is_neither_missed_nor_overtaken(
    place: Place,
) -> None:
    starting, may_begin = threading.Event(), threading.Event()
    run = place.children.run

    def slow_to_begin(*args: Any, **named: Any) -> Run:
        starting.set()
        may_begin.wait(30)
        return run(*args, **named)

    daemon = place.daemon()
    tick(daemon)
    place.clock.advance(HOUR)
    place.children.run = slow_to_begin  # type: ignore[method-assign]
    daemon.tick()
    starting.wait(30)
    place.clock.advance(HOUR)
    daemon.tick()
    before = place.outcomes(JOB)
    may_begin.set()
    daemon.wait()
    tick(daemon)

    assert before == [(DUE, Outcome.COMPLETED)]
    assert place.outcomes(JOB) == [(DUE + hour * HOUR, Outcome.COMPLETED) for hour in range(3)]
