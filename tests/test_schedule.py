from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.cron import Cron, parse
from opsd.incidents import Pause
from opsd.model import Outcome, Run
from opsd.schedule import (
    MOST_COUNTED,
    MOST_MISSED,
    NOT_RUNNING,
    OVERLAPS,
    Closing,
    Due,
    Record,
    Scheduled,
    Window,
    due,
)

MIDNIGHT = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)
DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
JOB = "postgres-backup"


def cron(expression: str = "@daily") -> Cron:
    return parse(expression, timezone=UTC, spread_by="j")


def job(expression: str = "@daily", **changes: object) -> Scheduled:
    values: dict[str, object] = {"job": JOB, "cron": cron(expression), "timeout": HOUR}
    return Scheduled(**{**values, **changes})  # type: ignore[arg-type]


def missed(*slots: datetime, why: str = NOT_RUNNING) -> tuple[Closing, ...]:
    return tuple(Closing(slot=slot, outcome=Outcome.MISSED, why=why) for slot in slots)


def skipped(*slots: datetime, why: str) -> tuple[Closing, ...]:
    return tuple(Closing(slot=slot, outcome=Outcome.SKIPPED, why=why) for slot in slots)


def failed(slot: datetime, *, retry_at: datetime | None) -> Run:
    return Run(
        job=JOB,
        run_id="a1",
        slot=slot,
        started_at=slot,
        duration=MINUTE,
        outcome=Outcome.FAILED,
        attempt=1,
        retry_at=retry_at,
    )


def test_a_slot_is_due_from_its_second_on() -> None:
    record = Record(last=MIDNIGHT - DAY)

    assert due(job(), record, now=MIDNIGHT - SECOND) == Due()
    assert due(job(), record, now=MIDNIGHT) == Due(slot=MIDNIGHT)


def test_a_slot_on_record_is_not_due_again() -> None:
    assert due(job(), Record(last=MIDNIGHT), now=MIDNIGHT + HOUR) == Due()


def test_a_job_that_never_ran_is_due_at_once() -> None:
    assert due(job(), Record(), now=MIDNIGHT + 7 * HOUR) == Due(slot=MIDNIGHT)


def test_after_days_without_power_the_newest_slot_runs_and_the_others_were_missed() -> None:
    result = due(job(), Record(last=MIDNIGHT - 3 * DAY), now=MIDNIGHT + HOUR)

    older = missed(MIDNIGHT - 2 * DAY, MIDNIGHT - DAY)
    assert result == Due(slot=MIDNIGHT, closings=older)


@pytest.mark.parametrize(("late", "runs"), [(HOUR, True), (HOUR + SECOND, False)])
def test_a_slot_runs_late_only_as_long_as_it_is_worth_it(late: timedelta, *, runs: bool) -> None:
    result = due(job(catch_up=HOUR), Record(last=MIDNIGHT - DAY), now=MIDNIGHT + late)

    assert result == (Due(slot=MIDNIGHT) if runs else Due(closings=missed(MIDNIGHT)))


def test_a_job_that_never_ran_has_missed_nothing() -> None:
    assert due(job(catch_up=HOUR), Record(), now=MIDNIGHT + 2 * HOUR) == Due()


@pytest.mark.parametrize(
    ("days", "dropped"), [(MOST_MISSED + 1, ""), (MOST_MISSED + 2, ", nor for 1 slots before")]
)
def test_what_was_missed_is_told_one_by_one_up_to_a_bound(days: int, dropped: str) -> None:
    result = due(job(), Record(last=MIDNIGHT - days * DAY), now=MIDNIGHT)

    assert len(result.closings) == MOST_MISSED
    assert result.closings[-1].slot == MIDNIGHT - DAY
    assert result.closings[0].why.startswith(NOT_RUNNING + dropped)
    assert {closing.why for closing in result.closings[1:]} == {NOT_RUNNING}


def test_a_year_of_missed_minutes_is_counted_in_bounds() -> None:
    result = due(job("* * * * *"), Record(last=MIDNIGHT - 365 * DAY), now=MIDNIGHT)

    assert len(result.closings) == MOST_MISSED
    assert f"at least {MOST_COUNTED:,} slots" in result.closings[0].why


@pytest.mark.parametrize(
    ("now", "runs"), [(MIDNIGHT + MINUTE, True), (MIDNIGHT + MINUTE - SECOND, False)]
)
def test_a_slot_is_tried_again_from_the_time_on_that_the_ledger_names(
    now: datetime, *, runs: bool
) -> None:
    record = Record(last=MIDNIGHT, tries=(failed(MIDNIGHT, retry_at=MIDNIGHT + MINUTE),))

    assert due(job(retries=1), record, now=now) == (Due(slot=MIDNIGHT) if runs else Due())


def test_the_next_slot_ends_the_tries_of_the_one_before() -> None:
    record = Record(last=MIDNIGHT - DAY, tries=(failed(MIDNIGHT - DAY, retry_at=MIDNIGHT),))

    assert due(job(), record, now=MIDNIGHT + HOUR) == Due(slot=MIDNIGHT)


