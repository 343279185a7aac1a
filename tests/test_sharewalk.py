from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsd.backup.share import guards as looking
from opsd.backup.share import walk as sharewalk
from opsd.backup.share.guards import Inventory, Share
from opsd.progress import NoProgress
from tests.rig import shares
from tests.rig.shares import CLOCK, deadline


def share_at(path: Path, *exclude: str) -> Share:
    return Share(name="nfs", path=path, mounted=False, exclude=exclude)


def walk(share: Share, *, sample: int = 20) -> Inventory:
    return looking.scan(share, deadline=deadline(), progress=NoProgress(), sample_files=sample)


@pytest.mark.parametrize(
    ("pattern", "path", "left_out"),
    [
        (".nfs*", "a/b/.nfs0001", True),
        (".nfs*", "a/x.nfs0001", False),
        ("lost+found", "lost+found", True),
        ("cache", "a/cache", True),
        ("cache", "a/cache2", False),
        ("cache/", "a/cache", True),
        ("/top", "top", True),
        ("/top", "a/top", False),
        ("a/b", "x/a/b", True),
        ("a/b", "xa/b", False),
        ("/a/*/c", "a/b/c", True),
        ("/a/*/c", "a/b/b/c", False),
        ("/a/**/c", "a/b/b/c", True),
        ("f?o", "foo", True),
        ("f?o", "f/o", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        (r"star\*", "star*", True),
        (r"star\*", "starry", False),
        ("new\nline", "a/new\nline", True),
    ],
)
def test_a_pattern_leaves_out_what_the_engines_leave_out(
    pattern: str, path: str, *, left_out: bool
) -> None:
    excluded = sharewalk.Excluded([pattern])

    found = excluded(path.rpartition("/")[2].encode(), path.encode())

    assert found is left_out


def test_a_walk_counts_regular_files_and_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"22")
    (tmp_path / "link").symlink_to("two")

    found = walk(share_at(tmp_path))

    assert (found.files, found.size_bytes, found.directories, found.others) == (2, 3, 1, 1)


def test_names_that_are_not_utf_8_come_through(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")

    found = walk(share_at(tmp_path / "share"), sample=1000)

    names = {os.fsencode(one.path).rpartition(b"/")[2] for one in found.sample}
    assert set(shares.HOSTILE) <= names


def test_what_is_excluded_is_neither_counted_nor_drawn(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "x").touch()
    (tmp_path / "kept").touch()

    found = walk(share_at(tmp_path, "cache"))

    assert found.files == 1
    assert [one.path for one in found.sample] == ["kept"]


def test_sqlite_is_known_by_its_header_whatever_its_name(tmp_path: Path) -> None:
    shares.make_sqlite(tmp_path / "state").close()
    (tmp_path / "fake.sqlite").write_bytes(b"SQLite" + b"\0" * 506)

    found = walk(share_at(tmp_path))

    assert found.sqlite == ("state",)


def test_a_pgdata_tree_is_found_and_not_entered(tmp_path: Path) -> None:
    shares.make_pgdata(tmp_path / "vol" / "pgdata")
    (tmp_path / "vol" / "other").touch()

    found = walk(share_at(tmp_path))

    assert found.pgdata == ("vol/pgdata",)
    assert found.files == 1


def test_a_change_is_seen_by_the_file_servers_clock_and_not_by_ours(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "logged").write_text("1")
    before = walk(share_at(tmp_path))
    (tmp_path / "logged").write_text("2")
    os.utime(tmp_path / "logged", ns=(0, 0))  # its mtime says nothing

    after = looking.changed_since(share_at(tmp_path), before, exclude=(), deadline=deadline())

    assert (after.changed, after.changed_count) == (("logged",), 1)


def test_nothing_changed_is_nothing(tmp_path: Path) -> None:
    shares.build_share(tmp_path / "share")
    before = walk(share_at(tmp_path / "share"))

    after = looking.changed_since(
        share_at(tmp_path / "share"), before, exclude=(), deadline=deadline()
    )

    assert after.changed_count == 0


def test_more_changes_than_are_listed_are_counted(tmp_path: Path) -> None:
    before = Inventory(files=0, size_bytes=0, directories=0, others=0, newest_ctime_ns=0)
    for number in range(sharewalk.LISTED + 1):
        (tmp_path / str(number)).touch()

    after = looking.changed_since(share_at(tmp_path), before, exclude=(), deadline=deadline())

    assert after.changed_count == sharewalk.LISTED + 1
    assert len(after.changed) == sharewalk.LISTED


def test_hashes_leave_out_what_is_gone_and_do_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/passwd")

    found = looking.hash_files(share_at(tmp_path), ("a", "gone", "link"), deadline=deadline())

    assert set(found) == {"a"}
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert found["a"][:2] == (empty, 0)


def test_a_probe_tells_the_mount(tmp_path: Path) -> None:
    probed = looking.probe(share_at(Path("/proc")), clock=CLOCK, deadline=deadline())

    assert (probed.mount.here, probed.mount.kind) == (True, "proc")
    assert not looking.probe(share_at(tmp_path), clock=CLOCK, deadline=deadline()).mount.here


@pytest.mark.parametrize(
    ("kind", "remote"), [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False)]
)
def test_a_mount_that_others_may_write_to_is_remote(kind: str, *, remote: bool) -> None:
    assert looking.Mount(point="/", kind=kind, source="", here=True).is_remote is remote
