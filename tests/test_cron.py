from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsd.cron import Cron, parse

BERLIN = ZoneInfo("Europe/Berlin")


def cron(expression: str, zone: str = "UTC", job: str = "postgres-backup") -> Cron:
    return parse(expression, timezone=ZoneInfo(zone), spread_by=job)


def at(text: str, zone: str = "UTC", fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 3 * * *", "2026-11-22T02:59", "2026-11-22T03:00"),
        ("0 3 * * *", "2026-11-22T03:00", "2026-11-23T03:00"),
        ("@daily", "2026-11-22T03:00", "2026-11-23T00:00"),
        ("0 1 * * 0", "2026-11-21T12:00", "2026-11-22T01:00"),
        ("0 1 * * 7", "2026-11-21T12:00", "2026-11-22T01:00"),
        ("0 1 * * SUN", "2026-11-21T12:00", "2026-11-22T01:00"),
        ("0 0 13 * 5", "2026-11-22T00:00", "2026-11-27T00:00"),
        ("0 0 29 2 *", "2026-11-22T00:00", "2028-02-29T00:00"),
    ],
)
def test_the_next_slot_is_what_cron_means(expression: str, after: str, expected: str) -> None:
    assert cron(expression).next_slot(at(after)) == at(expected)


def test_a_midnight_job_runs_every_day_around_the_spring_change() -> None:
    daily = cron("0 0 * * *", "Europe/Berlin")

    first = daily.next_slot(at("2026-03-28T12:00", "Europe/Berlin"))
    second = daily.next_slot(first)
    third = daily.next_slot(second)

    assert [slot.astimezone(BERLIN).day for slot in (first, second, third)] == [29, 30, 31]


def test_a_slot_in_the_hour_that_does_not_exist_comes_right_after_it() -> None:
    nightly = cron("30 2 * * *", "Europe/Berlin")

    slot = nightly.next_slot(at("2026-03-29T00:00", "Europe/Berlin"))

    assert slot == at("2026-03-29T03:00", "Europe/Berlin")
    assert nightly.previous_slot(slot) == slot
    assert nightly.previous_slot(slot + timedelta(minutes=5)) == slot


def test_a_slot_in_the_hour_that_comes_twice_comes_once() -> None:
    nightly = cron("30 2 * * *", "Europe/Berlin")

    first = nightly.next_slot(at("2026-10-25T00:00", "Europe/Berlin"))
    second = nightly.next_slot(first)

    assert first == at("2026-10-25T02:30", "Europe/Berlin")
    assert second == at("2026-10-26T02:30", "Europe/Berlin")
    assert nightly.previous_slot(at("2026-10-25T02:10", "Europe/Berlin", fold=1)) == first


def test_the_next_slot_is_never_in_the_past_when_an_hour_comes_twice() -> None:
    nightly = cron("30 2 * * *", "Europe/Berlin")
    in_the_second_hour = at("2026-10-25T02:10", "Europe/Berlin", fold=1)

    assert nightly.next_slot(in_the_second_hour) == at("2026-10-26T02:30", "Europe/Berlin")


def test_a_spread_slot_depends_on_the_job_and_on_nothing_else() -> None:
    names = [f"job-{number}" for number in range(20)]

    slots = [cron("H 3 * * *", job=name).fields for name in names]

    assert slots == [cron("H 3 * * *", job=name).fields for name in names]
    assert len(set(slots)) > 10


@pytest.mark.parametrize("expression", ["H(10-19) 3 * * *", "H/15 * * * *", "H H H H H"])
def test_a_spread_stays_in_its_span(expression: str) -> None:
    for number in range(50):
        minutes = cron(expression, job=f"job-{number}").fields.split()[0]
        first = int(minutes.split("-")[0])
        if expression.startswith("H("):
            assert 10 <= first <= 19
        else:
            assert first < (15 if "/" in expression else 60)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("", "five fields"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("60 3 * * *", "wrong minute"),
        ("0 24 * * *", "wrong hour"),
        ("0 3 * * 8", "wrong day of week"),
        ("0 3 * JANUARY *", "wrong month"),
        ("@reboot", "five fields"),
        ("0 0 30 2 *", "wrong day of month"),
        ("H(9-3) 3 * * *", "wrong minute"),
    ],
)
def test_a_wrong_expression_says_what_is_wrong(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        cron(expression)


def test_a_schedule_is_told_in_words() -> None:
    assert cron("0 3 * * *").describe() == "At 03:00 every day"


@given(
    st.sampled_from(["30 2 * * *", "0,30 2 * * *", "0 0 * * *", "*/20 * * * *", "5 */6 * * 1"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)),  # noqa: DTZ001 - made aware below
)
@settings(max_examples=200, deadline=None)
def test_previous_and_next_agree_about_every_slot(
    expression: str, zone: str, moment: datetime
) -> None:
    schedule = cron(expression, zone)
    now = moment.replace(tzinfo=UTC)

    slots = [schedule.next_slot(now - timedelta(days=2))]
    while slots[-1] <= now + timedelta(days=1):
        slots.append(schedule.next_slot(slots[-1]))

    assert all(earlier < later for earlier, later in pairwise(slots))
    past = [slot for slot in slots if slot <= now]
    if past:
        assert schedule.previous_slot(now) == past[-1]
    assert all(schedule.previous_slot(slot) == slot for slot in slots[:5])
