from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from opsd.backup.share import guards as looking
from opsd.backup.share import livedata
from opsd.backup.share.guards import Share
from opsd.backup.share.livedata import SqliteCopy
from opsd.progress import NoProgress
from tests.rig import shares
from tests.rig.shares import deadline

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
print("ready", flush=True)
while True:
    database.execute("INSERT INTO t (x) VALUES (hex(randomblob(2000)))")
"""


def copies(
    path: Path, stage: Path, *, remote: bool = False
) -> tuple[tuple[SqliteCopy, ...], tuple[str, ...]]:
    share = Share(name="nfs", path=path, mounted=False)
    found = looking.scan(share, deadline=deadline(), progress=NoProgress(), sample_files=0)
    made = livedata.copy_databases(
        share, found, remote=remote, into=stage, deadline=deadline(), progress=NoProgress()
    )
    return made, livedata.omitted(found, made)


def copied(stage: Path, name: str) -> Path:
    return stage / ".opsd/sqlite" / name


def test_a_still_database_is_copied_byte_for_byte(tmp_path: Path) -> None:
    shares.make_sqlite(tmp_path / "share/app/state.db").close()

    with livedata.stage(tmp_path) as stage:
        (made,), omitted = copies(tmp_path / "share", stage)
        content = copied(stage, "app/state.db").read_bytes()

    assert made.method == "file_copy"
    assert content == (tmp_path / "share/app/state.db").read_bytes()
    assert omitted == tuple(f"app/state.db{suffix}" for suffix in livedata.SIDE_FILES)


@pytest.mark.parametrize(
    ("remote", "method"), [(False, "backup_api"), (True, "file_copy_with_log")]
)
def test_what_is_only_in_the_log_is_in_the_copy(
    tmp_path: Path, *, remote: bool, method: str
) -> None:
    live = shares.make_sqlite(tmp_path / "share/state.db", wal=True)
    live.execute("INSERT INTO t (x) VALUES ('last')")

    with livedata.stage(tmp_path) as stage:
        (made,), _ = copies(tmp_path / "share", stage, remote=remote)
        rows = shares.rows_in(copied(stage, "state.db"))

    live.close()
    assert (made.method, rows) == (method, 101)


def test_the_share_is_not_written_to(tmp_path: Path) -> None:
    share = tmp_path / "share"
    live = shares.make_sqlite(share / "live.db", wal=True)
    shares.make_sqlite(share / "still.db", wal=True).close()
    before = sorted(one.name for one in share.iterdir())
    contents = {name: (share / name).read_bytes() for name in before if "shm" not in name}

    with livedata.stage(tmp_path) as stage:
        copies(share, stage)

    assert sorted(one.name for one in share.iterdir()) == before
    assert {name: (share / name).read_bytes() for name in contents} == contents
    live.close()


@pytest.mark.parametrize("wal", [False, True])
def test_a_database_under_fire_is_copied_whole(tmp_path: Path, *, wal: bool) -> None:
    shares.make_sqlite(tmp_path / "share/state.db", wal=wal, rows=2000).close()
    argv = [sys.executable, "-c", WRITER, str(tmp_path / "share/state.db")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            writer.stdout.readline()
            with livedata.stage(tmp_path) as stage:
                (made,), _ = copies(tmp_path / "share", stage)
                whole = _is_whole(copied(stage, "state.db"))
        finally:
            writer.kill()

    assert made.method or made.reason
    assert whole is bool(made.method)


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    verdict = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    return bool(verdict == ("ok",))


def test_a_damaged_database_is_told_and_its_log_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "share/state.db"
    shares.make_sqlite(path, rows=5000).close()
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    path.write_bytes(content)

    with livedata.stage(tmp_path) as stage:
        (made,), omitted = copies(tmp_path / "share", stage)
        left = list(shares.files_below(stage))

    assert not made.method
    assert made.reason
    assert (omitted, left) == ((), [])


def test_the_stage_is_always_at_the_same_place_and_empty(tmp_path: Path) -> None:
    places = []

    for _ in itertools.repeat(None, 2):
        with livedata.stage(tmp_path) as stage:
            places.append((stage, [one.name for one in stage.iterdir()]))
            (stage / ".opsd" / "left").touch()

    assert places[0] == places[1] == (tmp_path / "added", [".opsd"])
    assert not (tmp_path / "added").exists()


def test_hostile_names_of_databases_come_through(tmp_path: Path) -> None:
    name = "new\nline 'q' 100%?#.db"
    shares.make_sqlite(tmp_path / "share" / name).close()

    with livedata.stage(tmp_path) as stage:
        (made,), _ = copies(tmp_path / "share", stage)
        rows = shares.rows_in_bytes(copied(stage, name).read_bytes(), tmp_path)

    assert (made.path, made.method, rows) == (name, "file_copy", 100)
