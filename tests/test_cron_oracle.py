"""Slots against brute force: every local minute of ten years, in thirty zones.

The oracle knows nothing of cron arithmetic. It looks at every minute that clocks on a wall can
show, finds out in UTC when they do, and follows the documented rule: a minute that does not
exist comes at the first one after the gap, a minute that comes twice counts once, unless minute
or hour begin with ``*``.
"""

from __future__ import annotations

import bisect
import itertools
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest

from opsd.cron import parse

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Lisbon",
    "Europe/Moscow",
    "Atlantic/Azores",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/Asuncion",
    "America/Havana",
    "America/Nuuk",
    "America/Caracas",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Tehran",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Amman",
    "Asia/Gaza",
    "Asia/Tokyo",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Antarctica/Troll",
)
FIRST, LAST = datetime(2018, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
MINUTE, FIVE_MINUTES = timedelta(minutes=1), timedelta(minutes=5)
DAY = timedelta(days=1)
NIGHTLY = ("30 2 * * *", "0 0 * * *", "5 0 13 * 5")

#: Expression, and what its five fields mean: the values that fit.
EXPRESSIONS = {
    "30 2 * * *": ({30}, {2}, None, None),
    "0 0 * * *": ({0}, {0}, None, None),
    "15,45 1-3 * * *": ({15, 45}, {1, 2, 3}, None, None),
    "0 3 * * 7": ({0}, {3}, None, {6}),
    "5 0 13 * 5": ({5}, {0}, {13}, {4}),
    "*/20 * * * *": ({0, 20, 40}, set(range(24)), None, None),
    "0 * * * *": ({0}, set(range(24)), None, None),
    "10 */2 * * *": ({10}, set(range(0, 24, 2)), None, None),
}


@lru_cache(maxsize=len(ZONES))
def changes(zone: str) -> list[tuple[datetime, timedelta]]:
    """(from when in UTC, offset), found hour by hour and then minute by minute."""
    tz = ZoneInfo(zone)

    def offset(at: datetime) -> timedelta:
        found = at.astimezone(tz).utcoffset()
        assert found is not None
        return found

    start = FIRST - timedelta(days=2)
    found = [(start, offset(start))]
    at = start
    while at < LAST + timedelta(days=2):
        following = at + timedelta(hours=6)
        if offset(following) != found[-1][1]:
            minute = at
            while offset(minute) == found[-1][1]:
                minute += MINUTE
            found.append((minute, offset(minute)))
            following = minute
        at = following
    return found


def fits(local: datetime, expression: str) -> bool:
    minutes, hours, days, weekdays = EXPRESSIONS[expression]
    if local.minute not in minutes or local.hour not in hours:
        return False
    if days is None and weekdays is None:
        return True
    in_days = days is not None and local.day in days
    return in_days or (weekdays is not None and local.weekday() in weekdays)


@lru_cache(maxsize=len(EXPRESSIONS))
def shown(expression: str) -> list[datetime]:
    """Every minute on a wall that fits, without any time zone."""
    at, until = naive(FIRST) - timedelta(days=3), naive(LAST) + timedelta(days=3)
    found = []
    while at < until:
        if fits(at, expression):
            found.append(at)
        at += FIVE_MINUTES  # no expression has a minute in between
    return found


def between(expression: str, begin: datetime, end: datetime) -> list[datetime]:
    fitting = shown(expression)
    return fitting[bisect.bisect_left(fitting, begin) : bisect.bisect_left(fitting, end)]


def oracle(
    zone: str, expression: str, first: datetime = FIRST, last: datetime = LAST
) -> list[datetime]:
    """Every slot after `first`, span by span between two changes of the clocks."""
    follows_minutes = any(field.startswith("*") for field in expression.split()[:2])
    ends = [begin for begin, _ in changes(zone)[1:]] + [LAST + timedelta(days=2)]
    before = changes(zone)[0][1]
    slots: set[datetime] = set()
    for (begin, offset), end in zip(changes(zone), ends, strict=True):
        old, new = naive(begin) + before, naive(begin) + offset
        if old < new and not follows_minutes and between(expression, old, new):
            slots.add(begin)
        shows_from = max(new, naive(first) - DAY)
        for wall in between(expression, shows_from, min(naive(end) + offset, naive(last) + DAY)):
            if wall >= old or follows_minutes:  # else it was shown before
                slots.add((wall - offset).replace(tzinfo=UTC))
        before = offset
    return sorted(slot for slot in slots if first < slot <= last)


def naive(at: datetime) -> datetime:
    return at.replace(tzinfo=None)


def found(zone: str, expression: str, begin: datetime, end: datetime) -> list[datetime]:
    cron = parse(expression, timezone=ZoneInfo(zone), spread_by="")
    return list(itertools.takewhile(lambda slot: slot <= end, cron.slots_after(begin)))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", NIGHTLY)
def test_nightly_slots_are_those_of_brute_force_over_ten_years(zone: str, expression: str) -> None:
    slots, expected = found(zone, expression, FIRST, LAST), oracle(zone, expression)

    assert sorted(set(slots) ^ set(expected)) == []
    assert slots == expected
    assert len(expected) > 100


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_slots_around_every_change_of_the_clocks_are_those_of_brute_force(
    zone: str, expression: str
) -> None:
    for change, _ in changes(zone)[1:]:
        begin, end = max(change - DAY, FIRST), min(change + DAY, LAST)

        slots = found(zone, expression, begin, end)

        assert slots == oracle(zone, expression, begin, end), change


@pytest.mark.parametrize("zone", ZONES)
def test_the_previous_slot_is_right_around_every_change_of_the_clocks(zone: str) -> None:
    for expression in ("30 2 * * *", "15,45 1-3 * * *", "10 */2 * * *"):
        expected = oracle(zone, expression)
        cron = parse(expression, timezone=ZoneInfo(zone), spread_by="")
        for change, _ in changes(zone)[1:]:
            for quarter in range(-16, 20, 2):
                now = change + quarter * timedelta(minutes=15)
                past = expected[bisect.bisect_right(expected, now) - 1]
                assert cron.previous_slot(now) == past, (expression, now)
