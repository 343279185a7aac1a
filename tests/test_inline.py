from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.clock import Deadline
from opsd.config import Table
from opsd.errors import ConfigError, LeaseHeld, PermanentError
from opsd.executors.inline import record_unfinished, run_now
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, context, tell_at_once

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Settings(Table):
    pass


def job_that(run: Callable[[Context, Settings], Iterator[Observation]]) -> Job[Settings]:
    return Job(
        name="test-job",
        summary="",
        group="",
        schedule="@daily",
        timeout=timedelta(minutes=1),
        settings=Settings,
        run=run,
    )


def ends(_ctx: Context, _settings: Settings) -> Iterator[Observation]:
    yield Finding(check="x.y", subject="s/a", severity=Severity.CRITICAL, summary="s")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteState]:
    store = SqliteState(tmp_path / "state.db", clock=clock)
    yield store
    store.close()


class Contexts:
    """Makes contexts and remembers what for."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.dead_runs: frozenset[str] = frozenset()

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
        self.dead_runs = dead_runs
        return context(
            scratch=self.scratch,
            clock=deadline.clock,
            job=job,
            run_id=run_id,
            slot=slot,
            dry_run=dry_run,
        )


def run_once(
    state: SqliteState,
    clock: FakeClock,
    tmp_path: Path,
    *,
    job: Job[Settings] | None = None,
    dry_run: bool = False,
    contexts: Contexts | None = None,
) -> Run:
    return run_now(
        job or job_that(ends),
        Settings(),
        slot=NOON,
        timeout=timedelta(minutes=1),
        state=state,
        clock=clock,
        context=contexts or Contexts(tmp_path),
        tell=tell_at_once,
        dry_run=dry_run,
    )


def test_a_run_is_recorded_with_what_people_will_be_told(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    run = run_once(state, clock, tmp_path)

    assert run.outcome is Outcome.COMPLETED
    assert state.runs() == (run,)
    assert len(state.undelivered()) == 1


def test_a_run_is_written_down_before_it_starts(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    running: list[str] = []

    def looks(ctx: Context, _settings: Settings) -> Iterator[Observation]:
        running.extend(run_id for _, run_id, _ in state.running())
        assert running == [ctx.run_id]
        yield from ()

    run = run_once(state, clock, tmp_path, job=job_that(looks))

    assert run.outcome is Outcome.COMPLETED
    assert running == [run.run_id]


def test_a_dry_run_takes_the_lease_and_leaves_no_record(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    run = run_once(state, clock, tmp_path, dry_run=True)

    assert run.findings
    assert state.runs() == ()
    with state.lease("test-job", "other"), pytest.raises(LeaseHeld):
        run_once(state, clock, tmp_path, dry_run=True)


def test_a_second_run_at_once_is_refused_and_leaves_no_record(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    with state.lease("test-job", "other"), pytest.raises(LeaseHeld, match="run other"):
        run_once(state, clock, tmp_path)

    assert state.runs() == ()
    assert state.running() == ()


def test_a_run_that_died_is_recorded_as_interrupted_by_the_next(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    state.begin(job="test-job", run_id="dead", slot=NOON, at=NOON)
    contexts = Contexts(tmp_path)

    run_once(state, clock, tmp_path, contexts=contexts)

    assert [one.outcome for one in state.runs()] == [Outcome.COMPLETED, Outcome.INTERRUPTED]
    assert contexts.dead_runs == {"dead"}
    assert state.running() == ()


def test_who_knows_better_says_how_a_run_died(state: SqliteState) -> None:
    state.begin(job="test-job", run_id="dead", slot=NOON, at=NOON)

    record_unfinished(
        "test-job",
        state=state,
        tell=tell_at_once,
        at=NOON,
        outcome=Outcome.TIMED_OUT,
        error="killed",
    )

    (run,) = state.runs()
    assert (run.outcome, run.error) == (Outcome.TIMED_OUT, "killed")


def test_a_context_that_cannot_be_made_begins_nothing(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    class Broken(Contexts):
        def __call__(self, **_: object) -> Context:
            raise ConfigError("no such directory")

    with pytest.raises(ConfigError):
        run_once(state, clock, tmp_path, contexts=Broken(tmp_path))

    assert state.running() == ()


def test_a_result_that_cannot_be_recorded_says_that_the_run_happened(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    def breaks_the_state(_ctx: Context, _settings: Settings) -> Iterator[Observation]:
        state.close()
        yield from ()

    with pytest.raises(PermanentError, match="test-job completed, but that could not be recorded"):
        run_once(state, clock, tmp_path, job=job_that(breaks_the_state))


_PROGRAM = """
import json, os, signal, sys, threading, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from opsd import logs
from opsd.testing import tell_at_once
from opsd.clients.process import Process
from opsd.clock import Deadline, SystemClock
from opsd.executors import inline
from opsd.state.sqlite import SqliteState
from tests.test_inline import Contexts, Settings, job_that

