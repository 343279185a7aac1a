"""A removal may die anywhere: what is left is a whole backup or one that the sweep ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from opsd.backup.catalog import Backup, publish, read_catalog, record_verification
from opsd.backup.manifest import Manifest, Verification, data_key
from opsd.backup.prune import prune, sweep
from opsd.backup.retention import Decision
from opsd.errors import PermanentError, TransientError
from opsd.testing import RUN_ID, START, FakeClock, MemoryRepository

SUBJECT = "database/main/app"
OLD = START - timedelta(days=1)
DEAD = "dead00000000"


class Crash(BaseException):
    """The process died here."""


class Crashing(MemoryRepository):
    """Dies before or after the n-th change."""

    def __init__(self) -> None:
        super().__init__(clock=FakeClock())
        self.dies_at = -1
        self.after = False
        self.changes = 0

    def create(self, key: str, content: bytes) -> None:
        with self._dying():
            super().create(key, content)

    def delete(self, key: str) -> None:
        with self._dying():
            super().delete(key)

    def _dying(self) -> _Dying:
        self.changes += 1
        return _Dying(dies=self.changes == self.dies_at, after=self.after)


@dataclasses.dataclass
class _Dying:
    dies: bool
    after: bool

    def __enter__(self) -> None:
        if self.dies and not self.after:
            raise Crash

    def __exit__(self, *_: object) -> None:
        if self.dies and self.after:
            raise Crash


def make(
    repository: MemoryRepository, slot: datetime, *, run_id: str = RUN_ID, kind: str = "pg_dump"
) -> Backup:
    manifest = Manifest(
        kind=kind,
        subject=SUBJECT,
        slot=slot,
        run_id=run_id,
        created_at=slot,
        key="" if kind == "restic" else data_key(SUBJECT, slot, run_id, ".dump"),
        size_bytes=4,
        sha256="0" * 64,
        verified=(Verification(level="read_back", at=slot, ok=True),),
    )
    if manifest.key:
        repository.create(manifest.key, b"data")
    publish(repository, manifest)
    return next(one for one in read_catalog(repository).backups if one.manifest == manifest)


def filled() -> tuple[Crashing, Backup, Backup]:
    repository = Crashing()
    new, old = make(repository, START), make(repository, OLD)
    record_verification(repository, old, Verification(level="parsed", at=START, ok=True))
    repository.changes = 0
    return repository, new, old


def remove(repository: MemoryRepository, backup: Backup) -> list[Backup]:
    return list(prune(repository, [Decision(backup, ("no rule keeps it",))], now=START))


def keys(repository: MemoryRepository) -> list[str]:
    return [entry.key for entry in repository.list("")]


def run_sweep(repository: MemoryRepository, *dead: str) -> object:
    return sweep(repository, SUBJECT, dead_runs=set(dead), now=START)


def test_a_removed_backup_leaves_nothing_and_the_other_stays() -> None:
    repository, new, old = filled()

    gone = remove(repository, old)

    assert gone == [old]
    assert keys(repository) == [new.manifest.key, new.key]


STEPS = 5  # tombstone, manifest, data, one record, tombstone


def test_a_removal_makes_as_many_changes_as_are_crashed_below() -> None:
    repository, _, old = filled()

    remove(repository, old)

    assert repository.changes == STEPS


@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("again", ["sweep", "prune"])
def test_a_crash_at_any_step_leaves_a_whole_backup_or_one_that_goes_on(
    step: int, again: str, *, after: bool
) -> None:
    repository, new, old = filled()
    repository.dies_at, repository.after = step, after
    with pytest.raises(Crash):
        remove(repository, old)

    catalog = read_catalog(repository)
    if again == "sweep":
        run_sweep(repository)
    else:
        remove(repository, old)
    left = keys(repository)

    whole = step == 1 and not after
    listed = [one.key for one in catalog.backups]
    assert new.key in listed
    assert (old.key in listed) is whole
    if not whole or again == "prune":
        assert left == [new.manifest.key, new.key]


@pytest.mark.parametrize("first", range(1, STEPS + 1))
@pytest.mark.parametrize("second", range(1, STEPS))
def test_a_crash_of_the_sweep_after_a_crash_is_survived_too(first: int, second: int) -> None:
    repository, new, old = filled()
    repository.dies_at, repository.after = first, True
    with pytest.raises(Crash):
        remove(repository, old)
    repository.changes, repository.dies_at = 0, second
    try:
        run_sweep(repository)
    except Crash:
        repository.dies_at = -1

    run_sweep(repository)

    assert keys(repository) == [new.manifest.key, new.key]


def test_a_tombstone_never_takes_what_was_published_after_it() -> None:
    repository, new, old = filled()
    repository.dies_at, repository.after = 2, True  # the manifest is gone, the data is not
    with pytest.raises(Crash):
        remove(repository, old)
    repository.dies_at = -1
    later = dataclasses.replace(
        old.manifest, run_id="a" * 12, key=data_key(SUBJECT, OLD, "a" * 12, ".dump")
    )
    repository.create(later.key, b"data")
    publish(repository, later)

    run_sweep(repository)

    backups = read_catalog(repository).backups
    assert [one.manifest for one in backups] == [new.manifest, later]
    assert old.manifest.key not in keys(repository)


def test_a_damaged_tombstone_is_told_and_removes_nothing() -> None:
    repository, _, old = filled()
    place = old.key.replace(".json", ".tombstone")
    repository.create(place, b"{")

    with pytest.raises(PermanentError, match="tombstone"):
        run_sweep(repository)

    assert old.key in keys(repository)
    assert old.manifest.key in keys(repository)


def test_a_tombstone_of_another_backup_removes_nothing() -> None:
    repository, new, old = filled()
    repository.dies_at, repository.after = 1, True
    with pytest.raises(Crash):
        remove(repository, old)
    stolen = b"".join(repository.read(old.key.replace(".json", ".tombstone")))
    repository.delete(old.key.replace(".json", ".tombstone"))
    repository.create(new.key.replace(".json", ".tombstone"), stolen)

    with pytest.raises(PermanentError, match="another backup"):
        run_sweep(repository)

    assert {new.key, old.key, new.manifest.key, old.manifest.key} <= set(keys(repository))


def test_engine_data_is_removed_by_the_engine_and_after_a_crash_again() -> None:
    repository = Crashing()
    old = make(repository, OLD, kind="restic")
    forgotten: list[Manifest] = []

    def forget(manifest: Manifest) -> None:
        forgotten.append(manifest)
        if len(forgotten) == 1:
            raise TransientError("restic: the repository is locked")

    with pytest.raises(TransientError):
        list(prune(repository, [Decision(old, ("old",))], now=START, remove_from_engine=forget))
    sweep(repository, SUBJECT, dead_runs=(), now=START, remove_from_engine=forget)

    assert forgotten == [old.manifest, old.manifest]
    assert keys(repository) == []


def test_engine_data_without_its_engine_is_refused() -> None:
    repository = Crashing()
    old = make(repository, OLD, kind="restic")

    with pytest.raises(PermanentError, match="restic"):
        remove(repository, old)


class Locked(MemoryRepository):
    """Keeps every manifest, as Object Lock does."""

    def delete(self, key: str) -> None:
        if key.endswith(".json"):
            raise PermanentError(f"delete {key}: locked until 2027-01-01")
        super().delete(key)


def test_what_the_repository_keeps_stays_whole_and_is_told() -> None:
    repository = Locked()
    old = make(repository, OLD)

    with pytest.raises(PermanentError, match="locked until"):
        remove(repository, old)

    assert old.key in keys(repository)
    assert old.manifest.key in keys(repository)


def leave_upload(repository: MemoryRepository, run_id: str, subject: str = SUBJECT) -> None:
    repository.upload(data_key(subject, START, run_id, ".dump"), run_id=run_id).write(b"half")


def unfinished(repository: MemoryRepository) -> Iterator[str]:
    return (one.run_id for one in repository.unfinished(""))


def test_an_upload_of_a_dead_run_is_discarded_and_one_of_a_live_run_is_not() -> None:
    repository = Crashing()
    leave_upload(repository, DEAD)
    leave_upload(repository, "a1fe00000000")

    run_sweep(repository, DEAD)

    assert list(unfinished(repository)) == ["a1fe00000000"]


@pytest.mark.parametrize(("hours", "goes"), [(24, False), (25, True)])
def test_an_upload_older_than_a_day_is_discarded(hours: int, *, goes: bool) -> None:
    repository = Crashing()
    leave_upload(repository, RUN_ID)

    sweep(repository, SUBJECT, dead_runs=(), now=START + timedelta(hours=hours))

    assert (list(unfinished(repository)) == []) is goes


def test_uploads_and_data_of_other_series_are_left_alone() -> None:
    repository = Crashing()
    for other in ("database/main/app-prod", f"{SUBJECT}/deeper"):
        leave_upload(repository, DEAD, other)
        repository.create(data_key(other, START, DEAD, ".dump"), b"data")

    run_sweep(repository, DEAD)

    assert list(unfinished(repository)) == [DEAD, DEAD]
    assert len(keys(repository)) == 2


def test_data_of_a_dead_run_goes_and_of_an_unknown_run_is_only_told() -> None:
    repository = Crashing()
    dead, unknown = (data_key(SUBJECT, START, run, ".dump") for run in (DEAD, RUN_ID))
    repository.create(dead, b"data")
    repository.create(unknown, b"data")

    swept = sweep(repository, SUBJECT, dead_runs={DEAD}, now=START)

    assert swept.deleted == (dead,)
    assert [entry.key for entry in swept.orphans] == [unknown]
    assert keys(repository) == [unknown]


def test_data_with_a_manifest_stays_even_if_its_run_died_after_publishing() -> None:
    repository = Crashing()
    published = make(repository, START, run_id=DEAD)

    swept = sweep(repository, SUBJECT, dead_runs={DEAD}, now=START)

    assert (swept.deleted, swept.orphans) == ((), ())
    assert keys(repository) == [published.manifest.key, published.key]


def test_data_of_a_dead_attempt_goes_although_another_attempt_was_published() -> None:
    repository = Crashing()
    published = make(repository, START)
    repository.create(data_key(SUBJECT, START, DEAD, ".dump"), b"data")

    swept = sweep(repository, SUBJECT, dead_runs={DEAD}, now=START)

    assert swept.deleted == (data_key(SUBJECT, START, DEAD, ".dump"),)
    assert keys(repository) == [published.manifest.key, published.key]


def test_data_beside_a_damaged_manifest_is_never_taken_for_an_orphan() -> None:
    repository = Crashing()
    published = make(repository, START, run_id=DEAD)
    repository.replace(published.key, b"{")

    swept = sweep(repository, SUBJECT, dead_runs={DEAD}, now=START)

    assert (swept.deleted, swept.orphans) == ((), ())
    assert published.manifest.key in keys(repository)
