"""The daemon: cron that knows what it did, and says what it did not.

Every few seconds it compares what is due with what is on record, starts a child process for
each run, writes down what was missed or could not start, and has waiting messages sent. It
ends within 25 seconds of SIGTERM: children clean up and their runs are recorded.

Limits: it holds no work of its own, so killing it loses nothing. Two of them on one state do
each slot once, but gain nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from opsd.clients.groups import reap_orphans
from opsd.clock import Clock
from opsd.daemon.crew import Crew
from opsd.daemon.resilience import KeepGoing
from opsd.daemon.scheduler import Launcher, Scheduler
from opsd.daemon.signals import ToldToStop
from opsd.daemon.timekeeping import SUBJECT as CLOCK_SUBJECT
from opsd.daemon.timekeeping import Timekeeper
from opsd.errors import LeaseHeld
from opsd.executors.ledger import Ledger
from opsd.executors.pinging import NoPings, Pings
from opsd.executors.process import DELIVERY_TIMEOUT
from opsd.model import VOID, Finding, Run, Severity
from opsd.schedule import Scheduled, Window
from opsd.state import DAEMON, State, Tell
from opsd.timer import Timer
from opsd.triage import OWN

__all__ = ["LATE_TICKS", "TICK", "Daemon", "Launcher", "Scheduled", "Window"]

log = structlog.get_logger()

TICK = timedelta(seconds=10)
LATE_TICKS = 3  # the timer is taken for dead after so many of its periods
STOP_TIMEOUT_S = 25.0
LAST_LOOK_S = 5.0
CLOCK_IS_WRONG = "the clock was wrong"
_NEWEST_RUNS = 250  # among which one is looked for that no wrong clock has recorded
_DELIVERY = "delivery"  # its place among the names of jobs
_LOOK_S = 0.2  # how soon the end of the last run is noticed
_DELIVERY_S = DELIVERY_TIMEOUT.total_seconds() + 60.0


class Pulse(Protocol):
    """Says from time to time that opsd is well; fulfilled by `opsd.alerts.heartbeat.Heartbeat`."""

    def beat_if_due(self, *, ticked_at: float, overdue: Sequence[str] = ()) -> None:
        """Beat if it is time to; returns at once, never raises."""
        ...


class Daemon:
    """Runs what is due until it is told to stop."""

    def __init__(
        self,
        jobs: Sequence[Scheduled],
        *,
        state: State,
        launcher: Launcher,
        tell: Tell,
        clock: Clock,
        windows: Sequence[Window] = (),
        report: Callable[[datetime], object] | None = None,
        pulse: Pulse | None = None,
        pings: Pings = NoPings(),  # noqa: B008 - has no state
    ) -> None:
        """Prepare; `run` starts.

        Args:
            jobs: what is run when.
            state: what is on record.
            launcher: starts the children.
            tell: what people are told.
            clock: both clocks.
            windows: when which jobs are not started.
            report: sends the regular report when it is due.
            pulse: proves to somebody outside that opsd is well.
            pings: who is told besides how slots ended that no run answered.

        Raises:
            TransientError, PermanentError: the state cannot be used.
        """
        self._state = state
        self._tell = tell
        self._launcher = launcher
        self._clock = clock
        self._report = report
        self._pulse = pulse
        self._stop = threading.Event()
        self._is_shown = False  # that it lives
        self._ticking = threading.Lock()
        self._ticked_at = clock.monotonic()
        self._crew = Crew(clock)
        self._timekeeper = Timekeeper(clock, newest=_newest(state.runs(limit=_NEWEST_RUNS)))
        # Findings about opsd itself; None: those of the life before are not looked at yet.
        self._observed: frozenset[tuple[str, str]] | None = None
        patience = {scheduled.job: scheduled.patience for scheduled in jobs}
        self._scheduler = Scheduler(
            jobs,
            windows=windows,
            state=state,
            ledger=Ledger(state=state, tell=tell, clock=clock, patience=patience, pings=pings),
            launcher=launcher,
            crew=self._crew,
            clock=clock,
            stop=self._stop,
        )

    def run(self, told_to_stop: ToldToStop) -> None:
        """Work until `told_to_stop`, which waits; see `opsd.daemon.signals.stop_signals`."""
        with contextlib.ExitStack() as presence:
            self._show(presence)
            timer = self._started_timer()
            log.info("daemon.started", jobs=[scheduled.job for scheduled in self._scheduler.jobs])
            while not told_to_stop(TICK.total_seconds()):
                self._show(presence)
                if self.supervise():
                    timer.stop()
                    timer = self._started_timer()
            timer.stop()
            self.stop()

    def run_once(self, told_to_stop: ToldToStop) -> tuple[Run, ...]:
        """Run what is due now, with the tries that belong to it; how the slots ended.

        Ends early when told to stop.
        """
        is_told = False
        while not is_told:
            looked_at = self._clock.now()
            self.tick()
            self._await_crew(told_to_stop)
            retry_at = self._scheduler.next_retry(after=looked_at)
            if retry_at is None:
                break
            is_told = told_to_stop(max(0.0, (retry_at - self._clock.now()).total_seconds()))
        with KeepGoing("delivery.failed"):
            self._consider_delivery()
        self._await_crew(told_to_stop)
        self.stop()
        return self._scheduler.results()

    def tick(self) -> bool:
        """Look at everything once. Never twice at once; whether this call did."""
        if not self._ticking.acquire(blocking=False):
            return False
        try:
            if self._timekeeper.is_sane():
                with KeepGoing("ledger.failed"):
                    self._void_future()
                self._scheduler.consider_all()
                self._tell_people()
            else:
                self._scheduler.hold(CLOCK_IS_WRONG)
            with KeepGoing("alerts.failed"):
                self._observe_itself()
            with KeepGoing("delivery.failed"):
                self._consider_delivery()
            self._ticked_at = self._clock.monotonic()
        finally:
            self._ticking.release()
        return True

    def tick_age_s(self) -> float:
        """Seconds since everything was last looked at."""
        return self._clock.monotonic() - self._ticked_at

    def overdue(self) -> tuple[str, ...]:
        """What should have ended long ago."""
        return self._crew.overdue()

    def supervise(self) -> bool:
        """Look after what must not fail; whether the timer did and has to be made anew.

        A clock that went back stops the timer, and so would a bug in its scheduler.
        """
        reap_orphans()
        late_s = self.tick_age_s()
        is_late = late_s > LATE_TICKS * TICK.total_seconds()
        if is_late:
            log.warning("timer.late", late_s=round(late_s, 1))
            is_late = self.tick()
        if self._pulse is not None:
            self._pulse.beat_if_due(ticked_at=self._ticked_at, overdue=self.overdue())
        return is_late

    def stop(self) -> None:
        """End all children and wait for them, at most `STOP_TIMEOUT_S` seconds."""
        self._stop.set()
        until = self._clock.monotonic() + STOP_TIMEOUT_S
        # Kept: a look that is under way ends before the state is closed, and no other begins.
        self._ticking.acquire(timeout=LAST_LOOK_S)
        self._crew.join(until - self._clock.monotonic())
        log.info("daemon.stopped", left_behind=self._crew.busy())

    def wait(self) -> None:
        """Wait until nothing runs any more."""
        self._crew.join()

    def _show(self, presence: contextlib.ExitStack) -> None:
        """Hold the lease by which `opsd status` sees a daemon; of two, one does."""
        if self._is_shown:
            return
        with KeepGoing("presence.failed"), contextlib.suppress(LeaseHeld):
            presence.enter_context(self._state.lease(DAEMON, "daemon"))
            self._is_shown = True

    def _await_crew(self, told_to_stop: ToldToStop) -> None:
        while self._crew.busy() and not told_to_stop(_LOOK_S):
            reap_orphans()

    def _started_timer(self) -> Timer:
        timer = Timer(self.tick, every=TICK)
        timer.start()
        return timer

    def _tell_people(self) -> None:
        if self._report is not None:
            with KeepGoing("report.failed"):
                self._report(self._clock.now())
        with KeepGoing("alerts.failed"):
            self._state.tell(self._tell)

    def _void_future(self) -> None:
        """Take what a clock that was ahead has recorded for what it is, before its time comes."""
        if self._timekeeper.may_have_been_ahead:
            if voided := self._state.void_future(at=self._clock.now()):
                log.warning("slots.voided", slots=voided)
            self._timekeeper.may_have_been_ahead = False

    def _observe_itself(self) -> None:
        """Tell what is wrong with the clock, and which runs do not end."""
        findings = [_overdue(job) for job in self.overdue() if job != _DELIVERY]
        if self._timekeeper.finding is not None:
            findings.append(self._timekeeper.finding)
        found = frozenset(finding.key for finding in findings)
        if found == self._observed:
            return
        jobs = (f"job/{scheduled.job}" for scheduled in self._scheduler.jobs)
        self._state.observe(OWN, findings=findings, seen=(CLOCK_SUBJECT, *jobs), tell=self._tell)
        self._observed = found

    def _consider_delivery(self) -> None:
        waits = self._state.due_messages(self._clock.now(), limit=1)
        if waits and not self._crew.is_busy(_DELIVERY):
            self._crew.start(_DELIVERY, self._deliver, within_s=_DELIVERY_S)

    def _deliver(self) -> None:
        with KeepGoing("delivery.failed"):
            ended = self._launcher.deliver(stop=self._stop)
            if ended.status:
                log.warning("delivery.failed", status=ended.status, ending=ended.ending.value)


def _overdue(job: str) -> Finding:
    return Finding(
        check="job.overdue",
        subject=f"job/{job}",
        severity=Severity.CRITICAL,
        summary=f"a run of {job} neither ends nor can be ended",
        remedy="is a file server down? umount -l what hangs, or restart the machine",
    )


def _newest(runs: Sequence[Run]) -> datetime | None:
    """When the newest of them began that no wrong clock has recorded."""
    return next((run.started_at for run in runs if run.attempt != VOID), None)
