"""Two runs of one job at once, and a run that somebody ends: through the real command line."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from opsd.model import Outcome
from tests.faults.failpoints import Failpoint, command
from tests.rig import scratch
from tests.rig.home import Home, await_stopped
from tests.rig.postgres import PgServer
from tests.rig.sink import Sink

pytestmark = pytest.mark.real

SHARE = "share/rsync"
BEFORE_PUBLISHING = Failpoint(at="opsd.backup.catalog:publish", do="stop")


@pytest.fixture(scope="module")
def home(pg: PgServer) -> Iterator[Home]:
    """An installation with a database and a share."""
    with scratch.directory("two-runs") as place:
        home = Home(place=place)
        pg.create_database("two_runs")
        home.fill_share()
        tables = (home.postgres(pg, databases=["two_runs"]), home.shares("rsync"))
        home.write(*tables)
        yield home


def half_way(home: Home, job: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A run of `job` that stops (as with Ctrl-Z) when all is stored and nothing published."""
    return home.running(launcher=command(BEFORE_PUBLISHING, "run-job", job))


def test_a_second_run_is_turned_away_names_the_first_and_the_rest_of_the_group_is_done(
    home: Home,
) -> None:
    before = home.good_backups()
    with half_way(home, "nfs-backup") as first:
        await_stopped(first)

        second = home.opsd("run-job", "backup", "-o", "json")
        while_it_ran = home.good_backups()
        first.send_signal(signal.SIGCONT)
        first.communicate()

    skipped = {run["job"]: run for run in second.json["runs"]}
    assert second.status == 75
    assert skipped["nfs-backup"]["outcome"] == "skipped"
    assert f"process {first.pid}, since " in skipped["nfs-backup"]["error"]
    assert skipped["postgres-backup"]["outcome"] == "completed"
    assert while_it_ran.get(SHARE, 0) == before.get(SHARE, 0)
    assert first.returncode == 0
    assert home.good_backups()[SHARE] == before.get(SHARE, 0) + 1


def test_after_a_kill_of_the_first_the_next_run_starts_at_once(home: Home) -> None:
    before = home.good_backups()
    with half_way(home, "nfs-backup") as first:
        await_stopped(first)
        first.kill()
        first.wait()

        second = home.opsd("run-job", "nfs-backup")

    assert second.status == 0, second.out
    assert home.good_backups()[SHARE] == before.get(SHARE, 0) + 1
    assert home.leftovers() == []
    assert [run.outcome for run in home.runs("nfs-backup")[:2]] == [
        Outcome.COMPLETED,
        Outcome.INTERRUPTED,
    ]
    snapshots = [path for path in (home.repository / "rsync/rsync").iterdir() if path.is_dir()]
    assert len(snapshots) == home.good_backups()[SHARE], "the dead run's copy is gone"


def test_a_run_that_is_ended_by_sigterm_is_told_and_leaves_nothing(home: Home, sink: Sink) -> None:
    config = home.config.read_text()
    target = '[[alerts.targets]]\nname = "phone"\nurl = "env:CANARY_PHONE"\n'
    home.config.write_text(f"{config}\n{target}")
    home.environment["CANARY_PHONE"] = sink.url.replace("http", "json")
    before = home.good_backups()
    with home.running(launcher=command(BEFORE_PUBLISHING, "run-job", "backup")) as run:
        await_stopped(run)

        run.send_signal(signal.SIGTERM)
        run.send_signal(signal.SIGCONT)
        out, _ = run.communicate()

    home.config.write_text(config)
    assert run.returncode == 1
    assert "postgres-backup interrupted: ended by SIGTERM" in out
    assert "nfs-backup" not in out, "the rest of the group is not begun"
    assert home.runs("postgres-backup")[0].outcome is Outcome.INTERRUPTED
    assert b"postgres-backup interrupted" in sink.wait_for(1)[0].body
    assert home.leftovers() == []
    assert all(home.good_backups()[subject] >= count for subject, count in before.items())
