"""The disk of the repository, or of the state, is full during a whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import scratch
from tests.rig import sink as http_sink
from tests.rig.home import Home
from tests.rig.postgres import PgServer
from tests.rig.sink import Sink

pytestmark = [
    pytest.mark.real,
    pytest.mark.usefixtures("restic", "rsync"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a file system can be mounted by root only"),
]

DATABASE = "database/main/full_disk"
SHARES = {"share/restic", "share/rsync"}
FREE_BYTES = 1 << 20
NOISE_BYTES = 3 << 20  # more than is free, of what no compression makes smaller
NOISE = """
CREATE TABLE noise AS SELECT i, decode(string_agg(md5(random()::text || j), ''), 'hex') AS bytes
    FROM generate_series(1, 200) i, generate_series(1, 1000) j GROUP BY i;
"""


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with http_sink.running() as running:
        yield running


@pytest.fixture(scope="module")
def home(pg: PgServer, sink: Sink) -> Iterator[Home]:
    """An installation with a good backup of everything on a small disk."""
    with scratch.directory("full-disk") as place, scratch.tmpfs("24m") as disk:
        home = Home(place=place, disk=disk)
        pg.create_database("full_disk")
        home.fill_share()
        home.write(
            home.postgres(pg, databases=["full_disk"]),
            home.shares("restic", "rsync"),
            alerts=sink.url.replace("http", "json"),
        )
        assert home.opsd("run-job", "backup").status == 0
        yield home


def fill(disk: Path, *, leave: int) -> Path:
    """A file that takes all room but `leave` bytes."""
    ballast = disk / ".ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - leave)
    return ballast


def test_a_full_repository_fails_both_jobs_is_told_and_works_again_when_there_is_room(
    home: Home, pg: PgServer, sink: Sink
) -> None:
    before = home.good_backups()
    pg.execute(NOISE, "full_disk")
    (home.share / "large").write_bytes(os.urandom(NOISE_BYTES))
    ballast = fill(home.repository, leave=FREE_BYTES)

    full = home.opsd("run-job", "backup", "-o", "json")
    after = home.good_backups()
    half_made = home.leftovers()
    verified = home.opsd("backups", "verify", "--all", "-o", "json")
    ballast.unlink()
    again = home.opsd("run-job", "backup")

    findings = {one["subject"]: one for run in full.json["runs"] for one in run["findings"]}
    assert full.status == 1
    assert [run["outcome"] for run in full.json["runs"]] == ["failed", "failed"]
    assert set(findings) == {f"repository/disk/{DATABASE}", *SHARES}
    assert all("space" in one["facts"]["error"] for one in findings.values()), findings
    assert {subject: after[subject] for subject in (DATABASE, *SHARES)} == {
        subject: before[subject] for subject in (DATABASE, *SHARES)
    }
    assert half_made == []
    assert verified.status == 0, verified.out
    assert len(sink.wait_for(2)) == 4, "two say that it failed, two that it is over"
    assert again.status == 0, again.out
    assert home.leftovers() == []
    assert all(home.good_backups()[one] == before[one] + 1 for one in (DATABASE, *SHARES))


def test_a_full_disk_under_the_state_stops_the_run_before_it_begins_and_says_so(
    home: Home,
) -> None:
    before = home.good_backups()
    config = home.config.read_text()
    with scratch.tmpfs("1m") as disk:
        home.config.write_text(config.replace(f"{home.place}/state", f"{disk}/state"))
        fill(disk, leave=0)

        done = home.opsd("run-job", "nfs-backup")

        home.config.write_text(config)

    assert done.status in {1, 2}
    assert f"{disk}/state" in done.err
    assert "No space left" in done.err or "disk is full" in done.err
    assert home.good_backups() == before
