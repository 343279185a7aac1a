"""opsd is killed with SIGKILL at every step of a run, and run again: nothing good is lost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsd.model import Outcome
from tests.faults.failpoints import Failpoint, command
from tests.rig import dumps, scratch
from tests.rig.home import Home
from tests.rig.postgres import PgServer

pytestmark = pytest.mark.real

SUBJECTS = ("database/main/crash_sweep", "globals/main")
GOOD_BEFORE = 3  # `keep.last`: from then on every run removes what is too old

STEPS = (
    Failpoint(at="opsd.state.sqlite:SqliteState.begin", when="before", do="kill"),
    Failpoint(at="opsd.state.sqlite:SqliteState.begin", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:DirectoryRepository.upload", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:_DirectoryUpload.write", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:_DirectoryUpload.commit", when="before", do="kill"),
    Failpoint(at="opsd.backup.directory:_DirectoryUpload._publish", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:_DirectoryUpload.commit", when="after", do="kill"),
    Failpoint(at="opsd.backup.catalog:read_back", when="before", do="kill"),
    Failpoint(at="opsd.backup.catalog:publish", when="before", do="kill"),
    Failpoint(at="opsd.backup.catalog:publish", when="before", nth=2, do="kill"),
    Failpoint(at="opsd.backup.catalog:publish", when="after", do="kill"),
    Failpoint(at="opsd.backup.retention:plan", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:DirectoryRepository.delete", when="before", do="kill"),
    Failpoint(at="opsd.backup.directory:DirectoryRepository.delete", when="after", do="kill"),
    Failpoint(
        at="opsd.backup.directory:DirectoryRepository.delete", when="after", nth=2, do="kill"
    ),
    Failpoint(at="opsd.state.sqlite:SqliteState.record", when="before", do="kill"),
    Failpoint(at="opsd.state.sqlite:SqliteState.record", when="after", do="kill"),
)


def outcome_after(step: Failpoint) -> Outcome:
    """What the history says of the killed run: it began, unless the kill came too early."""
    ledger = step.at.partition(":")[2]
    if (ledger, step.when) in {
        ("SqliteState.begin", "before"),  # never written down; the run before it is shown
        ("SqliteState.record", "after"),  # its end was written down already
    }:
        return Outcome.COMPLETED
    return Outcome.INTERRUPTED


@pytest.fixture(scope="module")
def home(pg: PgServer) -> Iterator[Home]:
    """An installation with as many good backups as retention keeps."""
    with scratch.directory("crash-sweep") as place:
        home = Home(place=place, is_measured=False)
        pg.create_database("crash_sweep")
        pg.execute(dumps.SAMPLE, "crash_sweep")
        home.write(home.postgres(pg, databases=["crash_sweep"]))
        for _ in range(GOOD_BEFORE):
            assert home.opsd("run-job", "postgres-backup").status == 0
        yield home


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.when}-{step.at}-{step.nth}")
def test_a_kill_at_any_step_loses_no_good_backup_and_leaves_nothing_after_the_next_run(
    home: Home, step: Failpoint
) -> None:
    before = home.good_backups()

    killed = home.opsd(launcher=command(step, "run-job", "postgres-backup"))
    after_kill = home.good_backups()
    again = home.opsd("run-job", "postgres-backup")
    newest, killed_run = home.runs("postgres-backup")[:2]

    assert killed.status == -9, killed.err
    assert all(after_kill[one] >= min(before[one], GOOD_BEFORE) for one in SUBJECTS)
    assert again.status == 0, again.err
    assert home.good_backups() == dict.fromkeys(SUBJECTS, GOOD_BEFORE)
    assert home.leftovers() == []
    assert newest.outcome is Outcome.COMPLETED
    assert killed_run.outcome is outcome_after(step)
