"""A backup in a directory is whole, private, and never on the wrong disk."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opsd.backup import directory
from opsd.backup.directory import DirectoryRepository
from opsd.backup.repository import AlreadyExists, NotFound
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.testing import RUN_ID
from tests.rig import parts, scratch

KEY = "database/main/app/20261122T030000Z-0123456789ab.dump"
MIB = 1 << 20


@pytest.fixture
def repository(tmp_path: Path) -> DirectoryRepository:
    return DirectoryRepository("disk", tmp_path)


def put(repository: DirectoryRepository, content: bytes, key: str = KEY) -> None:
    upload = repository.upload(key, run_id=RUN_ID)
    try:
        upload.write(content)
        upload.commit()
    finally:
        upload.abort()


def get(repository: DirectoryRepository, key: str = KEY) -> bytes:
    return b"".join(repository.read(key))


def files(path: Path) -> list[str]:
    return sorted(str(one.relative_to(path)) for one in path.rglob("*") if not one.is_dir())


def test_what_is_written_is_for_its_owner_only(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        put(repository, b"x")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "database").stat().st_mode) == 0o700


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_success(
    repository: DirectoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(repository, b"x", "database/main/app/first")
    calls: list[str] = []
    sync, link = os.fsync, os.link

    def recording_sync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        calls.append("sync directory" if is_directory else "sync file")
        sync(descriptor)

    def recording_link(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        calls.append("link")
        link(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "fsync", recording_sync)
    monkeypatch.setattr(os, "link", recording_link)
    put(repository, b"x")

    assert calls == ["sync file", "link", "sync directory"]


@pytest.mark.real
def test_reading_back_asks_the_disk_and_not_the_page_cache(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    def cached_pages(path: Path) -> int:
        fincore = [str(parts.program("fincore")), "--noheadings", "--output", "PAGES", str(path)]
        return int(subprocess.run(fincore, capture_output=True, check=True).stdout)

    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(bytes(8 * MIB))
    (leftover,) = repository.unfinished("")
    while_written = cached_pages((tmp_path / KEY).with_name(leftover.token))
    upload.commit()

    assert while_written == 2048
    assert cached_pages(tmp_path / KEY) == 0


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from opsd.backup.directory import DirectoryRepository
upload = DirectoryRepository("disk", Path(sys.argv[1])).upload(sys.argv[2], run_id="dead00000000")
upload.write(b"x" * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_no_object_and_its_leftover_is_told(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    ran = subprocess.run([sys.executable, "-c", KILLED_WRITER, tmp_path, KEY], check=False)

    leftovers = list(repository.unfinished(""))
    listed = list(repository.list(""))
    for leftover in leftovers:
        repository.discard(leftover)

    assert ran.returncode == -signal.SIGKILL
    assert listed == []
    assert [(one.key, one.run_id) for one in leftovers] == [(KEY, "dead00000000")]
    assert files(tmp_path) == []


def test_a_leftover_that_was_published_just_before_the_crash_can_be_discarded(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"whole")
    (leftover,) = repository.unfinished("")
    (tmp_path / KEY).hardlink_to((tmp_path / KEY).with_name(leftover.token))

    repository.discard(leftover)

    assert get(repository) == b"whole"
    assert files(tmp_path) == [KEY]
    upload.abort()


@pytest.mark.parametrize("token", ["", "x", "../x", ".partial--00000000-a/../../x", KEY])
def test_discarding_removes_temporary_files_only(
    repository: DirectoryRepository, tmp_path: Path, token: str
) -> None:
    put(repository, b"x")
    repository.upload("database/main/app/other", run_id=RUN_ID)
    (leftover,) = repository.unfinished("")

    with pytest.raises(PermanentError):
        repository.discard(
            type(leftover)(
                key=leftover.key, run_id="", started_at=leftover.started_at, token=token
            )
        )

    assert len(files(tmp_path)) == 2


@pytest.mark.real
def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    small_tmpfs: Callable[[str], Path],
) -> None:
    path = small_tmpfs("4m")
    repository = DirectoryRepository("disk", path)
    put(repository, b"old" * 1000, "database/main/app/old")

    with pytest.raises(PermanentError, match=r"disk: write database.*No space left.*free space"):
        put(repository, b"x" * 5 * MIB)

    assert files(path) == ["database/main/app/old"]
    assert get(repository, "database/main/app/old") == b"old" * 1000
    put(repository, b"x" * MIB)


@pytest.mark.real
def test_a_disk_that_went_read_only_is_told(small_tmpfs: Callable[[str], Path]) -> None:
    path = small_tmpfs("4m")
    repository = DirectoryRepository("disk", path)
    put(repository, b"x")
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)

    with pytest.raises(PermanentError, match="read-only"):
        put(repository, b"x", "database/main/app/new")
    with pytest.raises(PermanentError, match="read-only"):
        repository.delete(KEY)

    assert get(repository) == b"x"


@pytest.mark.real
def test_a_mounted_disk_is_used_and_so_is_a_directory_on_it(
    small_tmpfs: Callable[[str], Path],
) -> None:
    path = small_tmpfs("4m")
    (path / "backups").mkdir()

    for place in (path, path / "backups"):
        put(DirectoryRepository("disk", place, mounted=True), b"x")


def test_without_the_disk_nothing_is_written_to_what_lies_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == Path("/"))
    repository = DirectoryRepository("disk", tmp_path, mounted=True)

    for act in (
        lambda: put(repository, b"x"),
        lambda: list(repository.list("")),
        repository.probe,
    ):
        with pytest.raises(PermanentError, match="nothing is mounted"):
            act()

    assert files(tmp_path) == []


def test_a_missing_directory_is_told_and_not_made(tmp_path: Path) -> None:
    repository = DirectoryRepository("disk", tmp_path / "none")

    with pytest.raises(PermanentError, match="mkdir -p"):
        put(repository, b"x")
    with pytest.raises(PermanentError, match="mkdir -p"):
        list(repository.list(""))

    assert not (tmp_path / "none").exists()


def test_a_file_in_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PermanentError, match="not a directory"):
        list(DirectoryRepository("disk", tmp_path / "file").list(""))


def test_a_file_in_place_of_a_series_is_told(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    (tmp_path / "database").touch()

    with pytest.raises(PermanentError, match="not a directory; remove it"):
        put(repository, b"x")
    with pytest.raises(PermanentError, match="remove it"):
        get(repository)


def test_links_are_neither_followed_nor_listed(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file").symlink_to(outside / "secret")
    (inside / "series").symlink_to(outside)
    repository = DirectoryRepository("disk", inside)

    assert list(repository.list("")) == []
    with pytest.raises(PermanentError, match="symbolic link"):
        get(repository, "file")
    with pytest.raises(PermanentError, match="symbolic link"):
        put(repository, b"x", "series/new")
    assert files(outside) == ["secret"]


def test_foreign_files_are_not_listed(repository: DirectoryRepository, tmp_path: Path) -> None:
    put(repository, b"x")
    for name in ("lost+found", ".DS_Store", "a b", "ü"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / os.fsdecode(b"\xff\n")).touch()
    os.mkfifo(tmp_path / "pipe")

    assert [entry.key for entry in repository.list("")] == [KEY]


def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    repository: DirectoryRepository, tmp_path: Path
) -> None:
    put(repository, b"x" * 3 * MIB)
    pieces = repository.read(KEY)
    next(pieces)

    os.truncate(tmp_path / KEY, 2 * MIB)

    with pytest.raises(TransientError, match=f"{2 * MIB} of {3 * MIB}"):
        list(pieces)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_missing_rights_are_told_with_the_remedy() -> None:
    with scratch.directory("foreign") as home:
        os.seteuid(65534)
        try:
            with pytest.raises(PermanentError) as caught:
                DirectoryRepository("disk", home).probe()
        finally:
            os.seteuid(0)

    assert "probe of repository disk: write" in str(caught.value)
    assert "give the user that runs opsd the right" in str(caught.value)


def without_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links_the_first_writer_still_wins(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    without_links(monkeypatch, number)

    put(repository, b"first")
    with pytest.raises(AlreadyExists):
        put(repository, b"second")

    assert get(repository) == b"first"
    assert files(tmp_path) == [KEY]


def test_a_file_system_that_can_neither_is_refused(
    repository: DirectoryRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_links(monkeypatch, errno.EPERM)
    monkeypatch.setattr(directory, "_rename_exclusively", lambda *_: errno.EINVAL)

    with pytest.raises(PermanentError, match="use ext4"):
        put(repository, b"x")

    assert files(tmp_path) == []


def test_a_link_whose_reply_was_lost_is_ours(
    repository: DirectoryRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def answer_twice(source: Path, target: Path, *, follow_symlinks: bool) -> None:
        link(source, target, follow_symlinks=follow_symlinks)
        link(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", answer_twice)

    put(repository, b"x")

    assert get(repository) == b"x"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EIO, TransientError), (errno.ESTALE, TransientError)]
)
def test_a_failing_flush_is_an_error_and_leaves_nothing(
    repository: DirectoryRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    number: int,
    kind: type[OpsdError],
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "database/main/app").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(kind, match="write database"):
        put(repository, b"x")

    assert files(tmp_path) == []


def test_a_key_that_is_a_directory_is_no_object(repository: DirectoryRepository) -> None:
    put(repository, b"x")

    with pytest.raises(NotFound):
        get(repository, "database/main/app")


MEMORY_PROBE = """
import resource, sys
from pathlib import Path
from opsd.backup.directory import DirectoryRepository
repository = DirectoryRepository("disk", Path(sys.argv[1]))
repository.create("first", b"x")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
upload, piece = repository.upload("large", run_id="0"), bytes(1 << 20)
for _ in range(100):
    upload.write(piece)
upload.commit()
assert sum(map(len, repository.read("large"))) == 100 << 20
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_object(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY_PROBE, tmp_path], capture_output=True, check=True, text=True
    )

    assert int(ran.stdout) < 8 * 1024  # KiB
