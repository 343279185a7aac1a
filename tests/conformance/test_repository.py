"""Every repository keeps the same promises: memory, a directory, an S3 server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from opsd.backup.directory import DirectoryRepository
from opsd.backup.naming import InvalidKey
from opsd.backup.repository import CHUNK_BYTES, AlreadyExists, NotFound, Repository
from opsd.errors import OpsdError
from opsd.testing import RUN_ID, MemoryRepository
from tests.rig.repositories import s3_repository

MIB = 1 << 20
KEY = "database/main/app/20261122T030000Z-0123456789ab.dump"


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.real)])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    if request.param == "memory":
        return MemoryRepository()
    if request.param == "directory":
        return DirectoryRepository("disk", tmp_path)
    return s3_repository(request.getfixturevalue("s3_server"), tmp_path)


def put(repository: Repository, key: str, content: bytes) -> None:
    upload = repository.upload(key, run_id=RUN_ID)
    upload.write(content)
    upload.commit()


def get(repository: Repository, key: str) -> bytes:
    return b"".join(repository.read(key))


def keys(repository: Repository, prefix: str = "") -> list[str]:
    return [entry.key for entry in repository.list(prefix)]


def race(count: int, act: Callable[[int], None]) -> list[BaseException | None]:
    barrier = threading.Barrier(count)
    results: list[BaseException | None] = [None] * count

    def run(index: int) -> None:
        barrier.wait()
        try:
            act(index)
        except OpsdError as exc:
            results[index] = exc

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_what_was_committed_is_read_back(repository: Repository) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"one ")
    upload.write(bytearray(b"two "))
    upload.write(memoryview(b"three"))

    stored = upload.commit()

    assert (stored.key, stored.size_bytes) == (KEY, 13)
    assert stored.sha256 == hashlib.sha256(b"one two three").hexdigest()
    assert get(repository, KEY) == b"one two three"


def test_a_chunk_may_be_reused_after_the_call(repository: Repository) -> None:
    buffer = bytearray(b"first")
    upload = repository.upload(KEY, run_id=RUN_ID)

    upload.write(buffer)
    buffer[:] = b"other"
    upload.write(buffer)
    upload.commit()

    assert get(repository, KEY) == b"firstother"


def test_an_object_is_not_there_before_its_commit(repository: Repository) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"half")

    before = keys(repository)

    assert before == []
    with pytest.raises(NotFound):
        get(repository, KEY)
    upload.abort()


def test_an_empty_object_is_an_object(repository: Repository) -> None:
    stored = repository.upload(KEY, run_id=RUN_ID).commit()

    assert stored.size_bytes == 0
    assert get(repository, KEY) == b""
    assert keys(repository) == [KEY]


def test_two_empty_objects_under_one_key_are_one_too_many(repository: Repository) -> None:
    repository.upload(KEY, run_id=RUN_ID).commit()
    second = repository.upload(KEY, run_id=RUN_ID)

    with pytest.raises(AlreadyExists):
        second.commit()
    second.abort()


def test_the_first_writer_wins_and_the_second_is_told(repository: Repository) -> None:
    first = repository.upload(KEY, run_id=RUN_ID)
    second = repository.upload(KEY, run_id=RUN_ID)
    first.write(b"first")
    second.write(b"second")
    second.commit()

    with pytest.raises(AlreadyExists, match="app"):
        first.commit()
    first.abort()

    assert get(repository, KEY) == b"second"
    assert list(repository.unfinished("")) == []


def test_of_racing_uploads_exactly_one_wins(repository: Repository) -> None:
    def act(index: int) -> None:
        upload = repository.upload(KEY, run_id=RUN_ID)
        upload.write(b"%d" % index * 1000)
        try:
            upload.commit()
        finally:
            upload.abort()

    results = race(8, act)

    winners = [index for index, error in enumerate(results) if error is None]
    assert len(winners) == 1
    assert get(repository, KEY) == b"%d" % winners[0] * 1000
    assert all(isinstance(error, AlreadyExists) for error in results if error)
    assert list(repository.unfinished("")) == []


def test_of_racing_creations_exactly_one_wins(repository: Repository) -> None:
    results = race(8, lambda index: repository.create(KEY, b"%d" % index))

    winners = [index for index, error in enumerate(results) if error is None]
    assert len(winners) == 1
    assert get(repository, KEY) == b"%d" % winners[0]
    assert all(isinstance(error, AlreadyExists) for error in results if error)


def test_creating_the_same_content_again_is_fine(repository: Repository) -> None:
    repository.create(KEY, b"content")

    repository.create(KEY, b"content")

    assert get(repository, KEY) == b"content"


def test_creating_other_content_under_a_key_is_refused(repository: Repository) -> None:
    repository.create(KEY, b"content")

    with pytest.raises(AlreadyExists):
        repository.create(KEY, b"other")

    assert get(repository, KEY) == b"content"


def test_an_aborted_upload_leaves_nothing(repository: Repository) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"x" * (9 * MIB))

    upload.abort()
    upload.abort()

    assert keys(repository) == []
    assert list(repository.unfinished("")) == []


def test_abort_after_commit_keeps_the_object(repository: Repository) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"kept")
    upload.commit()

    upload.abort()

    assert get(repository, KEY) == b"kept"


def test_what_was_left_unfinished_can_be_told_and_discarded(repository: Repository) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"x" * (9 * MIB))

    leftovers = list(repository.unfinished("database/"))
    elsewhere = list(repository.unfinished("share/"))
    for leftover in leftovers * 2:
        repository.discard(leftover)

    assert [(one.key, one.run_id) for one in leftovers] == [(KEY, RUN_ID)]
    assert elsewhere == []
    assert list(repository.unfinished("")) == []


def test_discarding_never_touches_a_finished_object(repository: Repository) -> None:
    upload = repository.upload(KEY, run_id=RUN_ID)
    upload.write(b"x" * (9 * MIB))
    (leftover,) = repository.unfinished("")
    upload.commit()

    repository.discard(leftover)

    assert len(get(repository, KEY)) == 9 * MIB


@pytest.mark.parametrize(
    "size", [CHUNK_BYTES - 1, CHUNK_BYTES, 8 * MIB, 8 * MIB + 1, 20 * MIB + 7]
)
def test_objects_of_odd_sizes_come_back_whole_in_small_pieces(
    repository: Repository, size: int
) -> None:
    content = hashlib.shake_256(str(size).encode()).digest(size)
    upload = repository.upload(KEY, run_id=RUN_ID, size_hint=size)
    for start in range(0, size, 333_333):
        upload.write(content[start : start + 333_333])

    stored = upload.commit()
    pieces = list(repository.read(KEY))

    assert stored.size_bytes == size
    assert max(map(len, pieces)) <= CHUNK_BYTES
    assert b"".join(pieces) == content


def test_the_list_is_sorted_by_key(repository: Repository) -> None:
    written = ["a/b/c", "a-b/c", "a.json", "a/b-c", "a0", "a=20/x", "B/x", "a/b.json", "_/x"]
    for key in written:
        put(repository, key, b"x")

    assert keys(repository) == sorted(written)


def test_a_prefix_matches_exactly_itself(repository: Repository) -> None:
    for key in ("database/app/1.json", "database/app-prod/1.json", "database/appendix/1.json"):
        put(repository, key, b"x")

    assert keys(repository, "database/app/") == ["database/app/1.json"]
    assert len(keys(repository, "database/app")) == 3
    assert keys(repository, "database/app-") == ["database/app-prod/1.json"]
    assert keys(repository, "database/ap/") == []
    assert keys(repository, "nothing/") == []


def test_the_list_tells_size_and_time(repository: Repository) -> None:
    put(repository, KEY, b"12345")

    (entry,) = repository.list("")

    assert entry.size_bytes == 5
    assert entry.modified_at.utcoffset() is not None


def test_deleting_is_idempotent(repository: Repository) -> None:
    put(repository, KEY, b"x")

    repository.delete(KEY)
    repository.delete(KEY)

    assert keys(repository) == []


def test_a_deleted_key_is_free_again(repository: Repository) -> None:
    put(repository, KEY, b"old")
    repository.delete(KEY)

    put(repository, KEY, b"new")

    assert get(repository, KEY) == b"new"


def test_reading_what_is_not_there_says_so(repository: Repository) -> None:
    put(repository, "database/main/other", b"x")

    with pytest.raises(NotFound, match="database/main/missing"):
        get(repository, "database/main/missing")
    with pytest.raises(NotFound):
        get(repository, "database/main")


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "a//b", "/a", "a/", "../a", "a/..", ".hidden", "a b", "a\nb", "ü", "\udcff"),
        *("-a", "a\x00b", "a" * 201, "/".join(["a" * 100] * 9), "a/./b", "a\\b", "a*"),
    ],
)
def test_hostile_keys_are_refused(repository: Repository, key: str) -> None:
    with pytest.raises(InvalidKey):
        repository.upload(key, run_id=RUN_ID)
    with pytest.raises(InvalidKey):
        repository.create(key, b"x")
    with pytest.raises(InvalidKey):
        get(repository, key)
    with pytest.raises(InvalidKey):
        repository.delete(key)

    assert keys(repository) == []


def test_the_probe_tries_every_right_and_leaves_nothing(repository: Repository) -> None:
    repository.probe()

    assert keys(repository) == []
    assert list(repository.unfinished("")) == []


def test_many_threads_may_use_it_at_once(repository: Repository) -> None:
    def act(index: int) -> None:
        for turn in range(5):
            put(repository, f"many/{index}/{turn}", b"%d" % index)
            assert get(repository, f"many/{index}/{turn}") == b"%d" % index

    results = race(6, act)

    assert results == [None] * 6
    assert len(keys(repository, "many/")) == 30


def test_it_says_where_it_is(repository: Repository) -> None:
    assert repository.name
    assert repository.location
