"""What backups there are: read from the repository alone, which is the only truth.

`opsd backups list` on a borrowed laptop must show what exists and what was proven, even if
half of the manifests are damaged. So a manifest that cannot be read is reported and never
an error, never removed, and never hides the others.

Limits: a listing is not a snapshot. What is published while it runs may be missing in it.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

from opsd.backup.manifest import (
    DamagedManifest,
    LaterVerification,
    Level,
    Manifest,
    Verification,
    decode,
    decode_later,
    encode,
    later_key,
    manifest_key,
)
from opsd.backup.naming import is_part, stamp
from opsd.backup.repository import AlreadyExists, NotFound, Repository, StoredObject
from opsd.clock import Deadline
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.progress import Progress

# What restic and rsync keep lies beside these and is not ours to walk.
TOP_PREFIXES = ("database/", "etcd/", "globals/", "share/", "volumes/")
READERS = 8  # threads: manifests are small, the way to S3 is long
LARGEST_RECORD_BYTES = 32 << 20  # counts of a million tables; anything larger is no manifest
_SAME_SECOND_TRIES = 60  # records of one manifest that may fall into one second

_MANIFEST = re.compile(r"\d{8}T\d{6}Z\.json")
_RECORD = re.compile(r"(\d{8}T\d{6}Z)\.verified-\d{8}T\d{6}Z\.json")
_TOMBSTONE = re.compile(r"(\d{8}T\d{6}Z)\.tombstone")


class AlreadyPublished(AlreadyExists):
    """The slot has a result; what is there was not touched."""


class Condition(enum.StrEnum):
    """What is known about a backup now."""

    GOOD = "good"  #: at least read back, and the last attempt at every level succeeded
    UNVERIFIED = "unverified"  #: nothing was proven yet
    FAILED = "failed"  #: the last attempt at some level failed, or its data is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A manifest with everything that was found out about it."""

    key: str  #: of the manifest
    manifest: Manifest
    verifications: tuple[Verification, ...]  #: oldest first, the manifest's own included
    defect: str = ""  #: what the listing shows to be wrong with its data; empty when nothing

    @property
    def verdicts(self) -> dict[Level, Verification]:
        """The last attempt that speaks about each level; a success speaks for those below."""
        found: dict[Level, Verification] = {}
        for verification in self.verifications:
            level = Level.of(verification.level)
            lowest = Level.READ_BACK if verification.ok else level
            for spoken in range(lowest, level + 1):
                found[Level(spoken)] = verification
        return found

    @property
    def level(self) -> Level:
        """The highest level that is proven and was not disproved since."""
        return max(
            (level for level, verdict in self.verdicts.items() if verdict.ok), default=Level.NONE
        )

    @property
    def condition(self) -> Condition:
        """Whether retention and people may count on it."""
        verdicts = self.verdicts
        if self.defect or not all(verdict.ok for verdict in verdicts.values()):
            return Condition.FAILED
        return Condition.GOOD if self.level >= Level.READ_BACK else Condition.UNVERIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An object that is not what its name says; it stays where it is."""

    key: str
    reason: str  #: names the key


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The backups of a repository at one time."""

    backups: tuple[Backup, ...]  #: by subject, the newest of each first
    problems: tuple[Problem, ...]  #: by key

    def series(self, subject: str) -> tuple[Backup, ...]:
        """The backups of one subject, newest first."""
        return tuple(one for one in self.backups if one.manifest.subject == subject)

    @property
    def damaged(self) -> tuple[str, ...]:
        """Keys of what nobody can restore from: failed backups and problems, sorted."""
        failed = {one.key for one in self.backups if one.condition is Condition.FAILED}
        return tuple(sorted(failed | {problem.key for problem in self.problems}))

    @property
    def subjects(self) -> tuple[str, ...]:
        """Every subject that has a backup, sorted."""
        return tuple(sorted({one.manifest.subject for one in self.backups}))


def read_catalog(repository: Repository, prefix: str = "") -> Catalog:
    """Read every manifest and verification record whose key starts with `prefix`.

    Args:
        repository: where they are.
        prefix: ``database/main/`` and the like; empty for all that opsd publishes.

    Raises:
        TransientError, PermanentError: the repository cannot be listed, or it answers no
            read at all.
    """
    tops = (prefix,) if prefix else TOP_PREFIXES
    listing = {entry.key: entry for top in tops for entry in repository.list(top)}
    loaded = _load(repository, listing.values())
    reader = _Assembly(repository, listing, loaded)
    return reader.catalog()


