"""Counts of mishaps: what rose lately, and what never did."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.hosts.health.counters import DAY, counted

HOUR_S = 3600.0


def test_the_first_look_at_a_count_is_no_rise() -> None:
    first = counted(None, 8, at_s=0.0, period=DAY)

    assert (first.value, first.risen_by) == (8, 0)


def test_a_count_that_grew_has_risen_by_the_difference() -> None:
    first = counted(None, 8, at_s=0.0, period=DAY)

    second = counted(first.kept, 11, at_s=HOUR_S, period=DAY)

    assert second.risen_by == 3


@pytest.mark.parametrize(("after_s", "risen_by"), [(DAY.total_seconds() - 1, 3), (86400.0, 0)])
def test_a_rise_is_over_after_the_period(after_s: float, risen_by: int) -> None:
    first = counted(None, 0, at_s=0.0, period=DAY)
    risen = counted(first.kept, 3, at_s=0.0, period=DAY)

    later = counted(risen.kept, 3, at_s=after_s, period=DAY)

    assert later.risen_by == risen_by


def test_a_count_that_began_anew_has_not_risen_and_forgets_no_rise() -> None:
    first = counted(None, 0, at_s=0.0, period=DAY)
    risen = counted(first.kept, 3, at_s=1.0, period=DAY)

    restarted = counted(risen.kept, 50, at_s=2.0, period=DAY, is_new=True)

    assert (restarted.value, restarted.risen_by) == (50, 3)


def test_a_count_that_fell_is_another_one() -> None:
    first = counted(None, 70, at_s=0.0, period=DAY)

    fallen = counted(first.kept, 2, at_s=1.0, period=DAY)

    assert (fallen.value, fallen.risen_by) == (2, 0)


@pytest.mark.parametrize("kept", ["", 7, [], [1], ["a", []], [1, "x"], {"value": 1}])
def test_what_was_kept_and_cannot_be_read_counts_as_a_first_look(kept: object) -> None:
    assert counted(kept, 5, at_s=0.0, period=DAY).risen_by == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=300))
def test_quarters_of_an_hour_of_rises_are_kept_in_few_steps(rises: list[int]) -> None:
    count, value, at_s = counted(None, 0, at_s=0.0, period=DAY), 0, 0.0

    for rise in rises:
        value, at_s = value + rise, at_s + 900
        count = counted(count.kept, value, at_s=at_s, period=DAY)

    within_a_day = sum(rises[-95:])
    assert len(count.rises) <= 25
    assert sum(rises[-91:]) <= count.risen_by <= within_a_day
    assert timedelta(seconds=at_s - count.rises[0][0]) < DAY if count.rises else True
