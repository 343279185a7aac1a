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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import FrameType
from typing import NoReturn, Protocol

from structlog.contextvars import bound_contextvars

from opsd import runner
from opsd.clients.process import kill_all
from opsd.clock import Clock, Deadline
from opsd.errors import OpsdError
from opsd.executors.watchdog import Watchdog
from opsd.job import AnyJob, Context
from opsd.model import Outcome, Run
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
    last_words: Callable[[Run], None] | None = None,
    dry_run: bool = False,
) -> Run:
    """Run `job` once, from its lease to its record. A dry run is not recorded.

    `last_words` is called instead of a return, from another thread, when the run hangs for
    good: it is recorded by then, and the process ends as soon as the call is over.

    Raises:
        LeaseHeld: another run of the job is under way; nothing was begun.
        ConfigError: the context could not be made; nothing was begun.
        TransientError, PermanentError: the state refused; the text says whether the run
            happened.
    """
    run_id = secrets.token_hex(6)
    with state.lease(job.name, run_id), bound_contextvars(job=job.name, run_id=run_id):
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
        record_unfinished(job.name, state=state, tell=tell)
        state.begin(job=job.name, run_id=run_id, slot=slot, at=clock.now())

        def end(hanging: Run) -> None:
            state.record(hanging, tell=tell)
            if last_words is not None:
                last_words(hanging)

        run = _execute_watched(job, settings, ctx, timeout=timeout, end=end)
        _record(run, state=state, tell=tell)
        return run


def record_unfinished(
    job: str,
    *,
    state: State,
    tell: Tell,
    outcome: Outcome = Outcome.INTERRUPTED,
    error: str = "",
) -> tuple[Run, ...]:
    """Record the runs of `job` whose process died. Only under the job's lease.

    Args:
        job: its name.
        state: where they began.
        tell: what people are told.
        outcome: how they ended, if the caller knows better.
        error: why they ended, if the caller knows better.
    """
    lost = tuple(
        replace(run, outcome=outcome, error=error or run.error)
        for run in state.unfinished_runs(job)
    )
    for run in lost:
        state.record(run, tell=tell)
    return lost


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


def _record(run: Run, *, state: State, tell: Tell) -> None:
    try:
        state.record(run, tell=tell)
    except OpsdError as exc:
        how = run.outcome.value.replace("_", " ")
        raise type(exc)(f"{run.job} {how}, but that could not be recorded: {exc}") from exc


def _ids(runs: tuple[Run, ...]) -> frozenset[str]:
    return frozenset(run.run_id for run in runs)
