"""The catalog tells what exists from the repository alone, whatever is damaged in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from opsd.backup.catalog import (
    AlreadyPublished,
    Backup,
    Condition,
    publish,
    read_catalog,
    record_verification,
    verify_stored,
)
from opsd.backup.manifest import Level, Manifest, Verification, data_key, later_key, manifest_key
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, PermanentError, TransientError
from opsd.progress import NoProgress
from opsd.testing import RUN_ID, START, FakeClock, MemoryRepository

SUBJECT = "database/main/app"
CONTENT = b"the dump"


@pytest.fixture
def repository() -> MemoryRepository:
    return MemoryRepository()


def proof(level: str = "read_back", *, ok: bool = True, minutes: int = 0) -> Verification:
    return Verification(level=level, at=START + timedelta(minutes=minutes), ok=ok)


def manifest(
    *proofs: Verification, subject: str = SUBJECT, slot: datetime = START, kind: str = "pg_dump"
) -> Manifest:
    return Manifest(
        kind=kind,
        subject=subject,
        slot=slot,
        run_id=RUN_ID,
        created_at=slot,
        key="" if kind == "restic" else data_key(subject, slot, RUN_ID, ".dump"),
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        verified=proofs,
    )


def store(repository: MemoryRepository, value: Manifest) -> str:
    if value.key:
        repository.create(value.key, CONTENT)
    return publish(repository, value)


def only(repository: MemoryRepository) -> Backup:
    (backup,) = read_catalog(repository).backups
    return backup


def deadline() -> Deadline:
    return Deadline.after(60, FakeClock())


def test_backups_come_by_subject_and_the_newest_first(repository: MemoryRepository) -> None:
    for subject in ("share/nfs", SUBJECT, "globals/main"):
        for hours in (1, 3, 2):
            store(repository, manifest(subject=subject, slot=START + timedelta(hours=hours)))

    catalog = read_catalog(repository)

    assert catalog.subjects == (SUBJECT, "globals/main", "share/nfs")
    assert [one.manifest.slot.hour for one in catalog.series("share/nfs")] == [6, 5, 4]
    assert [one.manifest.subject for one in catalog.backups[:3]] == [SUBJECT] * 3
    assert catalog.problems == ()


def test_what_engines_keep_is_not_walked(repository: MemoryRepository) -> None:
    store(repository, manifest())
    repository.create("restic/20261122T030000Z.json", b"not ours")

    catalog = read_catalog(repository)

    assert len(catalog.backups) == 1
    assert catalog.problems == ()


def test_a_prefix_limits_what_is_read(repository: MemoryRepository) -> None:
    store(repository, manifest())
    store(repository, manifest(subject="database/main/app-prod"))

    catalog = read_catalog(repository, "database/main/app/")

    assert catalog.subjects == (SUBJECT,)


def test_data_without_a_manifest_is_no_backup(repository: MemoryRepository) -> None:
    repository.create(data_key(SUBJECT, START, RUN_ID, ".dump"), CONTENT)

    assert read_catalog(repository).backups == ()


def as_json(**changes: object) -> bytes:
    fields = {
        "kind": "pg_dump",
        "subject": SUBJECT,
        "slot": "2026-11-22T03:00:00Z",
        "run_id": RUN_ID,
        "created_at": "2026-11-22T03:00:00Z",
        "key": data_key(SUBJECT, START, RUN_ID, ".dump"),
        "size_bytes": 8,
        "sha256": "0",
    }
    return json.dumps({**fields, **changes}).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable manifest"),
        (b"{", "not a readable manifest"),
        (b"\x00" * 400, "not a readable manifest"),
        (b"[" * 100_000, "not a readable manifest"),
        (b"{}", "missing required field"),
        (as_json(slot="2026-11-22T03:00:00"), "timezone"),
        (as_json(size_bytes="8"), "size_bytes"),
        (as_json(format=2), "update opsd"),
        (as_json(slot="2026-11-23T03:00:00Z"), "moved or copied"),
        (as_json(subject="database/main/other"), "moved or copied"),
        (as_json(key="database/main/other/20261122T030000Z-1.dump"), "does not belong"),
        (as_json(key=f"{SUBJECT}/20261122T030000Z-../../x"), "does not belong"),
    ],
)
def test_a_damaged_manifest_is_told_and_hides_nothing(
    repository: MemoryRepository, content: bytes, reason: str
) -> None:
    store(repository, manifest(slot=START - timedelta(days=1)))
    bad = manifest_key(SUBJECT, START)
    repository.create(bad, content)

    catalog = read_catalog(repository)

    assert len(catalog.backups) == 1
    assert [problem.key for problem in catalog.problems] == [bad]
    assert reason in catalog.problems[0].reason
    assert bad in catalog.problems[0].reason
    assert bad in [entry.key for entry in repository.list("")]


@pytest.mark.parametrize(
    ("proofs", "condition", "level"),
    [
        ([], "unverified", Level.NONE),
        ([proof("none")], "unverified", Level.NONE),
        ([proof()], "good", Level.READ_BACK),
        ([proof(ok=False)], "failed", Level.NONE),
        ([proof(), proof("restored", minutes=1)], "good", Level.RESTORED),
        ([proof(), proof(ok=False, minutes=1)], "failed", Level.NONE),
        ([proof(ok=False), proof(minutes=1)], "good", Level.READ_BACK),
        ([proof(), proof("restored", ok=False, minutes=1)], "failed", Level.READ_BACK),
        (
            [proof("restored", ok=False), proof("parsed", minutes=1)],
            "failed",
            Level.PARSED,
        ),
        ([proof("restored", ok=False), proof("restored", minutes=1)], "good", Level.RESTORED),
        ([proof(ok=False), proof("restored", minutes=1)], "good", Level.RESTORED),
        ([proof("restored"), proof(ok=False, minutes=1)], "failed", Level.RESTORED),
    ],
)
def test_the_last_attempt_at_each_level_decides(
    repository: MemoryRepository, proofs: list[Verification], condition: str, level: Level
) -> None:
    store(repository, manifest(*reversed(proofs)))

    backup = only(repository)

    assert backup.condition == Condition(condition)
    assert backup.level == level


def test_a_later_record_changes_the_condition_and_not_the_manifest(
    repository: MemoryRepository,
) -> None:
    store(repository, manifest(proof()))
    before = only(repository)

    record_verification(repository, before, proof(ok=False, minutes=5))
    after = only(repository)

    assert before.condition is Condition.GOOD
    assert after.condition is Condition.FAILED
    assert after.manifest == before.manifest


def test_two_records_of_one_second_are_both_kept(repository: MemoryRepository) -> None:
    store(repository, manifest(proof()))
    backup = only(repository)

    record_verification(repository, backup, proof("parsed", minutes=5))
    record_verification(repository, backup, proof("restored", ok=False, minutes=5))

    assert len(only(repository).verifications) == 3


def test_a_record_of_another_backup_changes_nothing_and_is_told(
    repository: MemoryRepository,
) -> None:
    store(repository, manifest(proof()))
    backup = only(repository)
    stranger = dataclasses.replace(
        backup, manifest=dataclasses.replace(backup.manifest, sha256="1" * 64)
    )

    key = record_verification(repository, stranger, proof(ok=False, minutes=5))
    catalog = read_catalog(repository)

    assert catalog.backups[0].condition is Condition.GOOD
    assert [problem.key for problem in catalog.problems] == [key]


def test_a_damaged_record_is_told(repository: MemoryRepository) -> None:
    key = store(repository, manifest(proof()))
    bad = later_key(key, START)
    repository.create(bad, b"{")

    catalog = read_catalog(repository)

    assert catalog.backups[0].condition is Condition.GOOD
    assert [problem.key for problem in catalog.problems] == [bad]


def test_a_backup_whose_data_is_gone_is_failed(repository: MemoryRepository) -> None:
    store(repository, manifest(proof()))
    repository.delete(manifest().key)

    catalog = read_catalog(repository)

    assert catalog.backups[0].condition is Condition.FAILED
    assert "missing" in catalog.problems[0].reason


def test_a_backup_whose_data_was_cut_is_failed(repository: MemoryRepository) -> None:
    store(repository, manifest(proof()))
    repository.replace(manifest().key, CONTENT[:-1])

    catalog = read_catalog(repository)

    assert catalog.backups[0].condition is Condition.FAILED
    assert "7 bytes" in catalog.problems[0].reason


def test_a_backup_that_is_being_removed_is_none(repository: MemoryRepository) -> None:
    key = store(repository, manifest(proof()))
    repository.create(key.replace(".json", ".tombstone"), b"{}")

    catalog = read_catalog(repository)

    assert catalog.backups == ()
    assert [problem.key for problem in catalog.problems] == [key]


class Failing(MemoryRepository):
    """Reads fail for keys that contain a word."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def read(self, key: str) -> Iterator[bytes]:
        if self.word and self.word in key:
            raise TransientError(f"read {key}: connection reset")
        return super().read(key)


