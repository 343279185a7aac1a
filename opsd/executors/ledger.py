"""Every slot ends on record, also when the child that should have run it could not say so.

A child records its own run. What is left is written here: runs whose process died, children
that never began, slots that were missed or found another run under way.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import structlog

from opsd.clock import Clock
from opsd.errors import LeaseHeld
from opsd.executors.inline import record_unfinished
from opsd.executors.process import Ended, Ending
from opsd.model import Outcome, Run
from opsd.state import State, Tell

log = structlog.get_logger()

LEASE_HELD_STATUS = 75  # of `opsd run-job`: another run of the job is under way
_RUNS_LOOKED_AT = 50  # newest runs of a job among which that of a slot is looked for

_OUTCOMES = {
    Ending.BY_ITSELF: Outcome.INTERRUPTED,
    Ending.OVERSTAYED: Outcome.TIMED_OUT,
    Ending.STOPPED: Outcome.INTERRUPTED,
}


class Ledger:
    """Writes down how slots ended. Safe for several threads.

    Every method raises TransientError or PermanentError when the state refuses.
    """

    def __init__(self, *, state: State, tell: Tell, clock: Clock) -> None:
        self._state = state
        self._tell = tell
        self._clock = clock

    def settle(self, job: str, *, outcome: Outcome = Outcome.INTERRUPTED, error: str = "") -> None:
        """Record the unfinished runs of `job`, unless somebody runs it right now."""
        try:
            with self._state.lease(job, "ledger"):
                record_unfinished(
                    job, state=self._state, tell=self._tell, outcome=outcome, error=error
                )
        except LeaseHeld:
            log.info("lease.denied", job=job)

    def account(self, job: str, slot: datetime, ended: Ended) -> None:
        """Make sure that the slot of a child that is over is on record."""
        error = "" if ended.ending is Ending.BY_ITSELF else ended.ending.value
        if ended.status is None:
            # It holds its lease as long as the kernel holds it: nobody else can record it.
            record_unfinished(
                job,
                state=self._state,
                tell=self._tell,
                outcome=_OUTCOMES[ended.ending],
                error=f"{error} and cannot be killed",
            )
        else:
            self.settle(job, outcome=_OUTCOMES[ended.ending], error=error)
        if self._is_recorded(job, slot):
            return
        if ended.status == LEASE_HELD_STATUS:
            self.record(job, slot, Outcome.SKIPPED, error="another run was under way")
        else:
            how = error or f"it ended with status {ended.status}"
            self.record(
                job, slot, Outcome.FAILED, error=f"{how} before the run began; the log says why"
            )

    def record(self, job: str, slot: datetime, outcome: Outcome, *, error: str) -> None:
        """Record a slot that no run answered."""
        run = Run(
            job=job,
            run_id=secrets.token_hex(6),
            slot=slot,
            started_at=self._clock.now(),
            duration=timedelta(0),
            outcome=outcome,
            error=error,
        )
        log.info(
            "slot.recorded", job=job, slot=slot.isoformat(), outcome=outcome.value, error=error
        )
        self._state.record(run, tell=self._tell)

    def _is_recorded(self, job: str, slot: datetime) -> bool:
        runs = self._state.runs(job=job, limit=_RUNS_LOOKED_AT)
        return any(run.slot == slot for run in runs)
