"""Every slot ends on record, also when the child that should have run it could not say so.

A child records its own run. What is left is written here: runs whose process died, children
that never began, slots that were missed or skipped. Whoever writes, a slot is answered once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import structlog

from opsd.clock import Clock
from opsd.errors import LeaseHeld
from opsd.executors.inline import record_unfinished
from opsd.executors.pinging import NoPings, Pings
from opsd.executors.process import Ended, Ending
from opsd.model import Finding, Outcome, Run
from opsd.retry import Patience, next_attempt, with_retry
from opsd.state import State, Tell

log = structlog.get_logger()

LEASE_HELD_STATUS = 75  # of `opsd run-job`: another run is under way, or has answered the slot

_OUTCOMES = {
    Ending.BY_ITSELF: Outcome.INTERRUPTED,
    Ending.OVERSTAYED: Outcome.TIMED_OUT,
    Ending.STOPPED: Outcome.INTERRUPTED,
}


class Ledger:
    """Writes down how slots ended. Safe for several threads.

    Every method raises TransientError or PermanentError when the state refuses.
    """

    def __init__(
        self,
        *,
        state: State,
        tell: Tell,
        clock: Clock,
        patience: Mapping[str, Patience],
        pings: Pings = NoPings(),  # noqa: B008 - has no state
    ) -> None:
        """Prepare; `patience` says by job when a slot is tried again."""
        self._state = state
        self._tell = tell
        self._clock = clock
        self._patience = patience
        self._pings = pings

    def reconcile(self, *, but: Sequence[str] = ()) -> None:
        """Record every run whose process died, also of jobs that are not configured any more.

        Args:
            but: jobs that are left alone, because their children are accounted for otherwise.
        """
        for job in {job for job, *_ in self._state.running()} - set(but):
            if self._state.holder(job) is None:
                self.settle(job)

    def settle(self, job: str, *, outcome: Outcome = Outcome.INTERRUPTED, error: str = "") -> None:
        """Record the unfinished runs of `job`, unless somebody runs it right now."""
        try:
            with self._state.lease(job, "ledger"):
                self._record_unfinished(job, outcome=outcome, error=error)
        except LeaseHeld:
            log.info("lease.denied", job=job)

    def account(self, job: str, slot: datetime, ended: Ended, *, tries: int) -> None:
        """Make sure that the try of a child that is over is on record.

        Args:
            job: its name.
            slot: what the child should have answered.
            ended: how it ended.
            tries: recorded runs of the slot when the child was started.
        """
        error = "" if ended.ending is Ending.BY_ITSELF else ended.ending.value
        if ended.status is None:
            # It may hold its lease as long as the kernel holds it: nobody else can record it.
            # Runs of other slots are not its own, and may be alive.
            error = f"{error} and cannot be killed"
            self._record_unfinished(job, outcome=_OUTCOMES[ended.ending], error=error, slot=slot)
        else:
            self.settle(job, outcome=_OUTCOMES[ended.ending], error=error)
        is_recorded = len(self._state.slot_runs(job, slot)) > tries
        # Whoever held the lease, the next tick sees what is left to do.
        if not is_recorded and ended.status != LEASE_HELD_STATUS:
            how = error or f"it ended with status {ended.status}"
            self.fail(
                job,
                slot,
                error=f"{how} before the run began; the log says why",
                may_pass=ended.status is not None and ended.status < 0,
            )

    def fail(self, job: str, slot: datetime, *, error: str, may_pass: bool) -> None:
        """Record a try of a slot that came to nothing."""
        run = self._run(job, slot, Outcome.FAILED, error=error, may_pass=may_pass)
        self._close(with_retry(run, self._patience.get(job), at=self._clock.now()))

    def close(
        self,
        job: str,
        slot: datetime,
        outcome: Outcome,
        *,
        error: str,
        findings: tuple[Finding, ...] = (),
    ) -> None:
        """Record a slot that no run answers."""
        self._close(self._run(job, slot, outcome, error=error, findings=findings))

    def _run(
        self,
        job: str,
        slot: datetime,
        outcome: Outcome,
        *,
        error: str,
        findings: tuple[Finding, ...] = (),
        may_pass: bool = False,
    ) -> Run:
        return Run(
            job=job,
            run_id=secrets.token_hex(6),
            slot=slot,
            started_at=self._clock.now(),
            duration=timedelta(0),
            outcome=outcome,
            findings=findings,
            error=error,
            attempt=next_attempt(self._state.slot_runs(job, slot)),
            may_pass=may_pass,
        )

    def _close(self, run: Run) -> None:
        if self._state.close_slot(run, tell=self._tell):
            log.info(
                "slot.recorded",
                job=run.job,
                slot=run.slot.isoformat(),
                outcome=run.outcome.value,
                error=run.error,
            )
            self._pings.ended(run)

    def _record_unfinished(
        self, job: str, *, outcome: Outcome, error: str, slot: datetime | None = None
    ) -> None:
        record_unfinished(
            job,
            state=self._state,
            tell=self._tell,
            at=self._clock.now(),
            patience=self._patience.get(job),
            pings=self._pings,
            outcome=outcome,
            error=error,
            slot=slot,
        )
