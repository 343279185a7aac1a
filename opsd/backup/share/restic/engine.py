"""Back up a share with restic: deduplicated, encrypted, to a directory, S3 or what it speaks.

restic decides well how to store and badly what success is. Here a snapshot counts when the
repository's structure is sound, the snapshot lists as many files and bytes as were read,
every pack file that the run added was read back and is what its name (its SHA-256) says,
and a rotating part of all older data was read too.

Limits: restic before 0.19 counts a file that vanished while it was read as an error, so a
run with nothing but such errors is accepted by `copy` and the files are listed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from opsd.backup import naming
from opsd.backup.manifest import Manifest
from opsd.backup.proof import Comparison
from opsd.backup.repository import Repository
from opsd.backup.share.engine import (
    ADDED,
    Damaged,
    EngineName,
    Incomplete,
    Part,
    Snapshot,
    Source,
    StoreVanished,
)
from opsd.backup.share.guards import Share, regular_files
from opsd.backup.share.restic.command import (
    INCOMPLETE,
    Ended,
    NoRepository,
    ResticCommand,
    Store,
    version,
)
from opsd.backup.share.restic.packs import Packs
from opsd.backup.share.restic.speech import Progressing, escape, restic_excludes
from opsd.clock import Clock, Deadline
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.progress import NoProgress, Progress
from opsd.text import printable

HOST = "opsd"  # fixed: a pod's name would split the snapshots into groups of one
PRUNE_EVERY = timedelta(days=7)
_VANISHED = "no such file or directory"


class _Node(msgspec.Struct, frozen=True):
    type: str = ""
    size: int = 0


class _Listed(msgspec.Struct, frozen=True):
    id: str
    tags: list[str] | None = None


class ResticEngine:
    """One share in one restic repository."""

    kind: EngineName = "restic"

    def __init__(
        self,
        share: Share,
        *,
        store: Store,
        packs: tuple[Repository, str] | None,
        scratch: Path,
        clock: Clock,
    ) -> None:
        """Nothing is touched yet.

        Args:
            share: what is backed up.
            store: the restic repository.
            packs: the opsd repository and the key prefix under which restic's pack files
                lie, when they do: then they are read back without restic.
            scratch: a directory on local disk for cache, temporary files and notes.
            clock: tells when pruning is due.
        """
        self._share = share
        self._restic = ResticCommand(store, scratch=scratch)
        self._packs = Packs(self._restic, kept=packs)
        self._pruned = scratch / "pruned"
        self._clock = clock
        self._known = 0
        self._damaged = False
        self._tag = f"share={naming.quote(share.name)}"

    @property
    def location(self) -> str:
        """The restic repository's address, without secrets."""
        return self._restic.location

    def require(self, *, deadline: Deadline) -> str:
        """The version of restic; see `Engine.require`."""
        return version(deadline=deadline)

    def prepare(self, *, known: Sequence[Manifest], damaged: bool, deadline: Deadline) -> None:
        """See `Engine.prepare`. Asking restic costs half a second, so `copy` finds out too."""
        self._known = len(known)
        self._damaged = damaged
        if known:
            return
        try:
            self._restic.call("cat", "config", "--no-lock", deadline=deadline)
        except NoRepository:
            self._restic.call("init", deadline=deadline)

    def copy(
        self,
        source: Source,
        *,
        run_id: str,
        slot: datetime,  # noqa: ARG002 - restic keeps its own time
        deadline: Deadline,
        progress: Progress,
    ) -> Snapshot:
        """See `Engine.copy`."""
        before = frozenset(self._packs.ids(deadline=deadline))
        args = self._backup_command(source, run_id)
        step = f"restic {self._share.name}"
        seen = Progressing(progress, step, source.size_bytes)
        try:
            ended = self._restic.call(
                *args, deadline=deadline, on_line=seen, accept=(INCOMPLETE,), cwd=source.added
            )
        except NoRepository as exc:
            raise StoreVanished(
                f"share {self._share.name}: {self._known} backups are listed, but there is no "
                f"restic repository at {self.location}: is the right disk or bucket there?"
            ) from exc
        finally:
            progress.finish(step)
        vanished = self._vanished(ended)
        summary = seen.summary
        if not summary.snapshot_id:
            raise TransientError(f"restic backup to {self.location}: it named no snapshot")
        fresh = tuple(sorted(frozenset(self._packs.ids(deadline=deadline)) - before))
        return Snapshot(
            id=summary.snapshot_id,
            sha256=summary.snapshot_id,
            files=summary.total_files_processed,
            bytes=summary.total_bytes_processed,
            added_bytes=summary.data_added_packed,
            vanished=vanished,
            fresh=fresh,
            details={
                "snapshot": summary.snapshot_id,
                "host": HOST,
                "tags": ["opsd", self._tag, f"run={run_id}"],
                "files_new": summary.files_new,
                "files_changed": summary.files_changed,
                "files_unmodified": summary.files_unmodified,
                "command": [printable(arg) for arg in self._restic.argv(args)],
            },
        )

    def _backup_command(self, source: Source, run_id: str) -> tuple[str, ...]:
        excludes = [
            f"--exclude={pattern}" for pattern in restic_excludes(self._share, source.omit)
        ]
        return (
            "backup",
            "--no-scan",
            *(("--force",) if self._damaged else ()),  # no file is taken from an older snapshot
            *("--host", HOST, "--group-by", "host,paths"),
            *("--tag", f"opsd,{self._tag},run={run_id}"),
            *excludes,
            *("--", ADDED, str(self._share.path)),
        )

    def _vanished(self, ended: Ended) -> tuple[str, ...]:
        """The files that went away while restic ran; anything else that failed is an error."""
        if not ended.code:
            return ()
        errors = [m for m in ended.complaints if m.message_type == "error"]
        texts = [str((m.error or {}).get("message", "")) for m in errors]
        other = [text for text in texts if not text.endswith(_VANISHED)]
        if other or not errors:
            raise Incomplete(
                f"share {self._share.name}: restic could not read everything, first: "
                f"{printable(other[0]) if other else ended.reason()}"
            )
        return tuple(sorted(printable(m.item) for m in errors))

    def prove(
        self, snapshot: Snapshot, *, part: Part, deadline: Deadline, progress: Progress
    ) -> str:
        """See `Engine.prove`."""
        step = f"verify {self._share.name}"
        try:
            self._check(f"{part.n}/{part.of}", deadline=deadline)
            self._compare_listing(snapshot, deadline=deadline)
            read = self._packs.read_back(
                snapshot.fresh, deadline=deadline, progress=progress, step=step
            )
        finally:
            progress.finish(step)
        return (
            f"structure sound; {snapshot.files} files and {snapshot.bytes} bytes listed as read; "
            f"{len(snapshot.fresh)} new packs ({read} bytes) read back; "
            f"part {part.n} of {part.of} of all data read"
        )

    def check(self, manifest: Manifest, *, deadline: Deadline, progress: Progress) -> str:
        """See `Engine.check`: reads the whole repository."""
        progress.update(f"verify {self._share.name}")
        try:
            self._check("1/1", deadline=deadline)
        finally:
            progress.finish(f"verify {self._share.name}")
        files, size_bytes = self.contents(manifest, deadline=deadline)
        promised = (manifest.source.get("files"), manifest.source.get("bytes"))
        if promised != (files, size_bytes):
            raise Damaged(
                f"share {self._share.name}: snapshot {manifest.sha256[:8]} lists {files} files "
                f"and {size_bytes} bytes, its manifest promises {promised[0]} and {promised[1]}"
            )
        return f"all data of the repository read; {files} files and {size_bytes} bytes listed"

    def _check(self, subset: str, *, deadline: Deadline) -> None:
        found = Progressing(NoProgress(), "", 0)
        # Never --with-cache: the copy on this disk would be checked instead of the stored one.
        args = ("check", f"--read-data-subset={subset}")
        ended = self._restic.call(*args, deadline=deadline, on_line=found, accept=(1,))
        if ended.code or found.summary.num_errors or found.summary.broken_packs:
            broken = ", ".join(pack[:8] for pack in found.summary.broken_packs or [])
            raise Damaged(
                f"restic check of {self.location}: {ended.reason()}"
                + (f"; broken packs: {broken}" if broken else "")
            )

    def _compare_listing(self, snapshot: Snapshot, *, deadline: Deadline) -> None:
        files, size_bytes = self._listing(snapshot.id, deadline=deadline)
        if (files, size_bytes) != (snapshot.files, snapshot.bytes):
            raise Damaged(
                f"share {self._share.name}: restic read {snapshot.files} files and "
                f"{snapshot.bytes} bytes, but its snapshot {snapshot.id[:8]} lists {files} and "
                f"{size_bytes}"
            )

    def contents(self, manifest: Manifest, *, deadline: Deadline) -> tuple[int, int]:
        """See `Engine.contents`."""
        return self._listing(manifest.sha256, deadline=deadline)

    def _listing(
        self, snapshot_id: str, inside: str = "", *, deadline: Deadline
    ) -> tuple[int, int]:
        """Regular files and their bytes, of a whole snapshot or of one path in it."""
        sizes: list[int] = []
        decode = msgspec.json.Decoder(_Node).decode

        def count(line: bytes) -> None:
            node = decode(line)
            if node.type == "file":
                sizes.append(node.size)

        below = ("--recursive", snapshot_id, inside) if inside else (snapshot_id,)
        self._restic.call("ls", "--no-lock", *below, deadline=deadline, on_line=count)
        return len(sizes), sum(sizes)

    def extract(
        self,
        manifest: Manifest,
        *,
        path: str,
        target: Path,
        deadline: Deadline,
        progress: Progress,
    ) -> None:
        """See `Engine.extract`."""
        inside = self._inside(manifest, path)
        parent, _, name = inside.rpartition("/")
        args = [f"{manifest.sha256}:{parent or '/'}", "--include", f"/{escape(name)}"]
        if not path:
            args = [f"{manifest.sha256}:{inside}"]
        step = f"restore {self._share.name}"
        seen = Progressing(progress, step, 0)
        try:
            self._restic.call(
                "restore", "--no-lock", "--verify", *args, "--target", str(target),
                deadline=deadline, on_line=seen,
            )  # fmt: skip
        except TransientError as exc:
            if "not found" not in str(exc):
                raise
            raise self._no_such_path(manifest, path) from exc
        finally:
            progress.finish(step)
        if path and not os.path.lexists(target / name):
            raise self._no_such_path(manifest, path)

    def _inside(self, manifest: Manifest, path: str) -> str:
        """Where a path of the share, or below ``.opsd``, is in a snapshot."""
        if path == ADDED or path.startswith(f"{ADDED}/"):
            return f"/{path}"
        root = str(manifest.source.get("path", self._share.path))
        return f"{root}/{path}".rstrip("/")

    def compare(
        self,
        manifest: Manifest,
        *,
        path: str,
        target: Path,
        alone: bool,
        deadline: Deadline,
        progress: Progress,
    ) -> Comparison:
        """See `Engine.compare`: restic itself compared every byte (``--verify``)."""
        progress.update(f"compare {self._share.name}")
        inside = self._inside(manifest, path)
        promised = self._listing(manifest.sha256, inside, deadline=deadline)
        sizes = [size for _, size in regular_files(target)]
        progress.finish(f"compare {self._share.name}")
        found = (len(sizes), sum(sizes))
        as_promised = found == promised if alone else found[0] >= promised[0]
        wrong = f"{found[0]} files and {found[1]} bytes are there, the backup has {promised}"
        return Comparison(
            unit="files",
            compared=promised[0],
            differences=() if as_promised else (wrong,),
            nothing_promised=not promised[0],
        )

    def _no_such_path(self, manifest: Manifest, path: str) -> OpsdError:
        return PermanentError(
            f"share {self._share.name}: the backup of {naming.stamp(manifest.slot)} has no "
            f"{printable(path) or 'content'}; list it: restic ls {manifest.sha256[:8]}"
        )

    def extract_files(
        self, snapshot_id: str, paths: Sequence[str], *, target: Path, deadline: Deadline
    ) -> None:
        """See `Engine.extract_files`."""
        includes = [part for path in paths for part in ("--include", f"/{escape(path)}")]
        where = f"{snapshot_id}:{self._share.path}"
        self._restic.call(
            "restore", "--no-lock", where, *includes, "--target", str(target), deadline=deadline
        )

    def snapshots(self, *, deadline: Deadline) -> tuple[str, ...]:
        """See `Engine.snapshots`."""
        return tuple(found.id for found in self._listed(deadline=deadline))

    def _listed(self, *, deadline: Deadline) -> list[_Listed]:
        args = ("snapshots", "--no-lock", "--tag", f"opsd,{self._tag}")
        return self._restic.collect(*args, into=list[_Listed], deadline=deadline)[0]

    def forget(self, ids: Sequence[str], *, deadline: Deadline) -> None:
        """See `Engine.forget`: exactly these snapshots, never by a rule of restic's."""
        present = set(self.snapshots(deadline=deadline))
        doomed = [one for one in ids if one in present]
        if not doomed:
            return
        self._restic.call("forget", *doomed, deadline=deadline)
        kept = sorted(set(self.snapshots(deadline=deadline)) & set(doomed))
        if kept:
            raise PermanentError(
                f"restic forget on {self.location}: {len(kept)} snapshots are still there, "
                f"first {kept[0][:8]}: may opsd delete there (append-only, Object Lock)?"
            )

    def reclaim(self, *, deadline: Deadline) -> None:
        """See `Engine.reclaim`: prunes once in `PRUNE_EVERY`."""
        now = self._clock.now().timestamp()
        last = self._pruned.stat().st_mtime if self._pruned.exists() else 0.0
        if 0 <= now - last < PRUNE_EVERY.total_seconds():
            return
        self._restic.call("prune", deadline=deadline)
        self._pruned.touch()
        os.utime(self._pruned, (now, now))

    def sweep(
        self, *, published: Collection[str], dead_runs: frozenset[str], deadline: Deadline
    ) -> tuple[str, ...]:
        """See `Engine.sweep`."""
        dead = {f"run={run_id}" for run_id in dead_runs}
        leftovers = [
            one.id
            for one in self._listed(deadline=deadline)
            if one.id not in published and dead.intersection(one.tags or ())
        ]
        self.forget(leftovers, deadline=deadline)
        return tuple(leftovers)
