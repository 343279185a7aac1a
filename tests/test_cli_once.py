"""`opsd run --once`: for people who keep cron."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsd.model import Outcome
from tests.rig import scratch
from tests.rig.home import Home

SHARE = """
[jobs.nfs-backup]
schedule = "@yearly"
retries = 0

[[jobs.nfs-backup.shares]]
name = "share"
path = "{place}/share"
mounted = false
engine = "rsync"
repository = "disk"
"""


@pytest.fixture
def home() -> Iterator[Home]:
    with scratch.directory("once") as place:
        home = Home(place=place)
        home.share.mkdir()
        (home.share / "file").write_text("content")
        home.write(SHARE.format(place=place))
        yield home


@pytest.mark.real
def test_it_runs_what_is_due_prints_it_as_run_job_does_and_then_nothing(home: Home) -> None:
    first = home.opsd("-o", "json", "run", "--once")
    second = home.opsd("-o", "json", "run", "--once")

    (run,) = first.json["runs"]
    assert (first.status, second.status) == (0, 0), first.err
    assert (run["job"], run["outcome"], len(run["artifacts"])) == ("nfs-backup", "completed", 1)
    assert second.json == {"runs": []}
    assert [one.outcome for one in home.runs("nfs-backup")] == [Outcome.COMPLETED]


@pytest.mark.real
def test_a_run_that_failed_ends_it_with_1(home: Home) -> None:
    (home.share / "file").unlink()

    ended = home.opsd("run", "--once")

    assert ended.status == 1
    assert "nfs-backup" in ended.out
