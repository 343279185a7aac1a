"""Can the wall clock be believed? Small machines boot in 1970 and jump when the network comes.

While it cannot, nothing is started, nothing is judged and nothing is removed: a slot of 1970 is
no slot, and a clock that is a year behind its own records would make old backups look new.

Limits: a clock that is wrong and ahead looks like one that slept. What was recorded meanwhile
counts for nothing once the clock is right again (`opsd.state.State.void_future`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from opsd.clock import Clock
from opsd.model import Finding, Severity

log = structlog.get_logger()

CLOCK_IS_SET = datetime(2026, 1, 1, tzinfo=UTC)  # a clock that shows less was never set
STEP = timedelta(seconds=60)  # between two looks; less is drift
TOLERANCE = timedelta(minutes=10)  # behind the newest record; time servers correct that much
ACCEPTED_AFTER = timedelta(minutes=15)  # on the monotonic clock
TOLD_FOR = timedelta(days=1)  # likewise, after a clock was accepted that stays behind
CHECK, SUBJECT = "clock.behind", "host/clock"
_REMEDY = "timedatectl; set the clock, and see that a time server is reached"


@dataclass(frozen=True, slots=True)
class _Look:
    wall: datetime
    monotonic: float


class Timekeeper:
    """Compares the wall clock with the monotonic one and with what is on record.

    Used by one thread at a time.
    """

    def __init__(self, clock: Clock, *, newest: datetime | None) -> None:
        """Begin; `newest` is the time of the newest record, None when there is none."""
        self._clock = clock
        self._newest = newest
        self._last = self._look()
        self._held_since: float | None = None
        self._behind_of: datetime | None = None  # what an accepted clock was behind of
        #: It went back, or may have before this life: what is on record may lie in its future.
        self.may_have_been_ahead = True
        #: What is wrong with the clock; stays for `TOLD_FOR` when it was accepted.
        self.finding: Finding | None = None

    def is_sane(self) -> bool:
        """Look at both clocks; whether slots may be judged by the wall clock now."""
        look = self._look()
        self._tell_step(look)
        self._last = look
        behind = self._behind(look.wall)
        if behind is None:
            self._newest = look.wall
            self._forget(look)
            return True
        if self._held_since is None:
            self._held_since = look.monotonic
            log.warning("clock.behind", now=look.wall.isoformat(), of=behind.isoformat())
        if self._since_hold(look) >= ACCEPTED_AFTER:
            self._accept(look.wall, behind)
        return self._behind(look.wall) is None

    def _since_hold(self, look: _Look) -> timedelta:
        held_since = look.monotonic if self._held_since is None else self._held_since
        return timedelta(seconds=look.monotonic - held_since)

    def _forget(self, look: _Look) -> None:
        """The clock is right, or was accepted long ago."""
        is_right = self._behind_of is None or look.wall >= self._behind_of
        if is_right or self._since_hold(look) >= ACCEPTED_AFTER + TOLD_FOR:
            self._held_since = self._behind_of = self.finding = None

    def _look(self) -> _Look:
        return _Look(self._clock.now(), self._clock.monotonic())

    def _tell_step(self, look: _Look) -> None:
        passed = timedelta(seconds=look.monotonic - self._last.monotonic)
        step = look.wall - self._last.wall - passed
        if abs(step) > STEP:
            log.warning("clock.stepped", step_s=round(step.total_seconds(), 1))
        if step < -STEP:
            self.may_have_been_ahead = True

    def _behind(self, wall: datetime) -> datetime | None:
        """The time that the clock should have reached and has not."""
        if wall < CLOCK_IS_SET:
            return CLOCK_IS_SET
        if self._newest is not None and wall < self._newest - TOLERANCE:
            return self._newest
        return None

    def _accept(self, wall: datetime, behind: datetime) -> None:
        """Go on with this clock, unless it was never set, and say so."""
        if self.finding is None:
            does = "nothing is started" if wall < CLOCK_IS_SET else "it is believed from now on"
            self.finding = Finding(
                check=CHECK,
                subject=SUBJECT,
                severity=Severity.WARNING,
                summary=f"the clock is behind opsd's own records; {does}",
                remedy=_REMEDY,
                facts={"clock": wall.isoformat(), "record": behind.isoformat()},
            )
        if wall >= CLOCK_IS_SET:
            self._newest, self._behind_of = wall, behind
