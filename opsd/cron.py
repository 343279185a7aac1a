"""When a cron expression is due, exactly as cron means it.

Five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday; when both
day fields are restricted, either one suffices). Also ``@hourly``, ``@daily``, ``@weekly``,
``@monthly`` and ``@yearly``, and ``H``: a value that is spread by the job's name and then
stays the same, so that ten jobs of one night do not start in the same minute.

Summer time: a slot inside the hour that does not exist comes at the first minute after it;
a slot inside the hour that comes twice comes once. An expression whose minute or hour
begins with ``*`` follows the real minutes instead, so an hourly job has 23 or 25 slots.

The library that reads expressions only counts plain dates here: it would lose slots where the
clocks change by half an hour.

Limits: no seconds, no years. Slots are aware UTC and lie on whole minutes.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = ("minute", "hour", "day of month", "month", "day of week")
LONGEST_FOLD = timedelta(hours=3)  # by how much clocks are ever set back at once
_SLOTS_LOOKED_AT = 15
_MINUTE = timedelta(minutes=1)
_SPANS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))  # what ``H`` is spread over
_SPREAD = re.compile(r"H(?:\((\d+)-(\d+)\))?(?:/(\d+))?")
_ANY_TIME = datetime(2024, 1, 1, tzinfo=UTC)
_HINT = 'use five fields such as "0 3 * * *" (minute hour day month weekday), or "@daily"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed expression in a time zone. Make it with `parse`."""

    expression: str  #: as configured, e.g. ``H 3 * * *``
    fields: str  #: five plain fields, e.g. ``17 3 * * *``
    timezone: tzinfo

    def next_slot(self, after: datetime) -> datetime:
        """The first slot later than `after`, aware UTC."""
        return next(self.slots_after(after))

    def previous_slot(self, until: datetime) -> datetime:
        """The last slot not later than `until`, aware UTC."""
        wall = self._wall(until) + timedelta(seconds=1)
        backward = (self._moments(at) for at in CronSim(self.fields, wall, reverse=True))
        latest = next(min(found) for found in backward if found and min(found) <= until)
        # The clocks may have been changed since: then others came after it.
        for slot in self.slots_after(latest):
            if slot > until:
                return latest
            latest = slot
        raise AssertionError  # pragma: no cover - a valid expression has no last slot

    def longest_gap(self, after: datetime) -> timedelta:
        """The longest time between two of the next slots, as far as two weeks of days tell."""
        slots = itertools.islice(self.slots_after(after), _SLOTS_LOOKED_AT)
        return max(later - slot for slot, later in itertools.pairwise(slots))

    def describe(self) -> str:
        """In words: ``At 03:17 every day``."""
        text: str = CronSim(self.fields, _ANY_TIME).explain()
        return text

    def slots_after(self, after: datetime) -> Iterator[datetime]:
        """All slots later than `after`, oldest first, aware UTC; without an end."""
        latest = after.astimezone(UTC)
        waiting: list[datetime] = []  # second passes of an hour that comes twice
        for wall in CronSim(self.fields, self._wall(after) - LONGEST_FOLD):
            for slot in self._moments(wall):
                heapq.heappush(waiting, slot)
            known_until = self._utc(wall, fold=0)  # no later slot comes before this
            while waiting and waiting[0] <= known_until:
                slot = heapq.heappop(waiting)
                if slot > latest:
                    yield slot
                    latest = slot

    @property
    def _follows_minutes(self) -> bool:
        minute, hour, *_ = self.fields.split()
        return minute.startswith("*") or hour.startswith("*")

    def _moments(self, wall: datetime) -> tuple[datetime, ...]:
        """When the clocks on the wall show `wall` and the slot is due: never, once or twice."""
        first, second = self._utc(wall, fold=0), self._utc(wall, fold=1)
        if first == second:
            return (first,)
        if first > second:  # they never show it: the hour was left out
            return () if self._follows_minutes else (self._change(second, first),)
        return (first, second) if self._follows_minutes else (first,)

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The minute in which the clocks were changed."""
        offset = after.astimezone(self.timezone).utcoffset()
        minutes = range(int((after - before) / _MINUTE))
        is_after = [
            (before + minute * _MINUTE).astimezone(self.timezone).utcoffset() == offset
            for minute in minutes
        ]
        return before + bisect.bisect_left(is_after, x=True) * _MINUTE

    def _wall(self, at: datetime) -> datetime:
        return at.astimezone(self.timezone).replace(tzinfo=None)

    def _utc(self, wall: datetime, *, fold: int) -> datetime:
        return wall.replace(tzinfo=self.timezone, fold=fold).astimezone(UTC)


def parse(expression: str, *, timezone: tzinfo, spread_by: str) -> Cron:
    """Read an expression; `spread_by` (the job's name) decides what ``H`` becomes.

    Raises:
        ValueError: the text says which field is wrong and what a right one looks like.
    """
    parts = ALIASES.get(expression.strip().lower(), expression).split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"not a schedule; {_HINT}")  # what stands there may be anything
    fields = " ".join(
        _spread(part, index=index, seed=spread_by) for index, part in enumerate(parts)
    )
    try:
        next(CronSim(fields, _ANY_TIME))
    except CronSimError as exc:
        raise ValueError(f"not a schedule: {_explained(exc)}; {_HINT}") from exc
    except StopIteration:
        raise ValueError(f'"{expression}" never comes: no such date exists') from None
    return Cron(expression=expression, fields=fields, timezone=timezone)


def _spread(part: str, *, index: int, seed: str) -> str:
    """Replace ``H``, ``H(0-29)`` or ``H/15`` by a plain field that depends on `seed` only."""
    match = _SPREAD.fullmatch(part)
    if match is None:
        return part
    low, high = _SPANS[index]
    if match[1]:
        low, high = int(match[1]), int(match[2])
    step = int(match[3] or 0)
    width = min(step, high - low + 1) if step else high - low + 1
    if width < 1 or match[3] == "0":
        return part
    first = low + zlib.crc32(f"{index} {seed}".encode()) % width
    return f"{first}-{high}/{step}" if step else str(first)


def _explained(exc: CronSimError) -> str:
    text = str(exc)
    return text.replace("Bad", "wrong").replace("day-of-", "day of ").replace("Wrong", "wrong")
