"""Run a job here and now: the one road that the command line and the daemon share.

Under the job's lease: runs that died before are recorded as interrupted, this one is
written down before it starts and after it ends. SIGTERM and Ctrl-C end the run within
`INTERRUPT_GRACE_S` seconds and it is recorded as interrupted.

Limits: signals are only caught in the main thread of the process.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import FrameType
from typing import NoReturn, Protocol

from structlog.contextvars import bound_contextvars

from opsd import runner
from opsd.clients.groups import kill_all
from opsd.clock import Clock, Deadline
from opsd.errors import OpsdError
from opsd.executors.pinging import NoPings, Pings
from opsd.executors.watchdog import Watchdog
from opsd.job import AnyJob, Context
from opsd.model import Outcome, Run
from opsd.retry import Patience, next_attempt, with_earlier_findings, with_retry
from opsd.state import State, Tell

OVERSTAY = timedelta(seconds=30)  # past the deadline, for cleaning up, before the watchdog bites
INTERRUPT_GRACE_S = 15.0


class ContextFactory(Protocol):
    """Makes what a run may touch; it must not take long and must not reach out."""

    def __call__(
        self,
        *,
        job: str,
        run_id: str,
        slot: datetime,
        deadline: Deadline,
        dead_runs: frozenset[str],
        dry_run: bool,
    ) -> Context:
        """The context of one run."""
        ...


def run_now(
    job: AnyJob,
    settings: object,
    *,
    slot: datetime,
    timeout: timedelta,
    state: State,
    clock: Clock,
    context: ContextFactory,
    tell: Tell,
    patience: Patience | None = None,
    is_scheduled: bool = False,
    pings: Pings = NoPings(),  # noqa: B008 - has no state
    last_words: Callable[[Run], None] | None = None,
    dry_run: bool = False,
) -> Run:
    """Run `job` once, from its lease to its record. A dry run is not recorded.

    A run that `is_scheduled` answers a due slot, which is tried again as `patience` says; the
    others were asked for. `pings` hears of the end after the lease is let go. `last_words` is
    called instead of a return, from another thread, when the run hangs for good: it is
    recorded by then, and the process ends as soon as the call is over.

    Raises:
        LeaseHeld: another run of the job is under way; nothing was begun.
        SlotAnswered: another run answered the slot meanwhile; nothing was begun.
        ConfigError: the context could not be made; nothing was begun.
        TransientError, PermanentError: the state refused; the text says whether the run
            happened.
    """
    run_id = secrets.token_hex(6)
    with (
        contextlib.ExitStack() as afterwards,
        state.lease(job.name, run_id),
        bound_contextvars(job=job.name, run_id=run_id),
    ):
        ctx = context(
            job=job.name,
            run_id=run_id,
            slot=slot,
            deadline=Deadline.after(timeout.total_seconds(), clock),
            dead_runs=state.dead_runs(job.name) | _ids(state.unfinished_runs(job.name)),
            dry_run=dry_run,
        )
        if dry_run:
            return runner.execute(job, settings, ctx)
        record_unfinished(job.name, state=state, tell=tell, at=clock.now(), patience=patience)
        earlier = state.slot_runs(job.name, slot) if is_scheduled else ()
        attempt = next_attempt(earlier) if is_scheduled else 0
        book = _Book(state, tell, pings, patience, earlier, attempt, last_words)
        run = book.kept(job, settings, ctx, timeout=timeout)
        afterwards.callback(pings.ended, run)
        return run


@dataclass(frozen=True, slots=True)
class _Book:
    """What is written down of one run, from its beginning to its end."""

    state: State
    tell: Tell
    pings: Pings
    patience: Patience | None
    earlier: Sequence[Run]  # tries of the same slot
    attempt: int
    last_words: Callable[[Run], None] | None

    def kept(self, job: AnyJob, settings: object, ctx: Context, *, timeout: timedelta) -> Run:
        """Execute the run between its two records."""
        self.state.begin(
            job=ctx.job,
            run_id=ctx.run_id,
            slot=ctx.slot,
            at=ctx.clock.now(),
            attempt=self.attempt,
        )
        self.pings.started(ctx.job, ctx.run_id)
        run = _execute_watched(job, settings, ctx, timeout=timeout, end=self.close)
        run = self.judged(run, at=ctx.clock.now())
        self.record(run)
        return run

    def judged(self, run: Run, *, at: datetime) -> Run:
        """With what earlier tries found, and when the slot is tried again."""
        run = with_earlier_findings(replace(run, attempt=self.attempt), self.earlier)
        return with_retry(run, self.patience, at=at)

    def record(self, run: Run) -> None:
        try:
            self.state.record(run, tell=self.tell)
        except OpsdError as exc:
            how = run.outcome.value.replace("_", " ")
            raise type(exc)(f"{run.job} {how}, but that could not be recorded: {exc}") from exc

    def close(self, hanging: Run) -> None:
        """The last act of a process whose run cannot be ended."""
        hanging = self.judged(hanging, at=hanging.started_at + hanging.duration)
        self.state.record(hanging, tell=self.tell)
        if self.last_words is not None:
            self.last_words(hanging)
        self.pings.ended(hanging)


def record_unfinished(
    job: str,
    *,
    state: State,
    tell: Tell,
    at: datetime,
    patience: Patience | None = None,
    pings: Pings = NoPings(),  # noqa: B008 - has no state
    outcome: Outcome = Outcome.INTERRUPTED,
    error: str = "",
    slot: datetime | None = None,
) -> None:
    """Record the runs of `job` whose process died. Only under the job's lease.

    Args:
        job: its name.
        state: where they began.
        tell: what people are told.
        at: now, aware UTC.
        patience: when slots of the job are tried again; None: never.
        pings: who is told besides; should not take long, for the lease's sake.
        outcome: how they ended, if the caller knows better.
        error: why they ended, if the caller knows better.
        slot: only the run of this one, which the caller knows to be lost.
    """
    for run in state.unfinished_runs(job):
        if slot not in (None, run.slot):
            continue
        lost = replace(run, outcome=outcome, error=error or run.error)
        lost = with_retry(lost, patience, at=at)
        state.record(lost, tell=tell)
        pings.ended(lost)


@dataclass(slots=True)
class _Interruption:
    """Whether somebody asked the run to end."""

    signal: str = ""
    watchdogs: list[Watchdog] = field(default_factory=list)

    def handle(self, number: int, _frame: FrameType | None) -> NoReturn:
        self.signal = signal.Signals(number).name
        for watchdog in self.watchdogs:
            watchdog.hurry(within_s=INTERRUPT_GRACE_S)
        kill_all()
        raise KeyboardInterrupt(self.signal)


def _execute_watched(
    job: AnyJob,
    settings: object,
    ctx: Context,
    *,
    timeout: timedelta,
    end: Callable[[Run], None],
) -> Run:
    interruption = _Interruption()
    started_at = ctx.clock.now()

    def on_expire() -> None:
        reason = interruption.signal or "its deadline"
        end(
            Run(
                job=job.name,
                run_id=ctx.run_id,
                slot=ctx.slot,
                started_at=started_at,
                duration=timeout + OVERSTAY,
                outcome=Outcome.INTERRUPTED if interruption.signal else Outcome.TIMED_OUT,
                error=f"it did not stop after {reason} and was ended",
            )
        )

    with (
        Watchdog(after_s=(timeout + OVERSTAY).total_seconds(), on_expire=on_expire) as watchdog,
        _signals_handled(interruption, watchdog),
    ):
        return runner.execute(job, settings, ctx)


@contextlib.contextmanager
def _signals_handled(interruption: _Interruption, watchdog: Watchdog) -> Iterator[None]:
    interruption.watchdogs.append(watchdog)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, interruption.handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ids(runs: tuple[Run, ...]) -> frozenset[str]:
    return frozenset(run.run_id for run in runs)