# Overlap.


def test_a_slot_whose_predecessor_still_runs_is_skipped() -> None:
    record = Record(last=MIDNIGHT - 2 * DAY, under_way=frozenset({MIDNIGHT - DAY}))

    assert due(job(), record, now=MIDNIGHT) == Due(closings=skipped(MIDNIGHT, why=OVERLAPS))


def test_a_slot_under_way_is_left_alone() -> None:
    record = Record(last=MIDNIGHT - DAY, under_way=frozenset({MIDNIGHT}))

    assert due(job(), record, now=MIDNIGHT + HOUR) == Due()


def test_a_try_that_is_due_waits_for_a_run_that_somebody_asked_for() -> None:
    tries = (failed(MIDNIGHT, retry_at=MIDNIGHT + MINUTE),)
    record = Record(last=MIDNIGHT, tries=tries, under_way=frozenset({MIDNIGHT + SECOND}))

    wanted = due(job(), record, now=MIDNIGHT + HOUR)

    assert (wanted.slot, wanted.closings) == (None, ())
    assert wanted.waits


def test_a_slot_waits_while_something_unknown_holds_the_lease_and_says_why_when_missed() -> None:
    held = due(job(), Record(last=MIDNIGHT - DAY, is_leased=True), now=MIDNIGHT)
    record = Record(last=MIDNIGHT - DAY, was_held=held.waits)
    later = due(job(), record, now=MIDNIGHT + DAY)

    assert held == Due(waits=held.waits)
    assert later == Due(slot=MIDNIGHT + DAY, closings=missed(MIDNIGHT, why=held.waits))


# Runs that somebody asked for.


@pytest.mark.parametrize(("asked_at", "runs"), [(MIDNIGHT - SECOND, True), (MIDNIGHT, False)])
def test_a_run_that_somebody_asked_for_answers_the_slots_before_it(
    asked_at: datetime, *, runs: bool
) -> None:
    record = Record(last=MIDNIGHT - DAY, asked_at=asked_at)

    wanted = due(job(), record, now=MIDNIGHT + HOUR)

    assert (wanted.slot is not None) is runs
    assert [one.outcome for one in wanted.closings] == ([] if runs else [Outcome.SKIPPED])


def test_what_was_missed_before_a_run_that_somebody_asked_for_is_no_alarm_any_more() -> None:
    record = Record(last=MIDNIGHT - 3 * DAY, asked_at=MIDNIGHT + HOUR)

    wanted = due(job(), record, now=MIDNIGHT + 2 * HOUR)

    assert {one.outcome for one in wanted.closings} == {Outcome.SKIPPED}
    assert len(wanted.closings) == 3


def test_a_run_that_was_asked_for_in_the_future_explains_no_slot_that_was_missed() -> None:
    record = Record(last=MIDNIGHT - 3 * DAY, asked_at=MIDNIGHT + 400 * DAY)

    wanted = due(job(), record, now=MIDNIGHT + 2 * HOUR)

    assert wanted.slot == MIDNIGHT
    assert wanted.closings == missed(MIDNIGHT - 2 * DAY, MIDNIGHT - DAY)


# Pauses.


def pause(since: datetime, until: datetime) -> Pause:
    return Pause(job=JOB, since=since, until=until, reason="the server moves")


@pytest.mark.parametrize(
    ("now", "is_skipped"), [(MIDNIGHT + HOUR, True), (MIDNIGHT + 2 * HOUR, False)]
)
def test_a_paused_job_skips_its_slot_until_the_pause_ends_by_itself(
    now: datetime, *, is_skipped: bool
) -> None:
    paused = pause(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR)

    wanted = due(job(), Record(last=MIDNIGHT - DAY), now=now, pause=paused)

    assert wanted.slot == (None if is_skipped else MIDNIGHT)
    assert [one.outcome for one in wanted.closings] == [Outcome.SKIPPED] * is_skipped
    assert all("the server moves" in one.why for one in wanted.closings)


def test_slots_of_a_pause_that_passed_while_opsd_was_down_were_not_missed() -> None:
    paused = pause(MIDNIGHT - 3 * DAY, MIDNIGHT - DAY)

    wanted = due(job(), Record(last=MIDNIGHT - 4 * DAY), now=MIDNIGHT + HOUR, pause=paused)

    assert [(one.slot, one.outcome) for one in wanted.closings] == [
        (MIDNIGHT - 3 * DAY, Outcome.SKIPPED),
        (MIDNIGHT - 2 * DAY, Outcome.SKIPPED),
        (MIDNIGHT - DAY, Outcome.MISSED),
    ]


def test_a_paused_job_is_not_tried_again() -> None:
    record = Record(last=MIDNIGHT, tries=(failed(MIDNIGHT, retry_at=MIDNIGHT + MINUTE),))
    paused = pause(MIDNIGHT + SECOND, MIDNIGHT + DAY)

    wanted = due(job(retries=2), record, now=MIDNIGHT + HOUR, pause=paused)

    assert [(one.slot, one.outcome) for one in wanted.closings] == [(MIDNIGHT, Outcome.SKIPPED)]


