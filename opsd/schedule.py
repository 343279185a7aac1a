"""What is due follows from what is on record, not from what a timer remembers.

A restart, a crash or a night without power changes nothing: the newest slot that has no
record is run if it is still worth it, the ones before it are recorded as missed.

Limits: slots are looked for up to `MOST_MISSED` back; a longer list helps nobody. The timer
only wakes the daemon; that it woke in time is checked by the daemon on a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from opsd.cron import Cron

MOST_MISSED = 100  # slots
CLOCK_IS_SET = datetime(2026, 1, 1, tzinfo=UTC)  # a clock that shows less was never set
FURTHEST_RECORD = timedelta(days=1)  # a record that far in the future was a wrong clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What must happen now for one job."""

    slot: datetime | None = None  #: run this
    missed: tuple[datetime, ...] = ()  #: too late for these, oldest first


def due(cron: Cron, *, last: datetime | None, now: datetime, catch_up: timedelta | None) -> Due:
    """What `cron` asks for at `now`. Pure.

    A job that never ran is due at once, for the newest slot that has passed: the first
    backup does not wait for the night, and no number of restarts can put it off.

    Args:
        cron: when the job is due.
        last: the latest slot that has a record.
        now: aware UTC.
        catch_up: how late a run is still worth it; None: until the next slot.
    """
    if now < CLOCK_IS_SET:
        return Due()
    newest = cron.previous_slot(now)
    if last is not None and last > now + FURTHEST_RECORD:
        last = None
    if last is not None and last >= newest:
        return Due()
    older = () if last is None else _between(cron, last, newest)
    if catch_up is not None and now - newest > catch_up:
        return Due(missed=(*older, newest) if last is not None else ())
    return Due(slot=newest, missed=older)


def _between(cron: Cron, last: datetime, newest: datetime) -> tuple[datetime, ...]:
    """The slots after `last` and before `newest`, at most the newest `MOST_MISSED`."""
    slots: list[datetime] = []
    slot = newest
    while len(slots) < MOST_MISSED:
        slot = cron.previous_slot(slot - timedelta(seconds=1))
        if slot <= last:
            break
        slots.append(slot)
    return tuple(reversed(slots))


class Timer:
    """Calls `tick` every so often in a thread of its own, never twice at once."""

    def __init__(self, tick: Callable[[], None], *, every: timedelta) -> None:
        """Prepare; nothing happens before `start`."""
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(max_workers=1)},
            # Its own default drops a call that is a second late.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_job(
            tick,
            IntervalTrigger(seconds=every.total_seconds(), timezone=UTC),
            next_run_time=datetime.now(UTC),
        )

    def start(self) -> None:
        """Begin, with a first call at once."""
        self._scheduler.start()

    def stop(self) -> None:
        """No further call; one that is under way is not waited for."""
        self._scheduler.shutdown(wait=False)