def test_a_manifest_that_cannot_be_fetched_now_is_told() -> None:
    repository = Failing("")
    store(repository, manifest())
    store(repository, manifest(slot=START - timedelta(days=1)))
    repository.word = "20261122"

    catalog = read_catalog(repository)

    assert len(catalog.backups) == 1
    assert "connection reset" in catalog.problems[0].reason


def test_a_repository_that_answers_no_read_is_an_error_and_not_an_empty_catalog() -> None:
    repository = Failing("")
    store(repository, manifest())
    repository.word = "database"

    with pytest.raises(TransientError):
        read_catalog(repository)


def test_a_slot_is_published_once(repository: MemoryRepository) -> None:
    first = manifest(proof())
    store(repository, first)

    publish(repository, first)
    with pytest.raises(AlreadyPublished, match=SUBJECT):
        publish(repository, dataclasses.replace(first, run_id="f" * 12, key=""))

    assert only(repository).manifest == first


def test_a_manifest_that_claims_foreign_data_is_not_published(
    repository: MemoryRepository,
) -> None:
    foreign = dataclasses.replace(manifest(), key="database/main/other/20261122T030000Z-1.dump")

    with pytest.raises(PermanentError, match="does not belong"):
        publish(repository, foreign)

    assert list(repository.list("")) == []


