"""The daemon: cron that knows what it did, and says what it did not.

Every few seconds it compares what is due with what is on record, starts a child process for
each run, writes down what was missed or could not start, and has waiting messages sent. It
ends within 25 seconds of SIGTERM: children clean up and their runs are recorded.

Limits: it holds no work of its own, so killing it loses nothing; one daemon per state. Runs
that are due together run together.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import FrameType
from typing import Protocol

import structlog

from opsd.clock import Clock
from opsd.cron import Cron
from opsd.errors import OpsdError
from opsd.executors.ledger import Ledger
from opsd.executors.process import Ended
from opsd.model import Outcome
from opsd.schedule import CLOCK_IS_SET, Timer, due
from opsd.secrets import describe
from opsd.state import State, Tell

log = structlog.get_logger()

TICK = timedelta(seconds=10)
LATE_TICKS = 3  # the timer is taken for dead after so many of its periods
STOP_TIMEOUT_S = 25.0
_DELIVERY = ""  # its place among the names of jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A job that the daemon runs."""

    job: str
    cron: Cron
    timeout: timedelta
    catch_up: timedelta | None = None  #: how late a run is still worth it; None: until the next
    jitter: timedelta = timedelta(0)  #: a run starts up to this much later
    retries: int = 0  #: tries after the first


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
    ) -> None:
        """Prepare; `run` starts."""
        self._jobs = tuple(jobs)
        self._state = state
        self._ledger = Ledger(state=state, tell=tell, clock=clock)
        self._launcher = launcher
        self._clock = clock
        self._stop = threading.Event()
        self._ticking = threading.Lock()
        self._ticked_at = clock.monotonic()
        self._threads: dict[str, threading.Thread] = {}
        self._answered: dict[str, datetime] = {}  # the latest slot dealt with in this life

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Only in the main thread.

        Raises:
            TransientError, PermanentError: the state cannot be used at the start.
        """
        with _stop_signals() as told_to_stop:
            for scheduled in self._jobs:
                self._ledger.settle(scheduled.job)
            timer = Timer(self.tick, every=TICK)
            timer.start()
            log.info("daemon.started", jobs=[scheduled.job for scheduled in self._jobs])
            while not told_to_stop(TICK.total_seconds()):
                self.supervise()
            timer.stop()
            self.stop()

    def tick(self) -> None:
        """Start what is due and record what is not to be started. Never twice at once."""
        if not self._ticking.acquire(blocking=False):
            return
        try:
            if self._clock.now() < CLOCK_IS_SET:
                log.warning("clock.unset", now=self._clock.now().isoformat())
            for scheduled in self._jobs:
                with _told("schedule.failed", job=scheduled.job):
                    self._consider(scheduled)
            with _told("delivery.failed"):
                self._consider_delivery()
            self._ticked_at = self._clock.monotonic()
        finally:
            self._ticking.release()

    def supervise(self) -> None:
        """Tick in the timer's stead when it is late: a clock that went back stops it."""
        late_s = self._clock.monotonic() - self._ticked_at
        if late_s > LATE_TICKS * TICK.total_seconds():
            log.warning("timer.late", late_s=round(late_s, 1))
            self.tick()

    def stop(self) -> None:
        """End all children and wait for them, at most `STOP_TIMEOUT_S` seconds."""
        self._stop.set()
        until = self._clock.monotonic() + STOP_TIMEOUT_S
        for thread in tuple(self._threads.values()):
            thread.join(max(0.0, until - self._clock.monotonic()))
        left = [name or "delivery" for name in self._threads if self._is_busy(name)]
        log.info("daemon.stopped", left_behind=left)

    def wait(self) -> None:
        """Wait until nothing runs any more."""
        for thread in tuple(self._threads.values()):
            thread.join()

    def _consider(self, scheduled: Scheduled) -> None:
        job = scheduled.job
        # What this life dealt with counts most: a record may carry the time of a wrong clock.
        last = self._answered.get(job) or self._state.last_slot(job)
        now = self._clock.now()
        wanted = due(scheduled.cron, last=last, now=now, catch_up=scheduled.catch_up)
        for slot in wanted.missed:
            self._ledger.record(job, slot, Outcome.MISSED, error="opsd was not running")
            self._answered[job] = slot
        if wanted.slot is None:
            return
        if self._is_busy(job):
            why = "the run before it had not ended"
            self._ledger.record(job, wanted.slot, Outcome.SKIPPED, error=why)
        else:
            self._start(job, functools.partial(self._run_job, scheduled, wanted.slot))
        self._answered[job] = wanted.slot

    def _run_job(self, scheduled: Scheduled, slot: datetime) -> None:
        with _told("run.lost", job=scheduled.job):
            try:
                ended = self._launcher.run_job(
                    scheduled.job, slot=slot, timeout=scheduled.timeout, stop=self._stop
                )
            except OpsdError as exc:
                self._ledger.record(scheduled.job, slot, Outcome.FAILED, error=describe(exc))
            else:
                self._ledger.account(scheduled.job, slot, ended)

    def _consider_delivery(self) -> None:
        waits = self._state.due_messages(self._clock.now(), limit=1)
        if waits and not self._is_busy(_DELIVERY):
            self._start(_DELIVERY, self._deliver)

    def _deliver(self) -> None:
        with _told("delivery.failed"):
            ended = self._launcher.deliver(stop=self._stop)
            if ended.status:
                log.warning("delivery.failed", status=ended.status, ending=ended.ending.value)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name or "delivery", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _is_busy(self, name: str) -> bool:
        thread = self._threads.get(name)
        return thread is not None and thread.is_alive()


@contextlib.contextmanager
def _told(event: str, **about: str) -> Iterator[None]:
    """Log an error of the state and go on: the next tick tries again."""
    try:
        yield
    except OpsdError as exc:
        log.warning(event, error=describe(exc), **about)


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[float], bool]]:
    """A function that waits for SIGTERM or SIGINT so many seconds and says whether it came."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def handle(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b"x")

    def told(timeout_s: float) -> bool:
        return bool(select.select([reading], [], [], timeout_s)[0])

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
