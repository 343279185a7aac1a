"""Bytes of dumps and manifests rot in the repository: told, never counted, never followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import scratch, shares
from tests.rig.home import Home
from tests.rig.postgres import PgServer

pytestmark = pytest.mark.real

DATABASE = "database/main/damaged"
KEPT = 3  # `keep.last` of the configuration


@pytest.fixture(scope="module")
def home(pg: PgServer) -> Iterator[Home]:
    """An installation with as many good backups as retention keeps."""
    with scratch.directory("damaged") as place:
        home = Home(place=place)
        pg.create_database("damaged")
        home.write(home.postgres(pg, databases=["damaged"]))
        for _ in range(KEPT):
            assert home.opsd("run-job", "postgres-backup").status == 0
        yield home


def files(home: Home, pattern: str) -> list[Path]:
    return sorted((home.repository / DATABASE).glob(pattern))


def test_a_flipped_byte_is_told_and_the_backup_counts_no_more_for_retention(home: Home) -> None:
    *good, bad = files(home, "*.dump")
    shares.flip(bad)

    verified = home.opsd("backups", "verify")
    listed = home.opsd("backups", "list")
    ran = home.opsd("run-job", "postgres-backup")

    assert verified.status == 1
    assert "1 backup DAMAGED. Make a new one now" in verified.out
    assert f"{KEPT - 1} of {KEPT}" in listed.out
    assert ran.status == 0
    assert all(path.exists() for path in good), "three good ones stay, the bad one is none"
    assert home.good_backups()[DATABASE] == KEPT


def test_a_damaged_manifest_is_told_by_list_and_run_and_its_data_is_not_taken_away(
    home: Home,
) -> None:
    manifest, data = files(home, "*Z.json")[-1], files(home, "*.dump")[-1]
    text = manifest.read_text()
    manifest.chmod(0o600)
    manifest.write_text(text[: len(text) // 2])

    listed = home.opsd("backups", "list")
    ran = home.opsd("run-job", "postgres-backup", "-o", "json")
    known = home.good_backups()[DATABASE]
    manifest.write_text(text)

    [run] = ran.json["runs"]
    told = {one["check"]: one["subject"] for one in run["findings"]}
    assert f"{manifest.name}: not a readable manifest" in listed.out
    assert told == {"backup.damaged": "repository/disk"}
    assert run["outcome"] == "completed"
    assert data.exists()
    assert home.good_backups()[DATABASE] == known + 1, "mended, it counts again"


def test_a_backup_whose_data_is_gone_is_damaged_and_cannot_be_restored(home: Home) -> None:
    before = home.good_backups()[DATABASE]
    [*_, newest] = files(home, "*.dump")
    newest.unlink()

    listed = home.opsd("backups", "list")
    restored = home.opsd("backups", "restore", f"{DATABASE}/{newest.name[:16]}", "--as", "x")

    assert "damaged" in listed.out
    assert home.good_backups()[DATABASE] == before - 1
    assert restored.status == 1
