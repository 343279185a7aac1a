"""Where runs are told to a service outside: at which moment, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.clock import Deadline
from opsd.config import Table
from opsd.errors import TransientError
from opsd.executors.inline import run_now
from opsd.executors.ledger import Ledger
from opsd.job import Context, Job, Observation
from opsd.model import Outcome, Run
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, context, tell_nobody

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Settings(Table):
    pass


def looks(_ctx: Context, _settings: Settings) -> Iterator[Observation]:
    yield from ()


def fails(_ctx: Context, _settings: Settings) -> Iterator[Observation]:
    yield from ()
    raise TransientError("down")


class Signs:
    """Notes what is told and whether the lease and the record stood then."""

    def __init__(self, state: SqliteState) -> None:
        self.told: list[tuple[str, str]] = []
        self.states: list[tuple[bool, bool]] = []
        self._state = state

    def started(self, job: str, run_id: str) -> None:
        self._note(f"{job} started", run_id)

    def ended(self, run: Run) -> None:
        self._note(f"{run.job} {run.outcome.value}", run.run_id)

    def _note(self, what: str, run_id: str) -> None:
        self.told.append((what, run_id))
        is_recorded = run_id in {run.run_id for run in self._state.runs()}
        self.states.append((self._state.holder("test-job") is not None, is_recorded))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteState]:
    store = SqliteState(tmp_path / "state.db", clock=clock)
    yield store
    store.close()


@pytest.fixture
def signs(state: SqliteState) -> Signs:
    return Signs(state)


def run_once(state: SqliteState, signs: Signs, clock: FakeClock, **changes: object) -> Run:
    def make(
        *,
        job: str,
        run_id: str,
        slot: datetime,
        deadline: Deadline,
        dead_runs: frozenset[str],
        dry_run: bool,
    ) -> Context:
        return context(
            scratch=Path(),
            clock=deadline.clock,
            job=job,
            run_id=run_id,
            slot=slot,
            dead_runs=dead_runs,
            dry_run=dry_run,
        )

    job = Job(
        name="test-job",
        summary="",
        group="",
        schedule="@daily",
        timeout=timedelta(minutes=1),
        settings=Settings,
        run=changes.pop("body", looks),  # type: ignore[arg-type]
    )
    return run_now(
        job,
        Settings(),
        slot=NOON,
        timeout=timedelta(minutes=1),
        state=state,
        clock=clock,
        context=make,
        tell=tell_nobody,
        pings=signs,
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("body", "outcome"), [(looks, "completed"), (fails, "failed")])
def test_the_start_is_told_under_the_lease_and_the_end_after_it_and_the_record(
    body: object, outcome: str, state: SqliteState, signs: Signs, clock: FakeClock
) -> None:
    run = run_once(state, signs, clock, body=body)

    assert signs.told == [
        ("test-job started", run.run_id),
        (f"test-job {outcome}", run.run_id),
    ]
    assert signs.states == [(True, False), (False, True)]


def test_a_dry_run_is_not_told(state: SqliteState, signs: Signs, clock: FakeClock) -> None:
    run_once(state, signs, clock, dry_run=True)

    assert signs.told == []


def test_a_slot_that_was_missed_is_told_once(
    state: SqliteState, signs: Signs, clock: FakeClock
) -> None:
    ledger = Ledger(state=state, tell=tell_nobody, clock=clock, patience={}, pings=signs)

    for _ in range(2):
        ledger.close("test-job", NOON, Outcome.MISSED, error="opsd was not running")

    assert [what for what, _ in signs.told] == ["test-job missed"]


def test_a_run_whose_process_died_is_told_by_whoever_records_it(
    state: SqliteState, signs: Signs, clock: FakeClock
) -> None:
    state.begin(job="test-job", run_id="dead", slot=NOON, at=NOON)

    Ledger(state=state, tell=tell_nobody, clock=clock, patience={}, pings=signs).reconcile()

    assert signs.told == [("test-job interrupted", "dead")]
