"""What retention never does, whatever the backups, the rules, the clock and the time zone."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from opsd.backup.catalog import Backup, Condition
from opsd.backup.retention import FUTURE_TOLERANCE, Plan, plan
from opsd.config import Keep
from tests.test_retention import NOW, backup

EXAMPLES = 20_000 if os.environ.get("OPSD_TESTS") == "long" else 300
PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G-W%V", "monthly": "%Y-%m", "yearly": "%Y"}
prove = settings(max_examples=EXAMPLES, deadline=None)

ages = st.integers(min_value=-100, max_value=24 * 900)  # hours
dense = st.integers(min_value=0, max_value=24 * 12)  # hours: several a day


def series_of(hours: st.SearchStrategy[int]) -> st.SearchStrategy[list[Backup]]:
    """Backups of one series in any order, at most one an hour."""
    rows = st.lists(
        st.tuples(hours, st.sampled_from(list(Condition))),
        max_size=40,
        unique_by=lambda row: row[0],
    )
    return rows.map(lambda found: [backup(timedelta(hours=age), how) for age, how in found])


@st.composite
def regular(draw: st.DrawFn) -> list[Backup]:
    """One a day until now, some of them bad, and a few from a clock that was ahead."""
    days = draw(st.integers(4, 30))
    bad = draw(st.dictionaries(st.integers(1, days), st.sampled_from(list(Condition)), max_size=6))
    ahead = draw(st.lists(st.integers(2, 24 * 300), max_size=3, unique=True))
    past = [backup(timedelta(days=age), bad.get(age, Condition.GOOD)) for age in range(days)]
    return past + [backup(-timedelta(hours=hours)) for hours in ahead]


series = st.one_of(series_of(ages), series_of(dense), regular())
rules = st.builds(
    Keep,
    last=st.integers(0, 5),
    daily=st.integers(0, 8),
    weekly=st.integers(0, 5),
    monthly=st.integers(0, 7),
    yearly=st.integers(0, 3),
    minimum=st.integers(1, 6),
    max_removed_percent=st.one_of(st.just(100), st.integers(1, 100)),
)
zones = st.sampled_from(
    [
        UTC,
        ZoneInfo("Europe/Berlin"),
        ZoneInfo("America/New_York"),
        ZoneInfo("Pacific/Kiritimati"),
        ZoneInfo("Pacific/Apia"),
        ZoneInfo("Australia/Lord_Howe"),
    ]
)
clocks = st.one_of(st.just(0), st.integers(-400, 400)).map(lambda days: NOW + timedelta(days=days))


def removed(result: Plan) -> set[str]:
    return {one.backup.key for one in result.remove}


def kept(result: Plan) -> set[str]:
    return {one.backup.key for one in result.keep}


def counted(backups: list[Backup], now: datetime) -> list[Backup]:
    """Good ones that are not dated in the future, newest first."""
    usable = [
        one
        for one in backups
        if one.condition is Condition.GOOD and one.manifest.slot <= now + FUTURE_TOLERANCE
    ]
    return sorted(usable, key=lambda one: one.manifest.slot, reverse=True)


@prove
@given(series, rules, clocks, zones)
def test_every_backup_is_in_exactly_one_list_with_reasons(
    backups: list[Backup], rule: Keep, now: datetime, zone: tzinfo
) -> None:
    result = plan(backups, rule, now=now, timezone=zone)

    listed = [one.backup.key for one in (*result.keep, *result.remove)]
    assert sorted(listed) == sorted(one.key for one in backups)
    assert all(one.reasons and all(one.reasons) for one in (*result.keep, *result.remove))
    assert not (result.refused and result.remove)


@prove
@given(series, rules, clocks, zones)
def test_the_newest_good_backups_stay_up_to_the_minimum_whatever_the_clock_says(
    backups: list[Backup], rule: Keep, now: datetime, zone: tzinfo
) -> None:
    gone = removed(plan(backups, rule, now=now, timezone=zone))

    assert not gone & {one.key for one in counted(backups, now)[: rule.minimum]}


@prove
@given(series, rules, clocks)
def test_what_is_dated_in_the_future_stays_and_holds_no_place(
    backups: list[Backup], rule: Keep, now: datetime
) -> None:
    future = {one.key for one in backups if one.manifest.slot > now + FUTURE_TOLERANCE}
    present = [one for one in backups if one.key not in future]

    result = plan(backups, rule, now=now, timezone=UTC)

    assert future <= kept(result)
    if not result.refused:
        assert removed(result) == removed(plan(present, rule, now=now, timezone=UTC))


@prove
@given(series, rules, clocks)
def test_bad_backups_never_hold_the_place_of_a_good_one(
    backups: list[Backup], rule: Keep, now: datetime
) -> None:
    good = [one for one in backups if one.condition is Condition.GOOD]

    all_of_them = plan(backups, rule, now=now, timezone=UTC)
    alone = plan(good, rule, now=now, timezone=UTC)

    assert removed(all_of_them) & {one.key for one in good} <= removed(alone)


@prove
@given(series, rules, clocks)
def test_a_bad_backup_goes_only_when_enough_newer_good_ones_exist(
    backups: list[Backup], rule: Keep, now: datetime
) -> None:
    result = plan(backups, rule, now=now, timezone=UTC)

    good = [one.manifest.slot for one in counted(backups, now)]
    for decision in result.remove:
        if decision.backup.condition is not Condition.GOOD:
            slot = decision.backup.manifest.slot
            assert sum(one > slot for one in good) >= rule.minimum


@prove
@given(
    series,
    rules,
    st.lists(ages, max_size=10, unique=True),
    st.sampled_from([Condition.FAILED, Condition.UNVERIFIED]),
)
def test_more_bad_backups_never_let_another_one_go(
    backups: list[Backup], rule: Keep, more: list[int], condition: Condition
) -> None:
    bad = [backup(timedelta(hours=age, minutes=7), condition) for age in more]

    before = removed(plan(backups, rule, now=NOW, timezone=UTC))
    after = removed(plan([*backups, *bad], rule, now=NOW, timezone=UTC))

    assert after - {one.key for one in bad} <= before


@prove
@given(series, rules, st.sampled_from(["last", *PERIODS, "minimum"]), st.integers(1, 5))
def test_keeping_more_never_lets_another_one_go(
    backups: list[Backup], rule: Keep, name: str, more: int
) -> None:
    generous = rule.model_copy(update={name: getattr(rule, name) + more})
    before = plan(backups, rule, now=NOW, timezone=UTC)
    assume(not before.refused)  # fewer that would go may be few enough

    after = plan(backups, generous, now=NOW, timezone=UTC)

    assert removed(after) <= removed(before)


@prove
@given(series, rules, clocks, zones)
def test_planning_again_after_removing_removes_nothing(
    backups: list[Backup], rule: Keep, now: datetime, zone: tzinfo
) -> None:
    gone = removed(plan(backups, rule, now=now, timezone=zone))
    left = [one for one in backups if one.key not in gone]

    again = plan(left, rule, now=now, timezone=zone)

    if gone:
        assert again.remove == ()
        assert again.refused == ""


@prove
@given(series, rules, st.randoms(use_true_random=False), zones)
def test_the_order_of_the_backups_does_not_matter(
    backups: list[Backup], rule: Keep, chance: random.Random, zone: tzinfo
) -> None:
    shuffled = list(backups)
    chance.shuffle(shuffled)

    assert plan(shuffled, rule, now=NOW, timezone=zone) == plan(
        backups, rule, now=NOW, timezone=zone
    )


@prove
@given(series, rules, st.integers(0, 400))
def test_a_clock_that_runs_ahead_lets_nothing_go_but_what_went_before_or_is_superseded(
    backups: list[Backup], rule: Keep, days: int
) -> None:
    """With no new backups since, time alone lets no good one go that the rules count."""
    past = [one for one in backups if one.manifest.slot <= NOW]

    now = removed(plan(past, rule, now=NOW, timezone=UTC))
    later = plan(past, rule, now=NOW + timedelta(days=days), timezone=UTC)

    assert removed(later) <= now or not later.remove


@prove
@given(series, rules, zones, clocks)
def test_each_rule_keeps_the_newest_of_its_periods_in_the_operators_calendar(
    backups: list[Backup], rule: Keep, zone: tzinfo, now: datetime
) -> None:
    stays = kept(plan(backups, rule, now=now, timezone=zone))

    assert {one.key for one in counted(backups, now)[: rule.last]} <= stays
    for name, pattern in PERIODS.items():
        newest: dict[str, str] = {}
        for one in counted(backups, now):
            period = one.manifest.slot.astimezone(zone).strftime(pattern)
            newest.setdefault(period, one.key)
        assert set(list(newest.values())[: getattr(rule, name)]) <= stays


@prove
@given(
    st.sampled_from(
        [
            (ZoneInfo("Europe/Berlin"), datetime(2026, 3, 29, tzinfo=UTC)),
            (ZoneInfo("Europe/Berlin"), datetime(2026, 10, 25, tzinfo=UTC)),
            (ZoneInfo("America/New_York"), datetime(2026, 11, 1, tzinfo=UTC)),
            (ZoneInfo("Australia/Lord_Howe"), datetime(2026, 4, 5, tzinfo=UTC)),
            (ZoneInfo("Pacific/Apia"), datetime(2011, 12, 30, tzinfo=UTC)),  # a day that was not
        ]
    ),
    st.integers(1, 6),
    st.integers(60, 240),
)
def test_days_of_23_and_25_hours_and_a_day_that_was_skipped_each_count_once(
    change: tuple[ZoneInfo, datetime], days: int, minutes: int
) -> None:
    zone, middle = change
    first, last = middle - timedelta(days=3), middle + timedelta(days=3)
    slots = [
        first + timedelta(minutes=minutes * step)
        for step in range(int((last - first) / timedelta(minutes=minutes)))
    ]
    rule = Keep(last=0, daily=days, weekly=0, monthly=0, yearly=0, minimum=1)
    rule = rule.model_copy(update={"max_removed_percent": 100})

    result = plan([backup(NOW - slot) for slot in slots], rule, now=last, timezone=zone)

    stay = [one.backup.manifest.slot.astimezone(zone) for one in result.keep]
    assert len(stay) == days
    assert len({slot.date() for slot in stay}) == days
    ends = {slot.astimezone(zone).date(): slot for slot in slots}  # the last of each date
    assert all(ends[slot.date()] == slot for slot in stay)
