from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.clock import SystemClock
from opsd.http.figures import BUCKETS_S, NEWEST, Durations, Figures
from opsd.model import Artifact, Outcome, Run
from opsd.state import State
from opsd.state.sqlite import SqliteState

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DUMP = Artifact(
    kind="pg_dump",
    subject="database/main/app",
    repository="usb",
    key="k",
    size_bytes=12,
    sha256="00",
    level="read_back",
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return SqliteState(tmp_path / "state.db", clock=SystemClock())


def ended(number: int, *artifacts: Artifact, outcome: Outcome = Outcome.COMPLETED) -> Run:
    at = NOON + number * MINUTE
    return Run(
        job="backup",
        run_id=f"{number:012x}",
        slot=at,
        started_at=at,
        duration=timedelta(seconds=number),
        outcome=outcome,
        artifacts=artifacts,
        attempt=1,
    )


def record(state: State, *runs: Run) -> None:
    for run in runs:
        state.record(run, tell=lambda alerts, _findings, _at: (alerts, ()))


def test_what_happened_before_the_daemon_began_is_known_and_not_counted(state: State) -> None:
    record(state, ended(1, DUMP), ended(2, outcome=Outcome.FAILED))
    figures = Figures(["backup"])

    figures.read(state)

    at = NOON + MINUTE + timedelta(seconds=1)
    assert figures.succeeded_at == {("backup", ""): at, ("backup", "database/main/app"): at}
    assert not figures.ended


def test_each_later_run_is_counted_once(state: State) -> None:
    record(state, ended(1))
    figures = Figures(["backup"])
    figures.read(state)

    record(state, ended(2), ended(3, outcome=Outcome.FAILED))
    figures.read(state)
    figures.read(state)

    assert figures.ended == {("backup", Outcome.COMPLETED): 1, ("backup", Outcome.FAILED): 1}
    assert figures.durations["backup"].sum_s == 5


def test_the_first_run_ever_is_counted(state: State) -> None:
    figures = Figures(["backup"])
    figures.read(state)

    record(state, ended(1))
    figures.read(state)

    assert figures.ended == {("backup", Outcome.COMPLETED): 1}


def test_of_more_runs_than_are_read_at_once_the_newest_are_counted(state: State) -> None:
    record(state, ended(0))
    figures = Figures(["backup"])
    figures.read(state)

    record(state, *map(ended, range(1, NEWEST + 2)))
    figures.read(state)

    assert figures.ended == {("backup", Outcome.COMPLETED): NEWEST}


@pytest.mark.parametrize("outcome", [Outcome.MISSED, Outcome.SKIPPED])
def test_what_did_not_run_took_no_time(state: State, outcome: Outcome) -> None:
    figures = Figures(["backup"])
    figures.read(state)

    record(state, ended(1, outcome=outcome))
    figures.read(state)

    assert figures.ended == {("backup", outcome): 1}
    assert not figures.durations


def test_a_run_that_failed_counts_for_the_backups_that_it_made(state: State) -> None:
    record(state, ended(1, replace(DUMP, level="restored"), outcome=Outcome.FAILED))
    figures = Figures(["backup"])

    figures.read(state)

    at = NOON + MINUTE + timedelta(seconds=1)
    assert figures.succeeded_at == {("backup", "database/main/app"): at}
    assert figures.restored_at == {"database/main/app": at}


def test_a_duration_at_a_limit_belongs_below_it() -> None:
    durations = Durations()

    durations.add(BUCKETS_S[0])
    durations.add(BUCKETS_S[0] + 0.001)
    durations.add(BUCKETS_S[-1] + 1)

    assert (durations.buckets[0], durations.buckets[1], durations.buckets[-1]) == (1, 1, 1)
