"""Time as opsd sees it: a wall clock for names and records, a monotonic one for deadlines.

Small machines boot in 1970 and jump when the network comes up. A deadline must not move
with them, so it lives on the monotonic clock only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from opsd.errors import DeadlineExceeded


class Clock(Protocol):
    """Both clocks; tests hand in one that stands still."""

    def now(self) -> datetime:
        """Wall time, aware UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        """Wall time, aware UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some point that is fixed while the machine runs."""
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point on the monotonic clock after which work must not go on."""

    clock: Clock
    at: float  #: seconds on ``clock.monotonic()``

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(clock, clock.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, more than zero: the timeout for the next call that can block.

        Raises:
            DeadlineExceeded: no time is left.
        """
        seconds = self.at - self.clock.monotonic()
        if seconds <= 0:
            raise DeadlineExceeded("the run's deadline passed")
        return seconds
