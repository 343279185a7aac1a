"""Back up one share so that success means something.

Guards first, then the databases in it, then the engine; then the questions that no engine
asks itself: was the share still there at the end, did files change while they were read, is
what was stored what was sent, do files drawn at random come back as they are on the share?
The manifest is written last, and only then is there a backup.

Limits: a file that changes during every read is in the snapshot as the engine happened to
see it, and is listed. A file that never changes its time when its content changes (some
mmap writers) goes unnoticed until the spot check draws it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from opsd import __version__
from opsd.backup.catalog import AlreadyPublished, Backup, Condition, publish
from opsd.backup.manifest import Level, Manifest, Verification
from opsd.backup.repository import Repository
from opsd.backup.share import livedata, rotation
from opsd.backup.share.engine import Damaged, Engine, Incomplete, Part, Snapshot, Source
from opsd.backup.share.guards import (
    Inventory,
    Probed,
    SampleFile,
    Share,
    changed_since,
    hash_files,
    probe,
    refuse_probed,
    refuse_scanned,
    scan,
)
from opsd.backup.share.livedata import SqliteCopy
from opsd.clock import Deadline
from opsd.errors import PermanentError, TransientError
from opsd.model import Finding
from opsd.progress import Progress
from opsd.text import printable, storable

log = structlog.get_logger()

SAMPLE_BYTES = 256 << 20  # of the spot check together: it is restored to the scratch disk
LOST_PERCENT = 50  # of the files walked that the engine must have found


class Refused(PermanentError):
    """A guard stopped the backup before anything was written."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.summary)
        self.finding = finding


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Everything besides the share and the engine that a backup needs."""

    repository: Repository
    slot: datetime
    run_id: str
    verify_within: timedelta
    spot_check_files: int
    scratch: Path  #: on local disk, of this share alone
    deadline: Deadline
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A share that passed its guards."""

    probed: Probed
    found: Inventory
    engine_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A backup that was made, proven and published."""

    manifest: Manifest
    key: str  #: of the manifest
    seen: Looked
    databases: tuple[SqliteCopy, ...]
    changed: tuple[str, ...] = ()  #: files that changed while they were read, twice; the first
    changed_count: int = 0
    vanished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copied:
    """A snapshot with what changed under it."""

    snapshot: Snapshot
    after: Inventory  #: the walk when the engine was done
    attempts: int
    changed: tuple[str, ...] = ()
    changed_count: int = 0
    extra: tuple[str, ...] = field(default=())  #: ids of earlier attempts, to be forgotten


def look(share: Share, engine: Engine, *, before: Sequence[Backup], how: How) -> Looked:
    """Ask all that can be asked without writing anything.

    Raises:
        Refused: a guard says no.
        TransientError, PermanentError: the share or the engine's program is not usable.
    """
    version = engine.require(deadline=how.deadline)
    probed = probe(share, clock=how.deadline.clock, deadline=how.deadline)
    _stop_if(refuse_probed(share, probed))
    found = scan(
        share, deadline=how.deadline, progress=how.progress, sample_files=how.spot_check_files
    )
    good = (one for one in before if one.condition is Condition.GOOD)
    last = next(good, None)
    source = last.manifest.source if last else None
    _stop_if(refuse_scanned(share, found, probed=probed, last=source))
    return Looked(probed=probed, found=found, engine_version=version)


def back_up(share: Share, engine: Engine, *, before: Sequence[Backup], how: How) -> Made:
    """Make one backup; on any error nothing is published.

    Args:
        share: what.
        engine: how it is stored.
        before: every backup of the share, newest first.
        how: the rest.

    Raises:
        Refused: a guard stopped it before anything was written.
        AlreadyPublished: the slot has a result; this one was taken away again.
        Damaged: what was stored is not what was read.
        TransientError, PermanentError, DeadlineExceeded: anything else.
    """
    seen = look(share, engine, before=before, how=how)
    damaged = any(one.condition is Condition.FAILED for one in before)
    engine.prepare(known=[one.manifest for one in before], damaged=damaged, deadline=how.deadline)
    notes = how.scratch / "rotation.json"
    slots = [how.slot, *(one.manifest.slot for one in before)]
    part = rotation.next_part(notes, of=rotation.parts(slots, within=how.verify_within))
    if damaged:
        part = Part(n=1, of=1)  # what is damaged there may be part of this backup too
    with livedata.stage(how.scratch) as added:
        databases = livedata.copy_databases(
            share,
            seen.found,
            remote=seen.probed.mount.is_remote,
            into=added,
            deadline=how.deadline,
            progress=how.progress,
        )
        source = Source(
            share=share,
            omit=livedata.omitted(seen.found, databases),
            added=added,
            files=seen.found.files,
            size_bytes=seen.found.size_bytes,
        )
        copied = _copy_until_still(engine, source, seen=seen, databases=databases, how=how)
    _require_whole(share, copied, seen=seen, databases=databases, how=how)
    detail = engine.prove(copied.snapshot, part=part, deadline=how.deadline, progress=how.progress)
    checked = _spot_check(
        share, engine, snapshot=copied.snapshot, sample=seen.found.sample, how=how
    )
    proof = f"{detail}; {checked} files restored and compared with the share"
    manifest = _manifest(
        share, engine, seen=seen, copied=copied, databases=databases, how=how, proof=proof
    )
    key = _publish(engine, manifest, copied=copied, how=how)
    rotation.done(notes, part)
    return Made(
        manifest=manifest,
        key=key,
        seen=seen,
        databases=databases,
        changed=copied.changed,
        changed_count=copied.changed_count,
        vanished=copied.snapshot.vanished,
    )


def _stop_if(finding: Finding | None) -> None:
    if finding is not None:
        raise Refused(finding)


def _copy_until_still(
    engine: Engine,
    source: Source,
    *,
    seen: Looked,
    databases: tuple[SqliteCopy, ...],
    how: How,
) -> _Copied:
    """Copy; and once more if files changed or vanished meanwhile."""
    exclude = livedata.unwatched(source.share, seen.found, databases)

    def copy_once(walk: Inventory) -> tuple[Snapshot, Inventory]:
        started = how.deadline.clock.monotonic()
        snapshot = engine.copy(
            source,
            run_id=how.run_id,
            slot=how.slot,
            deadline=how.deadline,
            progress=how.progress,
        )
        duration_s = round(how.deadline.clock.monotonic() - started, 3)
        log.info("copy.ended", share=source.share.name, duration_s=duration_s)
        after = changed_since(source.share, walk, exclude=exclude, deadline=how.deadline)
        return snapshot, after

    first, after = copy_once(seen.found)
    if not after.changed_count and not first.vanished:
        return _Copied(snapshot=first, after=after, attempts=1)
    log.info(
        "copy.repeated",
        share=source.share.name,
        changed=after.changed_count,
        vanished=len(first.vanished),
    )
    second, again = copy_once(after)
    return _Copied(
        snapshot=replace(
            second,
            added_bytes=first.added_bytes + second.added_bytes,
            fresh=(*first.fresh, *second.fresh),
        ),
        after=again,
        attempts=2,
        changed=again.changed,
        changed_count=again.changed_count,
        extra=(first.id,),
    )


def _require_whole(
    share: Share,
    copied: _Copied,
    *,
    seen: Looked,
    databases: tuple[SqliteCopy, ...],
    how: How,
) -> None:
    """Catch a share that went away under the engine, which calls that a success."""
    probed = probe(share, clock=how.deadline.clock, deadline=how.deadline)
    gone = refuse_probed(share, probed)
    if gone is not None:
        raise Incomplete(f"while it was copied: {gone.summary}")
    files = copied.snapshot.files - sum(1 for one in databases if one.method)
    if files * 100 < seen.found.files * LOST_PERCENT:
        raise Incomplete(
            f"share {share.name}: it held {seen.found.files} files when it was walked, the "
            f"engine found {files}: was it unmounted meanwhile?"
        )


def _spot_check(
    share: Share, engine: Engine, *, snapshot: Snapshot, sample: Sequence[SampleFile], how: How
) -> int:
    """Restore files drawn at random and hold them against the live ones; returns how many.

    Only files that are as they were before the copy are compared.
    """
    drawn = _within_budget(sample)
    if not drawn:
        return 0
    with tempfile.TemporaryDirectory(dir=how.scratch, prefix="spot-") as place:
        target = Path(place)
        paths = [one.path for one in drawn]
        engine.extract_files(snapshot.id, paths, target=target, deadline=how.deadline)
        restored = {path: _sha256(target, path) for path in paths}
    live = hash_files(share, tuple(paths), deadline=how.deadline)
    compared = 0
    for one in drawn:
        digest, size_bytes, mtime_ns = live.get(one.path, ("", -1, -1))
        if (size_bytes, mtime_ns) != (one.size_bytes, one.mtime_ns):
            continue
        compared += 1
        if restored[one.path] != digest:
            raise Damaged(
                f"share {share.name}: {printable(one.path)} restored from the new snapshot is not "
                "what is on the share; check memory and disks, then run again"
            )
    return compared


def _within_budget(sample: Sequence[SampleFile]) -> list[SampleFile]:
    drawn: list[SampleFile] = []
    left = SAMPLE_BYTES
    for one in sample:
        if one.size_bytes <= left:
            drawn.append(one)
            left -= one.size_bytes
    return drawn


def _sha256(root: Path, path: str) -> str:
    try:
        with (root / path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "not in the snapshot"


def _manifest(
    share: Share,
    engine: Engine,
    *,
    seen: Looked,
    copied: _Copied,
    databases: tuple[SqliteCopy, ...],
    how: How,
    proof: str,
) -> Manifest:
    now, snapshot = how.deadline.clock.now(), copied.snapshot
    source: dict[str, Any] = {
        "engine": engine.kind,
        "engine_version": seen.engine_version,
        "location": engine.location,
        "path": storable(str(share.path)),
        "source_host": os.uname().nodename,
        "mount": storable(f"{seen.probed.mount.kind} {seen.probed.mount.source}"),
        "exclude": list(share.exclude),
        "files": snapshot.files,
        "bytes": snapshot.bytes,
        "walked_files": seen.found.files,
        "walked_bytes": seen.found.size_bytes,
        "attempts": copied.attempts,
        "changed_count": copied.changed_count,
        "changed": [storable(path) for path in copied.changed],
        "vanished": [storable(path) for path in snapshot.vanished],
        "sqlite": [one.facts() for one in databases],
        "pgdata": [storable(path) for path in seen.found.pgdata],
        **snapshot.details,
    }
    return Manifest(
        kind=engine.kind,
        subject=share.subject,
        slot=how.slot,
        run_id=how.run_id,
        created_at=now,
        key="",
        size_bytes=snapshot.added_bytes,
        sha256=snapshot.sha256,
        source=source,
        verified=(Verification(level=Level.READ_BACK.label, at=now, ok=True, detail=proof),),
        opsd_version=__version__,
    )


def _publish(engine: Engine, manifest: Manifest, *, copied: _Copied, how: How) -> str:
    try:
        key = publish(how.repository, manifest)
    except AlreadyPublished:
        _forget(engine, (*copied.extra, copied.snapshot.id), how=how)
        raise
    _forget(engine, copied.extra, how=how)
    return key


def _forget(engine: Engine, ids: Sequence[str], *, how: How) -> None:
    """Take attempts away; one that stays costs space, never a backup."""
    try:
        engine.forget(ids, deadline=how.deadline)
    except (TransientError, PermanentError) as exc:
        log.warning("snapshot.kept", location=engine.location, ids=list(ids), error=str(exc))
