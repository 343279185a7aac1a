from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from opsd.backup import housekeeping
from opsd.backup.catalog import Backup, publish
from opsd.backup.manifest import Manifest, Verification, data_key, manifest_key
from opsd.config import Keep
from opsd.errors import PermanentError
from opsd.testing import MemoryRepository

NOW = datetime(2026, 11, 22, 4, tzinfo=UTC)
SLOT = datetime(2026, 11, 22, 3, tzinfo=UTC)
SUBJECT = "database/main/app"


def manifest(*, days_ago: int = 0, size_bytes: int = 1000, good: bool = True) -> Manifest:
    slot = SLOT - timedelta(days=days_ago)
    proof = Verification(level="read_back", at=slot, ok=good)
    return Manifest(
        kind="pg_dump",
        subject=SUBJECT,
        slot=slot,
        run_id="0123456789ab",
        created_at=slot,
        key=data_key(SUBJECT, slot, "0123456789ab", ".dump"),
        size_bytes=size_bytes,
        sha256="0" * 64,
        source={"compression": "zstd:1"},
        verified=(proof,),
    )


def backup(*, days_ago: int, size_bytes: int = 1000, good: bool = True) -> Backup:
    one = manifest(days_ago=days_ago, size_bytes=size_bytes, good=good)
    return Backup(key=manifest_key(SUBJECT, one.slot), manifest=one, verifications=one.verified)


@pytest.mark.parametrize(("size_bytes", "told"), [(501, 0), (500, 1), (499, 1), (2000, 0)])
def test_half_the_usual_size_is_where_the_warning_begins(size_bytes: int, told: int) -> None:
    before = [backup(days_ago=1, size_bytes=900), backup(days_ago=2), backup(days_ago=3)]

    found = list(
        housekeeping.shrunk(manifest(size_bytes=size_bytes), before, percent=50, repository="usb")
    )

    assert len(found) == told


def test_only_good_backups_made_in_the_same_way_are_usual() -> None:
    failed = backup(days_ago=1, size_bytes=9000, good=False)
    other = backup(days_ago=2, size_bytes=9000)
    gzip = replace(other, manifest=replace(other.manifest, source={"compression": "gzip:1"}))

    found = list(housekeeping.shrunk(manifest(), [failed, gzip], percent=50, repository="usb"))

    assert found == []


def test_the_first_backup_has_nothing_to_be_compared_with() -> None:
    assert list(housekeeping.shrunk(manifest(), [], percent=50, repository="usb")) == []


def stored(repository: MemoryRepository, *, days: int) -> list[str]:
    for day in range(days):
        one = manifest(days_ago=day, size_bytes=1)
        repository.create(one.key, b"x")
        publish(repository, one)
    return [entry.key for entry in repository.list("")]


RULES = Keep(last=2, daily=0, weekly=0, monthly=0, minimum=1)


def test_what_no_rule_keeps_goes_with_its_data() -> None:
    repository = MemoryRepository()
    stored(repository, days=3)

    told = list(housekeeping.retain(repository, SUBJECT, RULES, now=NOW, timezone=UTC))

    assert told == []
    slots = {entry.key.split("/")[-1][:8] for entry in repository.list("")}
    assert slots == {"20261122", "20261121"}


def test_a_description_removes_nothing_and_gives_reasons() -> None:
    repository = MemoryRepository()
    before = stored(repository, days=3)

    told = list(housekeeping.describe(repository, SUBJECT, RULES, now=NOW, timezone=UTC))

    assert [entry.key for entry in repository.list("")] == before
    assert [one.check for one in told] == ["dry_run.keep", "dry_run.keep", "dry_run.remove"]
    assert all(one.summary for one in told)


def test_retention_that_refuses_is_a_finding() -> None:
    repository = MemoryRepository()
    before = stored(repository, days=10)

    [told] = housekeeping.retain(repository, SUBJECT, RULES, now=NOW, timezone=UTC)

    assert told.check == "backup.retention_refused"
    assert [entry.key for entry in repository.list("")] == before


class Locked(MemoryRepository):
    """Keeps everything, as under Object Lock."""

    def delete(self, key: str) -> None:
        raise PermanentError(f"repository {self.name}: delete {key}: locked until 2027")


def test_a_repository_that_keeps_what_should_go_is_a_finding() -> None:
    repository = Locked()
    stored(repository, days=3)

    [told] = housekeeping.retain(repository, SUBJECT, RULES, now=NOW, timezone=UTC)

    assert told.check == "backup.not_cleared"
    assert "locked until" in str(told.facts["error"])


def test_data_of_dead_runs_goes_and_data_of_unknown_runs_is_told() -> None:
    repository = MemoryRepository()
    for run_id in ("dead00000000", "unknown00000"):
        repository.create(data_key(SUBJECT, SLOT, run_id, ".dump"), b"x")

    [told] = housekeeping.clear_leftovers(
        repository, SUBJECT, dead_runs=frozenset({"dead00000000"}), now=NOW
    )

    assert told.check == "backup.orphans"
    [left] = repository.list("")
    assert "unknown00000" in left.key
