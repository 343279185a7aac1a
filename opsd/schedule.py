"""What is due follows from what is on record, not from what a timer remembers. Pure.

A restart, a crash or a night without power changes nothing: the newest slot that has no
record is run if it is still worth it, the ones before it are recorded as missed. A slot that
is paused, that a maintenance window holds, or whose predecessor still runs, ends on record too.

Limits: no more than the newest `MOST_MISSED` slots are recorded one by one; the oldest of them
says how many came before it.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from opsd.cron import Cron
from opsd.incidents import Pause
from opsd.model import Outcome, Run
from opsd.retry import Patience, retry_due

MOST_MISSED = 100  # slots
MOST_COUNTED = 10_000  # slots before those; counting a year of minutes would take a minute
NOT_RUNNING = "opsd was not running"
OVERLAPS = "the run before it had not ended"

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A job that the daemon runs."""

    job: str
    cron: Cron
    timeout: timedelta
    catch_up: timedelta | None = None  #: how late a run is still worth it; None: until the next
    jitter: timedelta = timedelta(0)  #: a run starts up to this much later
    retries: int = 0  #: tries after the first

    @property
    def patience(self) -> Patience:
        """When its slots are tried again."""
        return Patience(cron=self.cron, retries=self.retries, catch_up=self.catch_up)

    def starts_at(self, slot: datetime) -> datetime:
        """When `slot` is to be run: the same whoever asks, and before the next slot."""
        following = self.cron.next_slot(slot)
        span_s = int(min(self.jitter, following - slot).total_seconds())
        if not span_s:
            return slot
        spread = zlib.crc32(f"{self.job} {slot.isoformat()}".encode())
        return slot + timedelta(seconds=spread % span_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A time that comes again, in which some jobs are not started."""

    name: str
    cron: Cron  #: when it begins
    duration: timedelta
    jobs: tuple[str, ...]  #: names or patterns with ``*`` and ``?``

    def end(self, job: str, at: datetime) -> datetime | None:
        """When the window around `at` ends, if it concerns `job`; None when there is none."""
        if not any(fnmatchcase(job, pattern) for pattern in self.jobs):
            return None
        end = self.cron.previous_slot(at) + self.duration
        return end if at < end else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is on record about one job."""

    last: datetime | None = None  #: its latest slot on record
    tries: Sequence[Run] = ()  #: recorded runs of that slot, oldest first
    under_way: frozenset[datetime] = frozenset()  #: slots that a process works on now
    is_leased: bool = False  #: some process holds the right to run it
    asked_at: datetime | None = None  #: a run that somebody asked for began then and completed
    was_held: str = ""  #: why the newest slot could not start earlier, if that is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A slot that ends without a run."""

    slot: datetime
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What must happen now for one job."""

    slot: datetime | None = None  #: run this
    closings: tuple[Closing, ...] = ()  #: record these first, oldest first
    waits: str = ""  #: why a slot that is due does not start yet


def due(
    scheduled: Scheduled,
    record: Record,
    *,
    now: datetime,
    pause: Pause | None = None,
    windows: Sequence[Window] = (),
) -> Due:
    """What `scheduled` asks for at `now`.

    A job that never ran is due at once, for the newest slot that has passed: the first
    backup does not wait for the night, and no number of restarts can put it off.

    Args:
        scheduled: the job.
        record: what is on record about it.
        now: aware UTC.
        pause: of the job, also one that has run out: slots of its time are explained by it.
        windows: all maintenance windows.
    """
    if record.asked_at is not None and record.asked_at > now:
        record = replace(record, asked_at=None)  # by a clock that was ahead
    newest = _newest(scheduled, now)
    reasons = _Reasons(scheduled.job, record, pause=pause, windows=windows)
    older: tuple[Closing, ...] = ()
    if record.last is not None and record.last >= newest:
        if not retry_due(record.tries, scheduled.patience, now=now):
            return Due()
        slot = record.last
    else:
        slot, older = newest, _older(scheduled.cron, record, newest, reasons)
    if slot in record.under_way:
        return Due(closings=older)
    if ending := reasons.ending(slot, scheduled, now=now):
        if record.last is None and ending.outcome is Outcome.MISSED:
            return Due()  # a job that never ran has missed nothing
        return Due(closings=(*older, ending))
    if waits := reasons.waits(now):
        return Due(closings=older, waits=waits)
    return Due(slot=slot, closings=older)


def _newest(scheduled: Scheduled, now: datetime) -> datetime:
    """The newest slot whose time to start has come."""
    newest = scheduled.cron.previous_slot(now)
    if now < scheduled.starts_at(newest):
        return scheduled.cron.previous_slot(newest - _SECOND)
    return newest


@dataclass(frozen=True, slots=True)
class _Reasons:
    """Why a slot of one job does not start now, or never."""

    job: str
    record: Record
    pause: Pause | None
    windows: Sequence[Window]

    def missed(self, slot: datetime) -> Closing:
        """How a slot ended that a newer one has overtaken."""
        if pause := self._paused(slot):
            return Closing(slot=slot, outcome=Outcome.SKIPPED, why=pause)
        if self.record.asked_at is not None and slot <= self.record.asked_at:
            why = "a run that somebody asked for has answered it"
            return Closing(slot=slot, outcome=Outcome.SKIPPED, why=why)
        if window := self._window(slot):
            return Closing(slot=slot, outcome=Outcome.SKIPPED, why=window)
        return Closing(slot=slot, outcome=Outcome.MISSED, why=self.record.was_held or NOT_RUNNING)

    def ending(self, slot: datetime, scheduled: Scheduled, *, now: datetime) -> Closing | None:
        """How the slot that is due ends without a run; None when it is to be run."""
        if pause := self._paused(now):
            return Closing(slot=slot, outcome=Outcome.SKIPPED, why=pause)
        asked_at, is_first = self.record.asked_at, slot != self.record.last
        if asked_at is not None and slot <= asked_at and is_first:
            return self.missed(slot)
        if self.record.under_way and is_first:
            return Closing(slot=slot, outcome=Outcome.SKIPPED, why=OVERLAPS)
        if scheduled.catch_up is not None and now - slot > scheduled.catch_up:
            why = self._window(slot) or self.record.was_held or NOT_RUNNING
            return Closing(slot=slot, outcome=Outcome.MISSED, why=why)
        return None

    def waits(self, now: datetime) -> str:
        """Why the slot that is due does not start now."""
        if self.record.under_way or self.record.is_leased:
            return "another process held the right to run it"
        return self._window(now)

    def _paused(self, at: datetime) -> str:
        if self.pause is None or not self.pause.since <= at < self.pause.until:
            return ""
        until = self.pause.until.isoformat(timespec="minutes")
        return f"paused until {until}: {self.pause.reason}"

    def _window(self, at: datetime) -> str:
        for window in self.windows:
            if window.end(self.job, at) is not None:
                return f"maintenance window {window.name}"
        return ""


def _older(cron: Cron, record: Record, newest: datetime, reasons: _Reasons) -> tuple[Closing, ...]:
    """The slots after the last on record and before `newest`, the oldest with the rest."""
    if record.last is None:
        return ()
    slots, dropped = _between(cron, record.last, newest)
    closings = [reasons.missed(slot) for slot in slots if slot not in record.under_way]
    if dropped and closings:
        first = closings[0]
        many = f"at least {dropped:,}" if dropped == MOST_COUNTED else f"{dropped:,}"
        why = f"{first.why}, nor for {many} slots before this one"
        closings[0] = Closing(slot=first.slot, outcome=first.outcome, why=why)
    return tuple(closings)


def _between(cron: Cron, last: datetime, newest: datetime) -> tuple[tuple[datetime, ...], int]:
    """The newest `MOST_MISSED` slots between two others, and how many came before them."""
    slots = list(itertools.islice(_backward(cron, last, newest), MOST_MISSED))
    slots.reverse()
    if len(slots) < MOST_MISSED:
        return tuple(slots), 0
    before = itertools.takewhile(lambda slot: slot < slots[0], cron.slots_after(last))
    return tuple(slots), sum(1 for _ in itertools.islice(before, MOST_COUNTED))


def _backward(cron: Cron, last: datetime, newest: datetime) -> Iterator[datetime]:
    slot = cron.previous_slot(newest - _SECOND)
    while slot > last:
        yield slot
        slot = cron.previous_slot(slot - _SECOND)