# Maintenance windows.


def window(jobs: tuple[str, ...] = ("*",)) -> Window:
    return Window(name="updates", cron=cron("0 23 * * *"), duration=3 * HOUR, jobs=jobs)


@pytest.mark.parametrize(
    ("now", "waits"),
    [
        (MIDNIGHT, "maintenance window updates"),
        (MIDNIGHT + 2 * HOUR - SECOND, "maintenance window updates"),
        (MIDNIGHT + 2 * HOUR, ""),
    ],
)
def test_a_slot_in_a_window_waits_for_its_end(now: datetime, waits: str) -> None:
    wanted = due(job(), Record(last=MIDNIGHT - DAY), now=now, windows=[window()])

    assert wanted == (Due(waits=waits) if waits else Due(slot=MIDNIGHT))


def test_a_slot_that_is_no_use_after_the_window_was_missed_for_it() -> None:
    late = job(catch_up=HOUR)

    wanted = due(late, Record(last=MIDNIGHT - DAY), now=MIDNIGHT + 3 * HOUR, windows=[window()])

    assert wanted == Due(closings=missed(MIDNIGHT, why="maintenance window updates"))


def test_slots_that_a_newer_one_overtook_in_a_window_are_skipped_for_it() -> None:
    hourly = job("@hourly")

    wanted = due(hourly, Record(last=MIDNIGHT - HOUR), now=MIDNIGHT + 2 * HOUR, windows=[window()])

    assert wanted == Due(
        slot=MIDNIGHT + 2 * HOUR,
        closings=skipped(MIDNIGHT, MIDNIGHT + HOUR, why="maintenance window updates"),
    )


@pytest.mark.parametrize(
    ("pattern", "waits"), [("postgres-*", True), ("nfs-*", False), (JOB, True)]
)
def test_a_window_concerns_the_jobs_that_it_names(pattern: str, *, waits: bool) -> None:
    wanted = due(job(), Record(last=MIDNIGHT - DAY), now=MIDNIGHT, windows=[window((pattern,))])

    assert bool(wanted.waits) is waits


# Jitter.


def test_jitter_delays_a_slot_and_is_the_same_for_whoever_asks() -> None:
    late = job(jitter=2 * HOUR)
    starts_at = late.starts_at(MIDNIGHT)
    record = Record(last=MIDNIGHT - DAY)

    assert MIDNIGHT < starts_at < MIDNIGHT + 2 * HOUR
    assert job(jitter=2 * HOUR).starts_at(MIDNIGHT) == starts_at
    assert due(late, record, now=starts_at - SECOND) == Due()
    assert due(late, record, now=starts_at) == Due(slot=MIDNIGHT)


def test_jitter_spreads_slots_and_jobs() -> None:
    late = job(jitter=HOUR)
    starts = {late.starts_at(MIDNIGHT + day * DAY) - day * DAY for day in range(20)}
    others = {replace(late, job=f"j{number}").starts_at(MIDNIGHT) for number in range(20)}

    assert len(starts) > 10
    assert len(others) > 10


@given(st.timedeltas(timedelta(0), 3 * DAY), st.sampled_from(["@hourly", "*/7 * * * *"]))
@settings(max_examples=100, deadline=None)
def test_jitter_never_reaches_the_next_slot(jitter: timedelta, expression: str) -> None:
    late = job(expression, jitter=jitter)
    slot = late.cron.next_slot(MIDNIGHT)

    assert slot <= late.starts_at(slot) < late.cron.next_slot(slot)


@given(
    st.sampled_from(["@daily", "*/40 * * * *", "30 2 * * 1", "0 */6 * * *"]),
    st.lists(st.timedeltas(SECOND, 2 * DAY), min_size=1, max_size=5),
    st.none() | st.timedeltas(timedelta(0), DAY),
    st.timedeltas(timedelta(0), 2 * DAY),
)
@settings(max_examples=60, deadline=None)
def test_every_slot_is_answered_exactly_once_however_often_opsd_looks(
    expression: str, steps: list[timedelta], catch_up: timedelta | None, jitter: timedelta
) -> None:
    scheduled = job(expression, catch_up=catch_up, jitter=jitter)
    answered: list[datetime] = []
    now, last = MIDNIGHT, MIDNIGHT
    for step in steps:
        now += step
        wanted = due(scheduled, Record(last=last), now=now)
        answered += [one.slot for one in wanted.closings]
        answered += [wanted.slot] if wanted.slot else []
        last = answered[-1] if answered else last

    expected, slot = [], scheduled.cron.next_slot(MIDNIGHT)
    while scheduled.starts_at(slot) <= now:
        expected.append(slot)
        slot = scheduled.cron.next_slot(slot)
    if len(expected) <= MOST_MISSED:
        assert answered == expected
    assert len(set(answered)) == len(answered)
