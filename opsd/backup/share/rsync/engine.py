"""Back up a share with rsync: plain directories, one per run, that share unchanged files.

Anybody can restore from it with ``cp``. A snapshot is written under a hidden name, flushed
and renamed, so one with a final name is whole. Beside it lies a list of SHA-256 sums:
hard-linked snapshots share their blocks, and one bad block is in all of them.

Every file that rsync transferred is read back from where it was stored and held against the
checksum that the sender computed from the source (rsync's ``%C``), then enters the list.

Limits: the target needs hard links, owners and modes (not exFAT, not SMB). Without root the
owners are kept in extended attributes (``--fake-super``). A file whose attributes alone
changed is copied from the snapshot before and listed with what is stored now.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from opsd.backup import naming
from opsd.backup.manifest import Manifest
from opsd.backup.proof import Comparison
from opsd.backup.share.engine import (
    ADDED,
    Damaged,
    EngineName,
    Part,
    Snapshot,
    Source,
    StoreVanished,
)
from opsd.backup.share.guards import Share
from opsd.backup.share.rsync import checksums
from opsd.backup.share.rsync import command as rsynccommand
from opsd.backup.share.rsync.command import KEEP_ALL
from opsd.backup.share.rsync.lists import SentFiles, difference, is_below, list_checksums
from opsd.backup.share.rsync.machine import Machine
from opsd.backup.share.rsync.snapshots import SnapshotDirectory, parsed
from opsd.clients.process import run
from opsd.clock import Clock, Deadline
from opsd.errors import OpsdError, PermanentError
from opsd.progress import NoProgress, Progress
from opsd.text import printable

LINKED_TO = 2  # snapshots: the last one, and the first attempt of the same run
GIVE_UP_S = 60.0  # for taking away what a failed run had copied


class RsyncEngine:
    """One share in one directory of snapshots, here or on another machine."""

    kind: EngineName = "rsync"

    def __init__(self, share: Share, *, machine: Machine, base: str, scratch: Path) -> None:
        """Nothing is touched yet.

        Args:
            share: what is backed up.
            machine: where the snapshots are.
            base: the directory of the snapshots there, absolute.
            scratch: a directory on local disk for lists under way.
        """
        self._share = share
        self._machine = machine
        self._store = SnapshotDirectory(machine, base)
        self._scratch = scratch

    @property
    def location(self) -> str:
        """The directory of the snapshots, with the machine."""
        return self._store.location

    def require(self, *, deadline: Deadline) -> str:
        """See `Engine.require`: here and on the other machine."""
        here = run(["rsync", "--version"], deadline=deadline)
        text = rsynccommand.parse_version(here.stdout, "this machine")
        if self._machine.is_remote:
            done = self._machine.ask("rsync", "--version", deadline=deadline)
            if done.returncode:
                raise PermanentError(f"rsync on {self._machine.host}: {done.complaint()}")
            rsynccommand.parse_version(done.stdout, self._machine.host)
        return text

    def prepare(
        self,
        *,
        known: Sequence[Manifest],
        damaged: bool,  # noqa: ARG002 - a file that is missing in a snapshot is copied anyway
        deadline: Deadline,
    ) -> None:
        """See `Engine.prepare`."""
        there = self._store.exists(deadline=deadline)
        if not there and known:
            raise StoreVanished(
                f"share {self._share.name}: {len(known)} backups are listed, but there is no "
                f"directory {self.location}: is the right disk mounted?"
            )
        if not there:
            self._store.make(deadline=deadline)
        self._store.probe(deadline=deadline)

    def copy(
        self,
        source: Source,
        *,
        run_id: str,
        slot: datetime,
        deadline: Deadline,
        progress: Progress,
    ) -> Snapshot:
        """See `Engine.copy`."""
        previous = self._store.names(deadline=deadline)
        name = _free_name(f"{naming.stamp(slot)}-{run_id}", taken=previous)
        partial = f".partial-{name}"
        as_root = self._store.probe(deadline=deadline)
        # Only what was listed just now: rsync calls a wrong directory a success, and copies all.
        links = [f"--link-dest={self._store.path(old)}" for old in reversed(previous[-LINKED_TO:])]
        flags = (*KEEP_ALL, *(() if as_root else ("-M--fake-super",)), *links)
        command = (*flags, *rsynccommand.filters(source))
        newest = previous[-1] if previous else ""
        with (
            self._workspace() as work,
            contextlib.closing(SentFiles(work)) as sent,
            self._given_up(partial, clock=deadline.clock),
        ):
            self._store.discard(partial, deadline=deadline)
            vanished = self._transfer(
                (*command, f"{source.share.path}/"), partial, sent,
                total_bytes=source.size_bytes, deadline=deadline, progress=progress,
            )  # fmt: skip
            self._transfer(
                (*flags, f"{source.added / ADDED}"), partial, sent,
                total_bytes=0, deadline=deadline, progress=progress,
            )  # fmt: skip
            sent.close()
            self._store.flush(partial, deadline=deadline)
            self._compare(partial, sent, deadline=deadline)
            made = list_checksums(self._store, partial, newest, work=work, deadline=deadline)
            self._store.put_list(work / "list", name, deadline=deadline)
        self._store.publish(partial, name, deadline=deadline)
        return Snapshot(
            id=name,
            sha256=made.sha256,
            files=made.files,
            bytes=made.size_bytes,
            added_bytes=sent.size_bytes,
            vanished=vanished,
            details={
                "snapshot": name,
                "fake_super": not as_root,
                "files_transferred": sent.count,
                "linked_to": newest,
                "command": [printable(part) for part in ("rsync", *command)],
            },
        )

    @contextlib.contextmanager
    def _given_up(self, partial: str, *, clock: Clock) -> Iterator[None]:
        """Take what is under way away when it fails: on a full disk it would keep it full."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OpsdError):
                self._store.discard(partial, deadline=Deadline.after(GIVE_UP_S, clock))
            raise

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Path]:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="rsync-") as work:
            yield Path(work)

    def _transfer(
        self,
        args: Sequence[str],
        partial: str,
        sent: SentFiles,
        *,
        total_bytes: int,
        deadline: Deadline,
        progress: Progress,
    ) -> tuple[str, ...]:
        return rsynccommand.transfer(
            (*args, self._machine.name(self._store.path(partial)) + "/"),
            action=f"share {self._share.name}: rsync to {self.location}",
            machine=self._machine,
            deadline=deadline,
            progress=progress,
            step=f"rsync {self._share.name}",
            total_bytes=total_bytes,
            on_sent=sent.add,
        )

    def _compare(self, partial: str, sent: SentFiles, *, deadline: Deadline) -> None:
        """Read every transferred file back and hold it against what the sender read."""
        stored = self._store.digests(partial, sent.names, program="md5sum", deadline=deadline)
        for promised, found in itertools.zip_longest(sent, stored, fillvalue=(b"", b"")):
            if promised != found:
                name = printable(promised[1].decode("utf-8", "surrogateescape"))
                raise Damaged(
                    f"{self.location}: {name} was stored wrongly: read back, it is not what was "
                    "sent; check the disk, then run again"
                )

    def prove(
        self, snapshot: Snapshot, *, part: Part, deadline: Deadline, progress: Progress
    ) -> str:
        """See `Engine.prove`: what the run stored was read back by `copy` already."""
        step = f"verify {self._share.name}"
        read = 0
        newer: frozenset[bytes] = frozenset()
        try:
            for name in reversed(self._store.names(deadline=deadline)):
                progress.update(step, done=read, unit="files")
                lines = self._store.list_lines(name, deadline=deadline)
                chosen = frozenset(text for text in lines if _is_in(text, part))
                read += self._store.check(name, chosen - newer, deadline=deadline)
                newer = chosen
        finally:
            progress.finish(step)
        return (
            f"{snapshot.details['files_transferred']} files sent ({snapshot.added_bytes} bytes) "
            "read back as sent; "
            f"part {part.n} of {part.of} of all data read ({read} files)"
        )

    def check(self, manifest: Manifest, *, deadline: Deadline, progress: Progress) -> str:
        """See `Engine.check`."""
        name = self._name(manifest, deadline=deadline)
        listed = self._checked_list(manifest, name, deadline=deadline)
        step = f"verify {self._share.name}"
        progress.update(step, total=len(listed), unit="files")
        try:
            self._store.check(name, listed, deadline=deadline)
        finally:
            progress.finish(step)
        found = self.contents(manifest, deadline=deadline)
        promised = (manifest.source.get("files"), manifest.source.get("bytes"))
        if promised != found or found[0] != len(listed):
            raise Damaged(
                f"{self.location}/{name}: holds {found[0]} files and {found[1]} bytes, "
                f"{promised[0]} and {promised[1]} were promised"
            )
        return f"{len(listed)} files read, SHA-256 as listed; the list is as promised"

    def _checked_list(
        self, manifest: Manifest, name: str, *, deadline: Deadline
    ) -> frozenset[bytes]:
        overall = hashlib.sha256()
        listed: set[bytes] = set()
        for text in self._store.list_lines(name, deadline=deadline):
            overall.update(text + b"\n")
            listed.add(text)
        if overall.hexdigest() != manifest.sha256:
            raise Damaged(
                f"{self.location}/{name}: its list of checksums is not the published one"
            )
        return frozenset(listed)

    def contents(self, manifest: Manifest, *, deadline: Deadline) -> tuple[int, int]:
        """See `Engine.contents`."""
        name = self._name(manifest, deadline=deadline)
        sizes = [file.size_bytes for file in self._store.files(name, deadline=deadline)]
        return len(sizes), sum(sizes)

    def _name(self, manifest: Manifest, *, deadline: Deadline) -> str:
        name = str(manifest.source.get("snapshot", ""))
        if name not in self._store.names(deadline=deadline):
            raise Damaged(
                f"{self.location}: the snapshot {name} of {naming.stamp(manifest.slot)} is missing"
            )
        return name

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
        name = self._name(manifest, deadline=deadline)
        inside = f"{name}/{path}".rstrip("/")
        if not self._store.exists(inside, deadline=deadline):
            raise PermanentError(
                f"share {self._share.name}: the backup of {naming.stamp(manifest.slot)} has no "
                f"{printable(path)}; list it: ls {self.location}/{name}"
            )
        origin = self._machine.name(self._store.path(inside)) + ("" if path else "/")
        skip = () if path else (f"--exclude=/{ADDED}",)
        rsynccommand.transfer(
            (*KEEP_ALL, *self._stored_owners(manifest), *skip, origin, f"{target}/"),
            action=f"share {self._share.name}: restore from {self.location}",
            machine=self._machine,
            deadline=deadline,
            progress=progress,
            step=f"restore {self._share.name}",
            total_bytes=0 if path else int(manifest.source.get("bytes", 0)),
        )

    def compare(
        self,
        manifest: Manifest,
        *,
        path: str,
        target: Path,
        alone: bool,  # noqa: ARG002 - the list names every file
        deadline: Deadline,
        progress: Progress,
    ) -> Comparison:
        """See `Engine.compare`: SHA-256 of every file against the list."""
        name = self._name(manifest, deadline=deadline)
        wanted = os.fsencode(f"./{path}".rstrip("/"))
        cut = len(wanted.rpartition(b"/")[0]) + 1 if path else 2
        compared, differences, step = 0, [], f"compare {self._share.name}"
        for listed, digest in parsed(self._store.list_lines(name, deadline=deadline)):
            is_added = listed.startswith(b"./" + os.fsencode(ADDED) + b"/")
            if is_added != path.startswith(ADDED) or not is_below(listed, wanted):
                continue
            compared += 1
            progress.update(step, done=compared, unit="files")
            wrong = difference(os.fsencode(target) + b"/" + listed[cut:], digest)
            if wrong:
                differences.append(f"{wrong}: {printable(os.fsdecode(listed[2:]))}")
        progress.finish(step)
        return Comparison(
            unit="files",
            compared=compared,
            differences=tuple(differences),
            nothing_promised=not compared,
        )

    def _stored_owners(self, manifest: Manifest) -> tuple[str, ...]:
        if not manifest.source.get("fake_super"):
            return ()
        return ("-M--fake-super",) if self._machine.is_remote else ("--fake-super", "-M--super")

    def extract_files(
        self, snapshot_id: str, paths: Sequence[str], *, target: Path, deadline: Deadline
    ) -> None:
        """See `Engine.extract_files`."""
        with self._workspace() as work:
            names = work / "names"
            encoded = (path.encode("utf-8", "surrogateescape") for path in paths)
            names.write_bytes(b"".join(name + b"\0" for name in encoded))
            origin = self._machine.name(self._store.path(snapshot_id)) + "/"
            rsynccommand.transfer(
                (
                    "-a",
                    "-s",
                    "--ignore-missing-args",
                    "--from0",
                    f"--files-from={names}",
                    origin,
                    f"{target}/",
                ),
                action=f"share {self._share.name}: read files back from {self.location}",
                machine=self._machine,
                deadline=deadline,
                progress=NoProgress(),
                step="",
            )

    def snapshots(self, *, deadline: Deadline) -> tuple[str, ...]:
        """See `Engine.snapshots`."""
        return self._store.names(deadline=deadline)

    def forget(self, ids: Sequence[str], *, deadline: Deadline) -> None:
        """See `Engine.forget`."""
        for name in ids:
            self._store.remove(name, deadline=deadline)

    def reclaim(self, *, deadline: Deadline) -> None:
        """See `Engine.reclaim`: removing a directory gives its space back at once."""

    def sweep(
        self, *, published: Collection[str], dead_runs: frozenset[str], deadline: Deadline
    ) -> tuple[str, ...]:
        """See `Engine.sweep`."""
        removed = self._store.sweep(published=published, dead_runs=dead_runs, deadline=deadline)
        return tuple(removed)


def _is_in(text: bytes, part: Part) -> bool:
    return checksums.in_part(checksums.parse(text)[1], n=part.n, of=part.of)


def _free_name(name: str, *, taken: Collection[str]) -> str:
    """`name`, or with a number when an earlier attempt of the same run has it."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(one for one in itertools.chain((name,), numbered) if one not in taken)