logs.configure()
inline.OVERSTAY = timedelta(seconds=0.2)
inline.INTERRUPT_GRACE_S = 0.5
folder, what = Path(sys.argv[1]), sys.argv[2]
clock = SystemClock()
state = SqliteState(folder / "state.db", clock=clock)

def note(pid):
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\\n":
        pass  # its parent-death signal is asked for just before
    (folder / "child").write_text(str(pid))

def hangs_in_the_kernel(ctx, settings):
    with Process(["sleep", "600"], deadline=Deadline.after(600, clock)) as child:
        note(child.pid)
        threading.Thread(target=lambda: open(folder / "fifo").read(), daemon=True).start()
        while True:
            try:
                print("running", flush=True)  # in here: the signal comes at once
                open(folder / "fifo").read()
            except KeyboardInterrupt:
                pass
    yield

def waits(ctx, settings):
    with Process(["sleep", "600"], deadline=Deadline.after(600, clock)) as child:
        note(child.pid)
        print("running", flush=True)
        child.wait()
    yield

run = inline.run_now(job_that({"hangs": hangs_in_the_kernel, "waits": waits}[what]), Settings(),
    slot=datetime(2026, 11, 22, 12, 0, tzinfo=UTC), timeout=timedelta(seconds=float(sys.argv[3])),
    state=state, clock=clock, context=Contexts(folder), tell=tell_at_once)
print(run.outcome.value, flush=True)
"""


def started(folder: Path, what: str, timeout_s: float) -> subprocess.Popen[str]:
    os.mkfifo(folder / "fifo")
    program = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(folder), what, str(timeout_s)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    if program.stdout.readline() != "running\n":
        program.communicate()
        raise AssertionError(program.returncode)
    return program


def is_gone(folder: Path) -> bool:
    """Whether the program that the run had started ended, within ten seconds."""
    pid = int((folder / "child").read_text())
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_run_that_hangs_in_the_kernel_is_recorded_and_ended(
    state: SqliteState, tmp_path: Path
) -> None:
    with started(tmp_path, "hangs", 2) as program:
        status = program.wait(timeout=60)

    assert status == 1
    assert [run.outcome for run in state.runs()] == [Outcome.TIMED_OUT]
    assert len(state.undelivered()) == 1
    assert is_gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_and_its_children_and_is_recorded(
    number: signal.Signals, state: SqliteState, tmp_path: Path
) -> None:
    with started(tmp_path, "waits", 600) as program:
        program.send_signal(number)
        said, _ = program.communicate(timeout=60)

    assert said == "interrupted\n"
    (run,) = state.runs()
    assert (run.outcome, run.error) == (Outcome.INTERRUPTED, f"ended by {number.name}")
    assert is_gone(tmp_path)


def test_a_run_that_does_not_react_to_a_signal_is_ended_and_recorded_as_interrupted(
    state: SqliteState, tmp_path: Path
) -> None:
    with started(tmp_path, "hangs", 600) as program:
        program.send_signal(signal.SIGTERM)
        status = program.wait(timeout=60)

    assert status == 1
    assert [run.outcome for run in state.runs()] == [Outcome.INTERRUPTED]
    assert is_gone(tmp_path)


def test_a_run_whose_process_is_killed_takes_its_programs_along(
    state: SqliteState, clock: FakeClock, tmp_path: Path
) -> None:
    with started(tmp_path, "waits", 600) as program:
        program.kill()
        program.wait()

    assert is_gone(tmp_path)
    assert len(state.unfinished_runs("test-job")) == 1
    run_once(state, clock, tmp_path)
    assert [run.outcome for run in state.runs()] == [Outcome.COMPLETED, Outcome.INTERRUPTED]
    assert len(state.undelivered()) == 2
