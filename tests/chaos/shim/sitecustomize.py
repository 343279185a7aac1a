"""Let a test move the wall clock of every opsd process, and tell it how often it ticks.

Python loads this by itself where its folder is on PYTHONPATH. ``CHAOS_CLOCK`` names a file
that says by how many seconds the wall clock is ahead; it is read at every look at the clock,
also by processes that run already. ``CHAOS_TICK_S`` is the time between two ticks.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import opsd.clock
import opsd.daemon

AHEAD_S = Path(os.environ["CHAOS_CLOCK"])


def now(self: opsd.clock.SystemClock) -> datetime:  # noqa: ARG001 - a method
    """The time of the machine, and what the test adds to it."""
    return datetime.now(UTC) + timedelta(seconds=float(AHEAD_S.read_text()))


opsd.clock.SystemClock.now = now  # type: ignore[method-assign]
opsd.daemon.TICK = timedelta(seconds=float(os.environ["CHAOS_TICK_S"]))