def publish(repository: Repository, manifest: Manifest) -> str:
    """Make a backup exist: write its manifest, and read it back. Returns the manifest's key.

    Idempotent for an equal manifest.

    Raises:
        AlreadyPublished: the slot has another result.
        TransientError, PermanentError: it could not be written, or other bytes came back.
    """
    key = manifest_key(manifest.subject, manifest.slot)
    wrong = _mismatch(manifest, key)
    if wrong:
        raise PermanentError(f"repository {repository.name}: publish {key}: {wrong}")
    content = encode(manifest)
    try:
        repository.create(key, content)
    except AlreadyExists as exc:
        raise AlreadyPublished(
            f"repository {repository.name}: publish {key}: this slot of {manifest.subject}"
            " has a result already"
        ) from exc
    if b"".join(repository.read(key)) != content:
        raise PermanentError(
            f"repository {repository.name}: publish {key}: other bytes came back than were written"
        )
    return key


def record_verification(repository: Repository, backup: Backup, verification: Verification) -> str:
    """Keep what was found out about a published backup, for good. Returns the record's key.

    Raises:
        TransientError, PermanentError: it could not be written.
    """
    content = encode(
        LaterVerification(
            manifest=backup.key, sha256=backup.manifest.sha256, verification=verification
        )
    )
    for second in range(_SAME_SECOND_TRIES):
        key = later_key(backup.key, verification.at + timedelta(seconds=second))
        try:
            repository.create(key, content)
        except AlreadyExists:
            continue
        return key
    raise PermanentError(f"repository {repository.name}: {key}: too many records at one time")


def verify_stored(
    repository: Repository, backup: Backup, *, deadline: Deadline, progress: Progress
) -> Verification:
    """Read the stored bytes of a published backup; see `read_back`."""
    manifest = backup.manifest
    if not manifest.key:
        raise PermanentError(
            f"verify {backup.key}: its data is kept by {manifest.kind}; verify it with that engine"
        )
    return read_back(
        repository,
        manifest.key,
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        deadline=deadline,
        progress=progress,
    )


def read_back(
    repository: Repository,
    key: str,
    *,
    size_bytes: int,
    sha256: str,
    deadline: Deadline,
    progress: Progress,
) -> Verification:
    """Read an object from storage and compare its size and SHA-256 with what it must be.

    A missing or different object is a failed verification, not an error.

    Raises:
        TransientError, PermanentError: it could not be read, so nothing is known.
        DeadlineExceeded: there was no time to read it all.
    """
    step = f"read back {key}"
    digest, received = hashlib.sha256(), 0
    try:
        for piece in repository.read(key):
            deadline.remaining()
            digest.update(piece)
            received += len(piece)
            progress.update(step, done=received, total=size_bytes)
        wrong = _difference(received, digest.hexdigest(), size_bytes=size_bytes, sha256=sha256)
    except NotFound:
        wrong = "the data object is missing"
    finally:
        progress.finish(step)
    return Verification(
        level=Level.READ_BACK.label,
        at=deadline.clock.now(),
        ok=not wrong,
        detail=wrong or f"{received} bytes, SHA-256 as promised",
    )


def _difference(received: int, found: str, *, size_bytes: int, sha256: str) -> str:
    if received != size_bytes:
        return f"{received} bytes are stored, {size_bytes} were promised"
    if found != sha256:
        return f"SHA-256 of the stored bytes is {found}, {sha256} was promised"
    return ""


def _mismatch(manifest: Manifest, key: str) -> str:
    """Why this manifest cannot stand under `key`; empty when it can."""
    if manifest_key(manifest.subject, manifest.slot) != key:
        return f"describes {manifest_key(manifest.subject, manifest.slot)}; it was moved or copied"
    name = manifest.key.removeprefix(f"{manifest.subject}/")
    if manifest.key and not (name.startswith(f"{stamp(manifest.slot)}-") and is_part(name)):
        return f"claims the data {manifest.key!a}, which does not belong to it"
    return ""


Record = Manifest | LaterVerification | OpsdError


