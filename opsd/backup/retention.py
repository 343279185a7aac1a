"""Which backups stay and which may go. Pure: nothing is read, nothing is removed here.

Retention is where backup tools lose data: they count failed runs, age out the last good
copy while new ones fail, and trust a clock that is years off. So only good backups count,
the newest good ones always stay, and when something is odd nothing goes and it is said why.

Limits: days and weeks are those of the operator's calendar; a backup belongs to the day of
its slot, whenever it ended.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from opsd.backup.catalog import Backup, Condition

if TYPE_CHECKING:
    from opsd.config import Keep

FUTURE_TOLERANCE = timedelta(hours=1)  # clocks of two machines may differ by this much
STALE_INTERVALS = 2  # the newest good backup may be this many usual intervals old
_RECENT_GOOD = 8  # good backups that show the usual interval; older ones are thinned out
_FEWEST_FOR_INTERVAL = 3  # good backups below which there is no usual interval


class Decision(NamedTuple):
    """One backup and why it stays or goes."""

    backup: Backup
    reasons: tuple[str, ...]  #: never empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What retention decided about one series; every backup stands in exactly one list."""

    keep: tuple[Decision, ...]  #: newest first
    remove: tuple[Decision, ...]  #: newest first; empty when refused
    refused: str = ""  #: why nothing goes although something would; empty otherwise


def plan(backups: Iterable[Backup], keep: Keep, *, now: datetime, timezone: tzinfo) -> Plan:
    """Decide about the backups of one series.

    Args:
        backups: all of one subject, in any order.
        keep: the rules.
        now: aware UTC.
        timezone: the operator's; days, weeks, months and years are counted in it.

    Raises:
        ValueError: the backups belong to several subjects.
    """
    series = sorted(backups, key=lambda one: (one.manifest.slot, one.key), reverse=True)
    if len({one.manifest.subject for one in series}) > 1:
        raise ValueError("retention is decided for one series at a time")
    future = {one.key for one in series if _is_in_future(one, now)}
    good = [one for one in series if _is_good(one) and one.key not in future]
    reasons = _reasons_to_keep(good, keep, timezone)
    decisions = [
        _decide(one, reasons.get(one.key, []), keep, good=good, future=one.key in future)
        for one in series
    ]
    removable = [decision for stays, decision in decisions if not stays]
    refused = _refusal(series, removable, keep, now=now) if removable else ""
    if refused:
        return Plan(
            keep=tuple(
                decision if stays else Decision(decision.backup, (f"nothing goes: {refused}",))
                for stays, decision in decisions
            ),
            remove=(),
            refused=refused,
        )
    return Plan(
        keep=tuple(decision for stays, decision in decisions if stays), remove=tuple(removable)
    )


def _is_good(backup: Backup) -> bool:
    return backup.condition is Condition.GOOD


def _is_in_future(backup: Backup, now: datetime) -> bool:
    latest = max(backup.manifest.slot, backup.manifest.created_at)
    return latest > now + FUTURE_TOLERANCE


def _decide(
    backup: Backup, reasons: list[str], keep: Keep, *, good: Sequence[Backup], future: bool
) -> tuple[bool, Decision]:
    """Whether `backup` stays, and why."""
    if future:
        dated = f"dated {backup.manifest.slot:%Y-%m-%d %H:%M} UTC, in the future: not counted"
        return True, Decision(backup, (dated,))
    if reasons:
        return True, Decision(backup, tuple(reasons))
    if _is_good(backup):
        return False, Decision(backup, ("no rule keeps it",))
    newer = sum(1 for one in good if one.manifest.slot > backup.manifest.slot)
    if newer >= keep.minimum:
        why = f"{backup.condition}, and {newer} newer good backups exist"
        return False, Decision(backup, (why,))
    why = f"{backup.condition}, but only {newer} of {keep.minimum} newer good backups exist"
    return True, Decision(backup, (why,))


def _reasons_to_keep(good: Sequence[Backup], keep: Keep, timezone: tzinfo) -> dict[str, list[str]]:
    """Reasons by manifest key; `good` is newest first."""
    reasons: dict[str, list[str]] = {}
    for backup in good[: keep.last]:
        reasons.setdefault(backup.key, []).append(f"one of the last {keep.last}")
    for period, count, label in _periods(keep):
        seen: set[str] = set()
        for backup in good:
            if len(seen) == count:
                break
            bucket = label(backup.manifest.slot.astimezone(timezone))
            if bucket not in seen:
                seen.add(bucket)
                reasons.setdefault(backup.key, []).append(f"newest of {period} {bucket}")
    for backup in good[: keep.minimum]:
        reasons.setdefault(backup.key, [f"minimum of {keep.minimum} good backups"])
    return reasons


def _periods(keep: Keep) -> tuple[tuple[str, int, Callable[[datetime], str]], ...]:
    return (
        ("day", keep.daily, lambda at: f"{at:%Y-%m-%d}"),
        ("week", keep.weekly, lambda at: f"{at:%G-W%V}"),
        ("month", keep.monthly, lambda at: f"{at:%Y-%m}"),
        ("year", keep.yearly, lambda at: f"{at:%Y}"),
    )


def _refusal(
    series: Sequence[Backup], removable: Sequence[Decision], keep: Keep, *, now: datetime
) -> str:
    """Why nothing may go although something would; empty when it may."""
    all_good = [one for one in series if _is_good(one)]
    future = sum(1 for one in all_good if _is_in_future(one, now))
    if 2 * future > len(all_good):
        return (
            f"{future} of {len(all_good)} good backups are newer than the clock, which says"
            f" {now:%Y-%m-%d %H:%M} UTC; set the clock"
        )
    good = [one for one in all_good if not _is_in_future(one, now)]
    # Only good ones count here, so that more failures never allow more to go.
    limit = max(1, len(good) * keep.max_removed_percent // 100)
    if len(removable) > limit:
        return (
            f"{len(removable)} backups would go at once, the limit is {limit}"
            f" ({keep.max_removed_percent} % of {len(good)} good ones); if that is meant,"
            " raise max_removed_percent"
        )
    return _staleness(good, now)


def _staleness(good: Sequence[Backup], now: datetime) -> str:
    """Whether new backups stopped coming; `good` is newest first."""
    if len(good) < _FEWEST_FOR_INTERVAL:
        return ""
    slots = [one.manifest.slot for one in good[:_RECENT_GOOD]]
    intervals = [(newer - older).total_seconds() for newer, older in pairwise(slots)]
    usual = timedelta(seconds=statistics.median(intervals))
    age = now - slots[0]
    if age > STALE_INTERVALS * usual:
        return (
            f"the newest good backup is {_hours(age)} old and they usually come every"
            f" {_hours(usual)}; make a good backup first"
        )
    return ""


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"
