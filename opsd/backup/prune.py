"""Remove backups so that a crash at any point leaves nothing half there, and sweep what crashed.

A removal begins with a tombstone beside the manifest, which says what goes. Then go the
manifest, the data, the records, and last the tombstone; whoever finds a tombstone later
goes on where it stopped. Data without a manifest is removed only on proof that the run
that wrote it is dead: a run on another machine may be about to publish it.

Limits: a repository that refuses a deletion (Object Lock, missing right) keeps the
tombstone, and the removal is tried again by the next sweep.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

import msgspec

from opsd.backup.catalog import Backup
from opsd.backup.manifest import FORMAT, DamagedManifest, Manifest, Moment, decode
from opsd.backup.repository import (
    AlreadyExists,
    NotFound,
    Repository,
    StoredObject,
    Unfinished,
)
from opsd.backup.retention import Decision
from opsd.errors import PermanentError

ABANDONED_AFTER = timedelta(hours=24)  # no run lasts that long: longer than any deadline
_DATA = re.compile(r"(\d{8}T\d{6}Z)-([0-9A-Za-z]+)(?:\..*)?")

RemoveFromEngine = Callable[[Manifest], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A removal that was begun. Holds the manifest, which is gone soon after."""

    format: int = FORMAT
    key: str  #: of the manifest
    manifest: Manifest
    at: Moment  #: when the removal began, aware UTC
    reasons: tuple[str, ...]


_TOMBSTONES = msgspec.json.Decoder(Tombstone)  # made here for the reason given in `manifest`


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a sweep did and what it left for a person."""

    finished: tuple[str, ...]  #: manifest keys whose removal it ended
    discarded: tuple[Unfinished, ...]  #: uploads that nobody would have ended
    deleted: tuple[str, ...]  #: data keys that dead runs left without a manifest
    orphans: tuple[StoredObject, ...]  #: data without a manifest, of runs not known to be dead


def no_engine(manifest: Manifest) -> NoReturn:
    """Refuse to remove what restic or rsync keeps, where the caller has neither.

    Raises:
        PermanentError: always.
    """
    raise PermanentError(
        f"remove {manifest.subject}: its data is kept by {manifest.kind}, which is not at hand"
    )


def prune(
    repository: Repository,
    removals: Iterable[Decision],
    *,
    now: datetime,
    remove_from_engine: RemoveFromEngine = no_engine,
) -> Iterator[Backup]:
    """Remove backups one after another; yields each when it is gone.

    Restartable: what an error or a crash interrupts is finished by `sweep` or by the next call.

    Args:
        repository: where they are.
        removals: `Plan.remove`.
        now: aware UTC.
        remove_from_engine: removes the data of a manifest whose `key` is empty; idempotent.

    Raises:
        TransientError, PermanentError: the repository or the engine refused.
    """
    for backup, reasons in removals:
        tombstone = Tombstone(
            key=backup.key, manifest=backup.manifest, at=now, reasons=tuple(reasons)
        )
        place = _tombstone_key(backup.key)
        with contextlib.suppress(AlreadyExists):  # an earlier attempt
            repository.create(place, msgspec.json.encode(tombstone))
        _finish(repository, place, remove_from_engine)
        yield backup


def sweep(
    repository: Repository,
    subject: str,
    *,
    dead_runs: Collection[str],
    now: datetime,
    remove_from_engine: RemoveFromEngine = no_engine,
) -> Swept:
    """Clear away what crashed runs left of one series. Idempotent.

    Args:
        repository: where the series is.
        subject: the series, exactly.
        dead_runs: ids of runs that are known to have ended.
        now: aware UTC.
        remove_from_engine: as for `prune`.

    Raises:
        TransientError, PermanentError: the repository or the engine refused.
    """
    listed = [entry for entry in repository.list(f"{subject}/") if _is_in(subject, entry.key)]
    finished = [
        _finish(repository, entry.key, remove_from_engine)
        for entry in listed
        if entry.key.endswith(".tombstone")
    ]
    discarded = list(_discard(repository, subject, dead_runs=dead_runs, now=now))
    deleted, orphans = [], []
    for entry, run_id in _without_manifest(repository, listed):
        if run_id in dead_runs:
            repository.delete(entry.key)
            deleted.append(entry.key)
        else:
            orphans.append(entry)
    return Swept(
        finished=tuple(finished),
        discarded=tuple(discarded),
        deleted=tuple(deleted),
        orphans=tuple(orphans),
    )


def _tombstone_key(manifest_key: str) -> str:
    return f"{manifest_key.removesuffix('.json')}.tombstone"


def _is_in(subject: str, key: str) -> bool:
    return key.rpartition("/")[0] == subject


def _finish(repository: Repository, place: str, remove_from_engine: RemoveFromEngine) -> str:
    """Do what a tombstone says, from wherever it was interrupted; returns the manifest's key."""
    tombstone = _read_tombstone(repository, place)
    manifest = tombstone.manifest
    current = _read_manifest(repository, tombstone.key)
    slot_is_taken = current is not None and current != manifest  # by a later backup: it stays
    if not slot_is_taken:
        repository.delete(tombstone.key)
    if not manifest.key:
        remove_from_engine(manifest)
    elif current is None or not slot_is_taken or current.key != manifest.key:
        repository.delete(manifest.key)
    if not slot_is_taken:
        for record in list(repository.list(f"{tombstone.key.removesuffix('.json')}.verified-")):
            repository.delete(record.key)
    repository.delete(place)
    return tombstone.key


def _read_tombstone(repository: Repository, place: str) -> Tombstone:
    content = b"".join(repository.read(place))
    try:
        tombstone = _TOMBSTONES.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise DamagedManifest(
            f"{place}: not a readable tombstone: {exc}; delete it to keep the backup"
        ) from exc
    own_data = f"{place.removesuffix('.tombstone')}-"
    data = tombstone.manifest.key
    if _tombstone_key(tombstone.key) != place or (data and not data.startswith(own_data)):
        raise DamagedManifest(f"{place}: speaks of another backup; delete it to keep the backup")
    return tombstone


def _read_manifest(repository: Repository, key: str) -> Manifest | None:
    try:
        return decode(b"".join(repository.read(key)), key=key)
    except NotFound:
        return None


def _discard(
    repository: Repository, subject: str, *, dead_runs: Collection[str], now: datetime
) -> Iterator[Unfinished]:
    for leftover in list(repository.unfinished(f"{subject}/")):
        abandoned = now - leftover.started_at > ABANDONED_AFTER
        if _is_in(subject, leftover.key) and (leftover.run_id in dead_runs or abandoned):
            repository.discard(leftover)
            yield leftover


def _without_manifest(
    repository: Repository, listed: Iterable[StoredObject]
) -> Iterator[tuple[StoredObject, str]]:
    """Data that no manifest claims, with the id of the run that wrote it."""
    for entry in listed:
        directory, _, name = entry.key.rpartition("/")
        match = _DATA.fullmatch(name)
        if match is None:
            continue
        try:
            # Read now, not from the listing: it may have been published since.
            owner = _read_manifest(repository, f"{directory}/{match[1]}.json")
        except DamagedManifest:
            continue  # it may well claim this data
        if owner is None or owner.key != entry.key:
            yield entry, match[2]
