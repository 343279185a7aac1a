from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded
from opsd.testing import FakeClock


def test_a_deadline_tells_what_is_left_until_nothing_is() -> None:
    clock = FakeClock()
    deadline = Deadline.after(10, clock)

    at_first = deadline.remaining()
    clock.ticks_s += 9.75
    near_the_end = deadline.remaining()
    clock.ticks_s += 0.25

    assert (at_first, near_the_end) == (10, 0.25)
    with pytest.raises(DeadlineExceeded):
        deadline.remaining()


def test_a_deadline_does_not_move_with_the_wall_clock() -> None:
    clock = FakeClock()
    deadline = Deadline.after(10, clock)

    clock.wall += timedelta(days=365)

    assert deadline.remaining() == 10


def test_the_machines_wall_clock_is_in_utc_and_its_other_clock_never_steps_back() -> None:
    clock = SystemClock()

    first = clock.monotonic()

    assert clock.now().tzinfo is UTC
    assert clock.monotonic() >= first
