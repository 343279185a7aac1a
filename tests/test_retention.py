"""Retention decides by proof, in the operator's calendar, and gives its reasons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from opsd.backup.catalog import Backup, Condition
from opsd.backup.manifest import Manifest, Verification, manifest_key
from opsd.backup.retention import Plan, plan
from opsd.config import Keep

NOW = datetime(2026, 11, 22, 3, 30, tzinfo=UTC)
DAY = timedelta(days=1)
SUBJECT = "database/main/app"


def backup(
    age: timedelta, condition: Condition = Condition.GOOD, *, subject: str = SUBJECT
) -> Backup:
    slot = (NOW - age).replace(microsecond=0)
    proofs = {
        Condition.GOOD: (Verification(level="read_back", at=slot, ok=True),),
        Condition.FAILED: (Verification(level="read_back", at=slot, ok=False),),
        Condition.UNVERIFIED: (),
    }
    manifest = Manifest(
        kind="pg_dump",
        subject=subject,
        slot=slot,
        run_id="0123456789ab",
        created_at=slot,
        key="",
        size_bytes=1,
        sha256="0" * 64,
    )
    return Backup(
        key=manifest_key(subject, slot), manifest=manifest, verifications=proofs[condition]
    )


def keep(**rules: int) -> Keep:
    none = {"last": 0, "daily": 0, "weekly": 0, "monthly": 0, "yearly": 0, "minimum": 1}
    return Keep(**{**none, "max_removed_percent": 100, **rules})


def daily(count: int, *, first: int = 0) -> list[Backup]:
    return [backup(DAY * age) for age in range(first, first + count)]


def decide(backups: list[Backup], rules: Keep, *, timezone: Any = UTC) -> Plan:
    return plan(backups, rules, now=NOW, timezone=timezone)


def kept_days(result: Plan) -> list[int]:
    return [(NOW - one.backup.manifest.slot).days for one in result.keep]


def test_the_newest_n_stay() -> None:
    result = decide(daily(5), keep(last=3))

    assert kept_days(result) == [0, 1, 2]
    assert len(result.remove) == 2


def test_the_newest_of_each_day_stays() -> None:
    backups = [backup(timedelta(hours=6 * n)) for n in range(8)]

    result = decide(backups, keep(daily=2))

    hours = [(NOW - one.backup.manifest.slot).total_seconds() / 3600 for one in result.keep]
    assert hours == [0, 6]
    assert result.keep[1].reasons == ("newest of day 2026-11-21",)


def test_days_are_those_of_the_operator_not_of_utc() -> None:
    # 23:30 and 22:30 UTC on the 21st: in Berlin the 22nd, 00:30, and the 21st, 23:30.
    backups = [backup(timedelta(hours=4)), backup(timedelta(hours=5))]

    in_utc = decide(backups, keep(daily=2))
    in_berlin = decide(backups, keep(daily=2), timezone=ZoneInfo("Europe/Berlin"))

    assert len(in_utc.keep) == 1
    assert len(in_berlin.keep) == 2


def test_weeks_follow_iso_over_the_turn_of_the_year() -> None:
    now = datetime(2027, 1, 4, 3, tzinfo=UTC)
    ages = [
        (now - datetime(2027, 1, 3, 2, tzinfo=UTC)),
        now - datetime(2026, 12, 31, 2, tzinfo=UTC),
    ]
    backups = [backup(NOW - (now - age)) for age in ages]

    result = plan(backups, keep(weekly=2), now=now, timezone=UTC)

    assert len(result.keep) == 1
    assert result.keep[0].reasons == ("newest of week 2026-W53",)


def test_months_and_years_stay() -> None:
    backups = [backup(DAY * 30 * n) for n in range(30)]

    result = decide(backups, keep(monthly=3, yearly=2))

    assert kept_days(result) == [0, 30, 60, 330]


def test_failed_and_unverified_backups_never_count() -> None:
    backups = [
        backup(DAY * 0, Condition.FAILED),
        backup(DAY * 1, Condition.UNVERIFIED),
        *daily(4, first=2),
    ]

    result = decide(backups, keep(last=2))

    assert kept_days(result) == [0, 1, 2, 3]
    assert [(NOW - one.backup.manifest.slot).days for one in result.remove] == [4, 5]


@pytest.mark.parametrize("condition", [Condition.FAILED, Condition.UNVERIFIED])
@pytest.mark.parametrize(("newer", "goes"), [(2, False), (3, True)])
def test_a_bad_backup_goes_only_when_the_minimum_of_good_newer_ones_exists(
    condition: Condition, newer: int, *, goes: bool
) -> None:
    bad = backup(DAY * 9, condition)

    result = decide([*daily(newer), bad], keep(last=5, minimum=3))

    assert (bad in [one.backup for one in result.remove]) is goes


def test_the_minimum_stays_whatever_the_rules_say() -> None:
    result = decide(daily(6), keep(minimum=4))

    assert kept_days(result) == [0, 1, 2, 3]
    assert result.keep[0].reasons == ("minimum of 4 good backups",)


def test_a_further_rule_takes_no_place_of_the_minimum() -> None:
    backups = daily(9)

    assert kept_days(decide(backups, keep(minimum=2))) == [0, 1]
    assert kept_days(decide(backups, keep(minimum=2, weekly=2))) == [0, 1, 7]


@pytest.mark.parametrize(("ahead", "counts"), [(60, True), (61, False)])
def test_a_backup_dated_in_the_future_is_kept_named_and_not_counted(
    ahead: int, *, counts: bool
) -> None:
    odd = backup(-timedelta(minutes=ahead))

    result = decide([odd, *daily(3)], keep(last=2))

    assert odd in [one.backup for one in result.keep]
    assert len(result.remove) == (2 if counts else 1)
    assert ("in the future" in result.keep[0].reasons[0]) is not counts


def test_nothing_goes_when_the_clock_is_older_than_the_backups() -> None:
    backups = daily(5)

    result = plan(backups, keep(last=1), now=datetime(1970, 1, 1, tzinfo=UTC), timezone=UTC)

    assert result.remove == ()
    assert len(result.keep) == 5


def test_nothing_goes_when_most_good_backups_are_newer_than_the_clock() -> None:
    backups = [*(backup(-DAY * n) for n in range(1, 5)), *daily(3)]

    result = decide(backups, keep(last=1))

    assert result.remove == ()
    assert "set the clock" in result.refused


@pytest.mark.parametrize(("percent", "refused"), [(50, False), (49, True)])
def test_removing_more_than_the_allowed_share_is_refused(percent: int, *, refused: bool) -> None:
    result = decide(daily(10), keep(last=5, max_removed_percent=percent))

    assert bool(result.refused) is refused
    assert len(result.remove) == (0 if refused else 5)
    assert ("max_removed_percent" in result.refused) is refused


def test_failed_backups_do_not_raise_the_limit() -> None:
    failed = [backup(timedelta(hours=n), Condition.FAILED) for n in range(1, 9)]

    result = decide([*daily(4), *failed], keep(last=1, minimum=1, max_removed_percent=50))

    assert "50 % of 4 good ones" in result.refused


def test_one_may_always_go_from_a_small_series() -> None:
    result = decide(daily(2), keep(last=1, max_removed_percent=1))

    assert len(result.remove) == 1


@pytest.mark.parametrize(("days", "refused"), [(2, False), (3, True)])
def test_nothing_ages_out_while_new_backups_fail(days: int, *, refused: bool) -> None:
    result = decide(daily(8, first=days), keep(last=7))

    assert bool(result.refused) is refused
    assert len(result.remove) == (0 if refused else 1)


def test_a_thinned_history_does_not_hide_that_backups_stopped() -> None:
    months = [backup(DAY * 30 * n) for n in range(1, 20)]

    result = decide([*daily(7, first=4), *months], keep(last=3))

    assert "usually come every 24.0 h" in result.refused


def test_backups_of_several_series_are_refused() -> None:
    with pytest.raises(ValueError, match="one series"):
        decide([backup(DAY), backup(DAY, subject="database/main/other")], keep(last=1))


def test_no_backups_need_no_decision() -> None:
    assert decide([], keep(last=1)) == Plan(keep=(), remove=())
