from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.cron import Cron, parse
from opsd.schedule import CLOCK_IS_SET, MOST_MISSED, Due, Timer, due

MIDNIGHT = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)


def cron(expression: str = "@daily") -> Cron:
    return parse(expression, timezone=UTC, spread_by="j")


def wanted(
    *,
    now: datetime,
    last: datetime | None,
    catch_up: timedelta | None = None,
    expression: str = "@daily",
) -> Due:
    return due(cron(expression), last=last, now=now, catch_up=catch_up)


def test_a_slot_is_due_from_its_second_on() -> None:
    before = wanted(now=MIDNIGHT - SECOND, last=MIDNIGHT - DAY)
    after = wanted(now=MIDNIGHT, last=MIDNIGHT - DAY)

    assert before == Due()
    assert after == Due(slot=MIDNIGHT)


def test_a_slot_on_record_is_not_due_again() -> None:
    assert wanted(now=MIDNIGHT + HOUR, last=MIDNIGHT) == Due()


def test_a_job_that_never_ran_is_due_at_once() -> None:
    assert wanted(now=MIDNIGHT + 7 * HOUR, last=None) == Due(slot=MIDNIGHT)


def test_after_days_without_power_the_newest_slot_runs_and_the_others_were_missed() -> None:
    result = wanted(now=MIDNIGHT + HOUR, last=MIDNIGHT - 3 * DAY)

    assert result == Due(slot=MIDNIGHT, missed=(MIDNIGHT - 2 * DAY, MIDNIGHT - DAY))


@pytest.mark.parametrize(("late", "runs"), [(HOUR, True), (HOUR + SECOND, False)])
def test_a_slot_runs_late_only_as_long_as_it_is_worth_it(late: timedelta, *, runs: bool) -> None:
    result = wanted(now=MIDNIGHT + late, last=MIDNIGHT - DAY, catch_up=HOUR)

    assert result == (Due(slot=MIDNIGHT) if runs else Due(missed=(MIDNIGHT,)))


def test_a_job_that_never_ran_has_missed_nothing() -> None:
    assert wanted(now=MIDNIGHT + 2 * HOUR, last=None, catch_up=HOUR) == Due()


def test_a_run_by_hand_answers_the_slots_before_it() -> None:
    assert wanted(now=MIDNIGHT + 2 * HOUR, last=MIDNIGHT + HOUR) == Due()


def test_a_year_of_missed_minutes_is_told_in_bounds() -> None:
    result = wanted(now=MIDNIGHT, last=MIDNIGHT - 365 * DAY, expression="* * * * *")

    assert len(result.missed) == MOST_MISSED
    assert result.missed[-1] == MIDNIGHT - timedelta(minutes=1)


@pytest.mark.parametrize(("now", "runs"), [(CLOCK_IS_SET, True), (CLOCK_IS_SET - SECOND, False)])
def test_nothing_is_due_before_the_clock_was_set(now: datetime, *, runs: bool) -> None:
    result = wanted(now=now, last=None)

    assert (result.slot is not None) is runs


def test_a_record_of_a_wrong_clock_does_not_stop_a_job_for_years() -> None:
    assert wanted(now=MIDNIGHT, last=MIDNIGHT + 400 * DAY) == Due(slot=MIDNIGHT)
    assert wanted(now=MIDNIGHT, last=MIDNIGHT + DAY) == Due()


@given(
    st.sampled_from(["@daily", "*/20 * * * *", "30 2 * * 1", "0 */6 * * *"]),
    st.lists(st.timedeltas(SECOND, 3 * DAY), min_size=1, max_size=8),
    st.none() | st.timedeltas(timedelta(0), DAY),
)
@settings(max_examples=100, deadline=None)
def test_every_slot_is_answered_exactly_once_however_often_opsd_looks(
    expression: str, steps: list[timedelta], catch_up: timedelta | None
) -> None:
    schedule = cron(expression)
    answered: list[datetime] = []
    now, last = MIDNIGHT, MIDNIGHT
    for step in steps:
        now += step
        result = due(schedule, last=last, now=now, catch_up=catch_up)
        answered += [*result.missed, *([result.slot] if result.slot else [])]
        last = answered[-1] if answered else last

    expected, slot = [], schedule.next_slot(MIDNIGHT)
    while slot <= now:
        expected.append(slot)
        slot = schedule.next_slot(slot)
    if len(expected) <= MOST_MISSED:
        assert answered == expected
    assert len(set(answered)) == len(answered)


def test_the_timer_calls_at_once_and_again_until_it_is_stopped() -> None:
    calls = threading.Semaphore(0)
    timer = Timer(calls.release, every=timedelta(seconds=0.05))

    timer.start()
    try:
        assert all(calls.acquire(timeout=10) for _ in range(3))
    finally:
        timer.stop()
