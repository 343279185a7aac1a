"""Wake the daemon every few seconds. Nothing else: what is due, the ledger says.

Limits: that it woke in time is checked by the daemon, on a monotonic clock; the scheduler
behind it counts wall time and stands still while the clock goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger


class Timer:
    """Calls `tick` every so often in a thread of its own, never twice at once."""

    def __init__(self, tick: Callable[[], object], *, every: timedelta) -> None:
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