def _load(repository: Repository, entries: Iterable[StoredObject]) -> dict[str, Record]:
    """Read what can be read; an error stands in the place of what cannot."""
    wanted = [entry for entry in entries if _is_record(entry.key)]
    if not wanted:
        return {}
    with ThreadPoolExecutor(max_workers=min(READERS, len(wanted))) as pool:
        values = list(pool.map(lambda entry: _load_one(repository, entry), wanted))
    outages = [value for value in values if isinstance(value, TransientError)]
    if len(outages) == len(values):
        raise outages[0]
    return {entry.key: value for entry, value in zip(wanted, values, strict=True)}


def _is_record(key: str) -> bool:
    name = key.rpartition("/")[2]
    return bool(_MANIFEST.fullmatch(name) or _RECORD.fullmatch(name))


def _load_one(repository: Repository, entry: StoredObject) -> Record:
    if entry.size_bytes > LARGEST_RECORD_BYTES:
        return DamagedManifest(f"{entry.key}: {entry.size_bytes} bytes are no manifest")
    try:
        content = b"".join(repository.read(entry.key))
        if _RECORD.fullmatch(entry.key.rpartition("/")[2]):
            return decode_later(content, key=entry.key)
        manifest = decode(content, key=entry.key)
        wrong = _mismatch(manifest, entry.key)
    except (TransientError, PermanentError) as exc:
        return exc
    return DamagedManifest(f"{entry.key}: {wrong}") if wrong else manifest


class _Assembly:
    """One listing and the records read from it, on their way to a catalog."""

    def __init__(
        self,
        repository: Repository,
        listing: dict[str, StoredObject],
        loaded: dict[str, Record],
    ) -> None:
        self._repository = repository
        self._listing = listing
        self._loaded = loaded
        self._problems: list[Problem] = []

    def catalog(self) -> Catalog:
        later = self._later_verifications()
        backups: list[Backup] = []
        for key, value in self._loaded.items():
            if isinstance(value, OpsdError):
                if not isinstance(value, NotFound):  # removed since it was listed
                    self._report(key, str(value))
            elif isinstance(value, Manifest):
                if f"{key.removesuffix('.json')}.tombstone" in self._listing:
                    self._report(key, f"{key}: its removal was begun and is not finished")
                else:
                    backups.append(self._backup(key, value, later.get(key, [])))
        backups.sort(key=lambda one: one.manifest.slot, reverse=True)
        backups.sort(key=lambda one: one.manifest.subject)
        return Catalog(
            backups=tuple(backups),
            problems=tuple(sorted(self._problems, key=lambda problem: problem.key)),
        )

    def _report(self, key: str, reason: str) -> None:
        self._problems.append(Problem(key=key, reason=reason))

    def _later_verifications(self) -> dict[str, list[LaterVerification]]:
        """Records by the manifest that they lie beside."""
        found: dict[str, list[LaterVerification]] = {}
        for key, record in self._loaded.items():
            if not isinstance(record, LaterVerification):
                continue
            beside = f"{key.partition('.verified-')[0]}.json"
            owner = self._loaded.get(beside)
            if isinstance(owner, Manifest) and (record.manifest, record.sha256) == (
                beside,
                owner.sha256,
            ):
                found.setdefault(beside, []).append(record)
            else:
                self._report(key, f"{key}: speaks of no backup that is there")
        return found

    def _backup(self, key: str, manifest: Manifest, later: list[LaterVerification]) -> Backup:
        verifications = [*manifest.verified, *(record.verification for record in later)]
        defect = self._defect(manifest)
        if defect:
            self._report(key, f"{key}: {defect}")
        return Backup(
            key=key,
            manifest=manifest,
            verifications=tuple(sorted(verifications, key=lambda one: one.at)),
            defect=defect,
        )

    def _defect(self, manifest: Manifest) -> str:
        if not manifest.key:
            return ""
        entry = self._listing.get(manifest.key) or self._look_again(manifest.key)
        if entry is None:
            return f"its data {manifest.key} is missing"
        if entry.size_bytes != manifest.size_bytes:
            return f"its data has {entry.size_bytes} bytes, {manifest.size_bytes} were promised"
        return ""

    def _look_again(self, key: str) -> StoredObject | None:
        """A listing under way may have passed the place before the data came."""
        found: Iterator[StoredObject] = self._repository.list(key)
        return next((entry for entry in found if entry.key == key), None)
