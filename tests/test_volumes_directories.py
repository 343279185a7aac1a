"""The share is held against the volumes, by a child that may hang or die."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.clock import Deadline, SystemClock
from opsd.cluster.volumes import listing
from opsd.cluster.volumes.directories import (
    Export,
    Listing,
    about,
    export_of,
    read_listing,
    volumes_on,
)
from opsd.cluster.volumes.storage import Storage
from opsd.errors import ConfigError, DeadlineExceeded, TransientError
from opsd.model import Finding, Severity
from tests.rig import hungfs
from tests.test_volumes import storage, volume


def export(path: Path, server: str = "") -> Export:
    return Export(name="nfs", path=path, server=server, directory="/export")


def listed(path: Path, seen: Storage, *, measure_s: float = 60.0) -> Listing:
    deadline = Deadline.after(60, SystemClock())
    return read_listing(
        export(path),
        seen,
        ignored=("lost+found", ".snap*"),
        measure_s=measure_s,
        deadline=deadline,
    )


def fill(path: Path, size: int = 10) -> None:
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x" * size)


def by_check(found: Listing, seen: Storage) -> dict[str, Finding]:
    return {one.check.removeprefix("volumes."): one for one in about(found, seen)}


def test_directories_are_told_apart_by_the_volumes(tmp_path: Path) -> None:
    fill(tmp_path / "db-data", 1000)
    fill(tmp_path / "team/web", 20)
    fill(tmp_path / "team/old", 30)
    fill(tmp_path / "archived-gone/deep/down", 40)
    fill(tmp_path / "lost+found")
    fill(tmp_path / ".snapshots")
    (tmp_path / "a file").touch()
    seen = storage(volume("a"), volume("b", path="/export/team/web", phase="Released"))

    found = listed(tmp_path, seen)

    assert {one.path: (one.size_bytes, one.volumes) for one in found.found} == {
        "db-data": (1000, ("a",)),
        "team/web": (20, ("b",)),
        "team/old": (30, ()),
        "archived-gone": (40, ()),
    }
    told = by_check(found, seen)
    assert told["directories_archived"].summary == "archived-gone is archived, its claim deleted"
    assert told["directories_released"].summary == "team/web is of a volume that nobody has"
    assert told["directories_unknown"].summary == "team/old is of no volume"
    assert {one.severity for one in told.values()} == {Severity.INFO}


def test_each_directory_has_its_inode_and_its_newest_change(tmp_path: Path) -> None:
    fill(tmp_path / "db-data/deep")
    os.utime(tmp_path / "db-data", (1, 1))
    os.utime(tmp_path / "db-data/deep", (1, 1))
    os.utime(tmp_path / "db-data/deep/file", (2_000_000_000, 2_000_000_000))

    (one,) = listed(tmp_path, storage(volume())).found

    assert one.inode == (tmp_path / "db-data").stat().st_ino
    assert one.newest.timestamp() == 2_000_000_000
    assert one.files == 1


@pytest.mark.parametrize(
    ("phase", "severity"), [("Bound", Severity.CRITICAL), ("Released", Severity.WARNING)]
)
def test_a_volume_without_its_directory_is_told(
    tmp_path: Path, phase: str, severity: Severity
) -> None:
    seen = storage(volume(phase=phase))

    found = by_check(listed(tmp_path, seen), seen)["directory_missing"]

    assert found.severity is severity
    assert found.summary == "the directory of db/data is not on the share"
    assert found.facts["directory"] == "nas:/export/db-data"


def test_a_share_as_it_should_be_says_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "db-data")

    assert by_check(listed(tmp_path, storage(volume())), storage(volume())) == {}


def test_a_volume_that_is_the_whole_share_hides_nothing_below_it(tmp_path: Path) -> None:
    fill(tmp_path / "media")
    seen = storage(volume(path="/export"))

    (one,) = listed(tmp_path, seen).found

    assert (one.path, one.volumes) == ("", ("pv-1",))


def test_hostile_names_are_told(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff\n\x1b[31m")).mkdir()

    (found,) = about(listed(tmp_path, storage()), storage())

    assert found.summary == "\\udcff [31m is of no volume"


def test_links_are_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere/data", 500)
    fill(tmp_path / "share/db-data")
    (tmp_path / "share/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "share/db-data/link").symlink_to(tmp_path / "elsewhere")

    (one,) = listed(tmp_path / "share", storage(volume())).found

    assert one.size_bytes is not None
    assert one.size_bytes < 500


def test_without_time_to_measure_directories_are_still_listed(tmp_path: Path) -> None:
    fill(tmp_path / "db-data")
    fill(tmp_path / "old")
    seen = storage(volume())

    found = listed(tmp_path, seen, measure_s=0)

    assert [(one.path, one.size_bytes) for one in found.found] == [
        ("db-data", None),
        ("old", None),
    ]
    assert by_check(found, seen)["directories_unknown"].facts["not_measured"] == 1


def test_a_share_that_cannot_be_read_is_an_error_and_no_finding(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"share nfs: list .*missing.*No such file"):
        listed(tmp_path / "missing", storage())


def test_a_share_that_does_not_answer_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping = tmp_path / "sleeping.py"
    sleeping.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(listing, "__file__", str(sleeping))
    soon = Deadline.after(timedelta(milliseconds=300).total_seconds(), SystemClock())

    with pytest.raises(DeadlineExceeded):
        read_listing(export(tmp_path), storage(), ignored=(), measure_s=1, deadline=soon)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dead_file_server_is_left_behind_in_time() -> None:
    with hungfs.mounted() as dead:
        soon = Deadline.after(timedelta(seconds=2).total_seconds(), SystemClock())

        with pytest.raises(DeadlineExceeded):
            read_listing(export(dead), storage(volume()), ignored=(), measure_s=1, deadline=soon)


def test_only_volumes_of_the_share_are_looked_for(tmp_path: Path) -> None:
    here, elsewhere = volume("a"), volume("b", path="/exports/x")

    assert list(volumes_on(export(tmp_path), storage(here, elsewhere))) == ["db-data"]
    assert volumes_on(export(tmp_path, server="other"), storage(here)) == {}


@pytest.mark.parametrize(
    ("told", "source", "server", "directory"),
    [
        ("", "10.0.0.2:/export", "", "/export"),
        ("nas:/export", "10.0.0.2:/k8s", "nas", "/export"),
        ("/export", "", "", "/export"),
    ],
)
def test_a_share_is_found_by_its_mount_or_as_told(
    told: str, source: str, server: str, directory: str
) -> None:
    found = export_of("nfs", Path("/srv"), told=told, source=source, storage=storage(volume()))

    assert (found.server, found.directory) == (server, directory)


def test_a_share_on_no_nfs_mount_must_be_told() -> None:
    with pytest.raises(ConfigError, match="share nfs: /srv is no NFS mount: set export"):
        export_of("nfs", Path("/srv"), told="", source="/dev/sda1", storage=storage())


def test_when_several_servers_have_such_a_directory_the_mount_decides_or_nobody() -> None:
    other = volume("b", csi=csi("nas-2", "/export"))
    both = storage(volume(), other)

    found = export_of("nfs", Path("/srv"), told="", source="nas:/export", storage=both)

    assert found.server == "nas"
    with pytest.raises(ConfigError, match=r"several servers \(nas, nas-2\): set export"):
        export_of("nfs", Path("/srv"), told="", source="10.0.0.2:/export", storage=both)


def csi(server: str, share: str) -> dict[str, object]:
    attributes = {"server": server, "share": share, "subdir": "x"}
    return {"driver": "nfs.csi.k8s.io", "volumeHandle": "h", "volumeAttributes": attributes}


def test_the_child_needs_nothing_of_opsd() -> None:
    source = Path(listing.__file__).read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.startswith("import ")}

    assert imported <= sys.stdlib_module_names
    assert "from opsd" not in source