def test_stored_bytes_that_match_are_verified(repository: MemoryRepository) -> None:
    store(repository, manifest())

    found = verify_stored(repository, only(repository), deadline=deadline(), progress=NoProgress())

    assert (found.ok, found.level, found.at) == (True, "read_back", START)


@pytest.mark.parametrize(
    ("damaged", "detail"),
    [(b"thE dump", "SHA-256"), (b"the dum", "7 bytes"), (b"the dump ", "9 bytes")],
)
def test_stored_bytes_that_differ_fail_the_verification(
    repository: MemoryRepository, damaged: bytes, detail: str
) -> None:
    store(repository, manifest())
    backup = only(repository)
    repository.replace(backup.manifest.key, damaged)

    found = verify_stored(repository, backup, deadline=deadline(), progress=NoProgress())

    assert not found.ok
    assert detail in found.detail


def test_missing_bytes_fail_the_verification(repository: MemoryRepository) -> None:
    store(repository, manifest())
    backup = only(repository)
    repository.delete(backup.manifest.key)

    found = verify_stored(repository, backup, deadline=deadline(), progress=NoProgress())

    assert not found.ok


def test_bytes_that_cannot_be_read_prove_nothing() -> None:
    repository = Failing("")
    store(repository, manifest())
    backup = only(repository)
    repository.word = ".dump"

    with pytest.raises(TransientError):
        verify_stored(repository, backup, deadline=deadline(), progress=NoProgress())


def test_verification_ends_at_the_deadline(repository: MemoryRepository) -> None:
    store(repository, manifest())
    clock = FakeClock()
    limit = Deadline.after(60, clock)
    clock.advance(timedelta(seconds=60))

    with pytest.raises(DeadlineExceeded):
        verify_stored(repository, only(repository), deadline=limit, progress=NoProgress())


def test_engine_data_is_not_read_back_here(repository: MemoryRepository) -> None:
    store(repository, manifest(kind="restic"))

    with pytest.raises(PermanentError, match="restic"):
        verify_stored(repository, only(repository), deadline=deadline(), progress=NoProgress())


def test_times_of_any_zone_are_compared_right(repository: MemoryRepository) -> None:
    content = as_json(
        verified=[
            {"level": "read_back", "at": "2026-11-22T05:00:00+02:00", "ok": False},
            {"level": "read_back", "at": "2026-11-22T04:00:00+00:00", "ok": True},
        ]
    )
    repository.create(data_key(SUBJECT, START, RUN_ID, ".dump"), CONTENT)
    repository.create(manifest_key(SUBJECT, START), content)

    backup = only(repository)

    assert backup.condition is Condition.GOOD
    assert backup.manifest.slot == datetime(2026, 11, 22, 3, tzinfo=UTC)
