"""Counts of mishaps: a disk with eight bad sectors for years is not one that got eight today.

A count is told by how much it rose within a period. The first look at it, another device, or a
restart that began to count anew never is a rise.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

DAY = timedelta(days=1)
WEEK = timedelta(days=7)
STEPS = 24  # of a period, in which rises are kept together


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A count of mishaps, and by how much it has risen lately."""

    value: int
    rises: tuple[tuple[float, int], ...] = ()  #: seconds since 1970, by how much; oldest first

    @property
    def risen_by(self) -> int:
        """Within the period."""
        return sum(by for _, by in self.rises)

    @property
    def kept(self) -> list[object]:
        """As JSON, for `counted`."""
        return [self.value, [list(rise) for rise in self.rises]]


def counted(
    kept: object, value: int, *, at_s: float, period: timedelta, is_new: bool = False
) -> Count:
    """The count as it is now, after what was kept of it.

    `is_new`: it began at zero since it was read last, as after a restart.
    """
    before = _read(kept)
    if before is None:
        return Count(value=value)
    period_s = period.total_seconds()
    rises = [rise for rise in before.rises if at_s - rise[0] < period_s]
    by = 0 if is_new else max(0, value - before.value)
    if by and rises and at_s - rises[-1][0] < period_s / STEPS:
        rises[-1] = (rises[-1][0], rises[-1][1] + by)
    elif by:
        rises.append((at_s, by))
    return Count(value=value, rises=tuple(rises))


def _read(kept: object) -> Count | None:
    """What was kept; None when there is nothing that can be read."""
    match kept:
        case [int() as value, [*rises]]:
            return Count(value=value, rises=tuple(_rises(rises)))
        case _:
            return None


def _rises(rises: list[object]) -> list[tuple[float, int]]:
    return [
        (float(rise[0]), int(rise[1]))
        for rise in rises
        if isinstance(rise, list) and [isinstance(one, int | float) for one in rise] == [True] * 2
    ]
