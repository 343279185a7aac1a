"""What is to be started, recorded and told now, and the doing of it.

Everything is looked up in the ledger each time, so a restart, a second daemon or a person who
runs jobs by hand changes nothing: each slot is answered once, and what could not be recorded
now is found again by the next look.

Limits: runs that are due together run together.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from opsd.clock import Clock
from opsd.daemon.crew import Crew
from opsd.daemon.resilience import KeepGoing
from opsd.errors import OpsdError
from opsd.executors.ledger import Ledger
from opsd.executors.process import OVERSTAY, Ended
from opsd.incidents import Pause
from opsd.model import Finding, Outcome, Run, Severity
from opsd.schedule import OVERLAPS, Closing, Due, Record, Scheduled, Window, due
from opsd.secrets import describe
from opsd.state import State

log = structlog.get_logger()

GRACE = timedelta(minutes=2)  # for ending a child that overstays, and for recording it
RECORD_AGAIN_S = 10.0  # when the state refuses to record how a child ended
MANY_OVERLAPS = 3  # in a row


class Launcher(Protocol):
    """Starts children; fulfilled by `opsd.executors.process.Children`."""

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        """Run one job and wait."""
        ...

    def deliver(self, *, stop: threading.Event) -> Ended:
        """Send waiting messages and wait."""
        ...


class Scheduler:
    """Looks at every job. Used by one thread at a time."""

    def __init__(
        self,
        jobs: Sequence[Scheduled],
        *,
        windows: Sequence[Window],
        state: State,
        ledger: Ledger,
        launcher: Launcher,
        crew: Crew,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        """Prepare; `stop` ends the children."""
        self.jobs = tuple(jobs)
        self._windows = tuple(windows)
        self._state = state
        self._ledger = ledger
        self._launcher = launcher
        self._crew = crew
        self._clock = clock
        self._stop = stop
        self._waits: dict[str, str] = {}  # why the newest slot of a job could not start
        self._newest: dict[str, datetime] = {}  # by job: the newest slot that this life saw to

    def consider_all(self) -> None:
        """Start what is due and record what is not to be started."""
        with KeepGoing("ledger.failed"):
            self._ledger.reconcile(but=self._crew.busy())
        pauses: dict[str, Pause] = {}
        with KeepGoing("schedule.failed"):
            pauses = {pause.job: pause for pause in self._state.pauses()}
        for scheduled in self.jobs:
            with KeepGoing("schedule.failed", job=scheduled.job):
                self._consider(scheduled, pauses.get(scheduled.job))

    def hold(self, why: str) -> None:
        """Nothing may start now; slots that pass meanwhile are explained by `why`."""
        self._waits = dict.fromkeys((scheduled.job for scheduled in self.jobs), why)

    def results(self) -> tuple[Run, ...]:
        """By job, the last record of the newest slot that this life ran or closed."""
        of_slots = (self._state.slot_runs(job, slot) for job, slot in self._newest.items())
        return tuple(runs[-1] for runs in of_slots if runs)

    def next_retry(self, *, after: datetime) -> datetime | None:
        """When the first of them is tried again, later than `after`; None when none is."""
        times = [run.retry_at for run in self.results() if run.retry_at is not None]
        return min((time for time in times if time > after), default=None)

    def _consider(self, scheduled: Scheduled, pause: Pause | None) -> None:
        job, now = scheduled.job, self._clock.now()
        last = self._state.last_slot(job, at=now)
        tries = () if last is None else self._state.slot_runs(job, last)
        open_runs = self._state.unfinished_runs(job)
        if self._crew.is_busy(job) and not open_runs:
            return  # its child has not begun, or its end is being recorded
        record = Record(
            last=last,
            tries=tries,
            under_way=frozenset(run.slot for run in open_runs),
            is_leased=self._state.holder(job) is not None,
            asked_at=self._asked_at(job),
            was_held=self._waits.get(job, ""),
        )
        wanted = due(scheduled, record, now=now, pause=pause, windows=self._windows)
        self._carry_out(scheduled, wanted)

    def _carry_out(self, scheduled: Scheduled, wanted: Due) -> None:
        job = scheduled.job
        for closing in wanted.closings:
            self._close(job, closing)
        if wanted.waits and wanted.waits != self._waits.get(job):
            log.info("slot.held", job=job, why=wanted.waits)
        self._waits[job] = wanted.waits
        if wanted.slot is not None and not self._crew.is_busy(job):
            tries = len(self._state.slot_runs(job, wanted.slot))
            work = functools.partial(self._run, scheduled, wanted.slot, tries=tries)
            self._newest[job] = wanted.slot
            self._crew.start(job, work, within_s=_seconds(scheduled.timeout + OVERSTAY + GRACE))

    def _close(self, job: str, closing: Closing) -> None:
        self._newest[job] = closing.slot
        findings = self._overlaps(job) if closing.why == OVERLAPS else ()
        self._ledger.close(
            job, closing.slot, closing.outcome, error=closing.why, findings=findings
        )

    def _overlaps(self, job: str) -> tuple[Finding, ...]:
        """A finding, when this job skips slots again and again."""
        before = self._state.runs(job=job, limit=MANY_OVERLAPS - 1)
        if len(before) < MANY_OVERLAPS - 1 or not all(map(_is_overlap, before)):
            return ()
        return (
            Finding(
                check="job.overlaps",
                subject=f"job/{job}",
                severity=Severity.WARNING,
                summary=f"{job} runs longer than the time between two of its slots",
                remedy=f"set jobs.{job}.schedule to fewer times, or find what slows it: "
                f"opsd history --job {job}",
                facts={"skipped_in_a_row": f"at least {MANY_OVERLAPS}"},
            ),
        )

    def _asked_at(self, job: str) -> datetime | None:
        for run in self._state.runs(job=job, limit=1):
            if run.attempt == 0 and run.outcome is Outcome.COMPLETED:
                return run.started_at
        return None

    def _run(self, scheduled: Scheduled, slot: datetime, *, tries: int) -> None:
        """Have a child run the slot, and see that its end is recorded, however long it takes."""
        job = scheduled.job
        try:
            ended = self._launcher.run_job(
                job, slot=slot, timeout=scheduled.timeout, stop=self._stop
            )
        except Exception as exc:
            if not isinstance(exc, OpsdError):
                log.exception("run.crashed", job=job)
            may_pass, error = isinstance(exc, OpsdError), describe(exc)
            record = functools.partial(
                self._ledger.fail, job, slot, error=error, may_pass=may_pass
            )
        else:
            record = functools.partial(self._ledger.account, job, slot, ended, tries=tries)
        is_over = False
        while not is_over:
            with KeepGoing("run.lost", job=job):
                record()
                return
            is_over = self._stop.wait(RECORD_AGAIN_S)  # the next life finds it


def _is_overlap(run: Run) -> bool:
    return run.outcome is Outcome.SKIPPED and run.error == OVERLAPS


def _seconds(span: timedelta) -> float:
    return span.total_seconds()
