"""Look at a share before anything is written: is it there, whole, readable, plausible?

Every file backup tool calls the copy of an empty or unmounted directory a success. Here it
is a failure, found before the engine starts. All looking is done by a child process
(`opsd.backup.share.walk`) that opsd can leave behind when the file server is dead.

Limits: a share that shrinks slowly, run by run, stays below every threshold.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from opsd.backup import naming
from opsd.backup.share import walk
from opsd.clients.process import Process, lines
from opsd.clock import Clock, Deadline
from opsd.errors import DeadlineExceeded, TransientError
from opsd.model import Finding, Severity
from opsd.progress import Progress
from opsd.text import printable, shortened

PROBE_S = 30.0  # a share whose root does not answer in this time hangs
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "glusterfs", "virtiofs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One directory tree that is backed up, as configured."""

    name: str
    path: Path  #: absolute
    mounted: bool = True  #: the path must be a mount point
    sentinel: str = ""  #: a path below the share that must exist
    exclude: tuple[str, ...] = ()  #: globs: ``name`` anywhere, ``/a/b`` from the root
    min_files: int = 1
    shrink_percent: int = 50  #: of the last good run's files and bytes; 0 allows anything

    @property
    def subject(self) -> str:
        """``share/<name>``: the series of its backups."""
        return naming.subject("share", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The mount that holds a share."""

    point: str
    kind: str  #: ``nfs4``, ``ext4``
    source: str  #: ``nas:/export`` or a device
    here: bool  #: the share's path itself is the mount point

    @property
    def is_remote(self) -> bool:
        """Whether other machines may write to it behind this kernel's back."""
        return self.kind.startswith(NETWORK_FILE_SYSTEMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFile:
    """A file drawn for the spot check, as it was when the share was walked."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What one walk over a share found. Paths are relative, with surrogate escapes."""

    files: int
    size_bytes: int
    directories: int
    others: int  #: links, sockets, devices
    newest_ctime_ns: int  #: on the file server's clock; -1 when nothing was seen
    sqlite: tuple[str, ...] = ()
    pgdata: tuple[str, ...] = ()  #: directories; "." is the share itself
    sample: tuple[SampleFile, ...] = ()
    changed: tuple[str, ...] = ()  #: the first `walk.LISTED`
    changed_count: int = 0
    unreadable: tuple[str, ...] = ()
    unreadable_count: int = 0
    errors: tuple[str, ...] = ()  #: ``path: reason``


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A share that answered."""

    mount: Mount
    entries: int
    sentinel: bool
    as_root: bool


class ShareHangs(TransientError):
    """The file server does not answer; the child that asked was killed or left behind."""


def probe(share: Share, *, clock: Clock, deadline: Deadline) -> Probed:
    """Ask the share for its root directory, without risk.

    Raises:
        ShareHangs: no answer within `PROBE_S`.
        TransientError: the root cannot be read; the text says why.
    """
    patience = Deadline.after(min(PROBE_S, deadline.remaining()), clock)
    try:
        answer = _ask({"mode": "probe", "sentinel": share.sentinel}, share, deadline=patience)
    except DeadlineExceeded as exc:
        raise ShareHangs(f"share {share.name}: {share.path} does not answer") from exc
    if answer["error"]:
        raise TransientError(f"share {share.name}: read {share.path}: {answer['error']}")
    mount = answer["mount"]
    return Probed(
        mount=Mount(
            point=mount["point"], kind=mount["type"], source=mount["source"], here=mount["here"]
        ),
        entries=answer["entries"],
        sentinel=answer["sentinel"],
        as_root=answer["root"],
    )


def scan(share: Share, *, deadline: Deadline, progress: Progress, sample_files: int) -> Inventory:
    """Walk the share once.

    Raises:
        ShareHangs: it stopped answering on the way.
    """
    request = {"mode": "scan", "exclude": share.exclude, "sample": sample_files}
    step = f"look at {share.name}"
    return _inventory(_ask(request, share, deadline=deadline, progress=progress, step=step))


def changed_since(
    share: Share, before: Inventory, *, exclude: tuple[str, ...], deadline: Deadline
) -> Inventory:
    """Walk again for files whose ctime is later than the latest that `before` saw.

    Both times are the file server's, so its clock need not agree with ours.
    """
    request = {"mode": "changed", "exclude": exclude, "since_ns": before.newest_ctime_ns}
    return _inventory(_ask(request, share, deadline=deadline))


def hash_files(
    share: Share, names: tuple[str, ...], *, deadline: Deadline
) -> Mapping[str, tuple[str, int, int]]:
    """SHA-256, size and mtime_ns of live files; those that cannot be read are left out."""
    answer = _ask({"mode": "hashes", "names": names}, share, deadline=deadline)
    return {name: (sha, size, mtime) for name, (sha, size, mtime) in answer["hashes"].items()}


def regular_files(root: Path) -> Iterator[tuple[bytes, int]]:
    """(relative path, size) of every regular file below a directory on local disk."""
    base = os.fsencode(root)
    for directory, _, names in os.walk(base):
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - bytes
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                yield os.path.relpath(path, base), status.st_size


def _ask(
    request: Mapping[str, Any],
    share: Share,
    *,
    deadline: Deadline,
    progress: Progress | None = None,
    step: str = "",
) -> dict[str, Any]:
    message = json.dumps({**request, "path": str(share.path)}).encode()
    argv = (sys.executable, "-I", "-S", walk.__file__)
    with Process(argv, deadline=deadline, stdin=True) as child:
        child.write(message)
        child.close_stdin()
        try:
            for line in _answers(child):
                if "done" in line:
                    return dict(line["done"])
                if "stalled" in line:
                    where = printable(line["stalled"])
                    raise ShareHangs(f"share {share.name}: {share.path} hangs at {where}")
                if progress is not None:
                    progress.update(step, done=line["files"], unit="files")
        finally:
            if progress is not None:
                progress.finish(step)
        child.wait()
        raise TransientError(f"share {share.name}: look at {share.path}: {child.stderr.strip()}")


def _answers(child: Process) -> Iterator[dict[str, Any]]:
    for line in lines(child):
        yield json.loads(line)


def _inventory(answer: Mapping[str, Any]) -> Inventory:
    return Inventory(
        files=answer["files"],
        size_bytes=answer["bytes"],
        directories=answer["directories"],
        others=answer["others"],
        newest_ctime_ns=answer["newest_ctime_ns"],
        sqlite=tuple(answer["sqlite"]),
        pgdata=tuple(answer["pgdata"]),
        sample=tuple(
            SampleFile(path=path, size_bytes=size, mtime_ns=mtime)
            for path, size, mtime in answer["sample"]
        ),
        changed=tuple(answer["changed"]),
        changed_count=answer["changed_count"],
        unreadable=tuple(answer["unreadable"]),
        unreadable_count=answer["unreadable_count"],
        errors=tuple(answer["errors"]),
    )


Refusal = Literal[
    "nfs.hangs",
    "nfs.unreachable",
    "nfs.not_mounted",
    "nfs.sentinel_missing",
    "nfs.empty",
    "nfs.shrunk",
    "nfs.pgdata",
    "nfs.unreadable",
    "nfs.read_error",
]


def refusal(
    share: Share, check: Refusal, summary: str, remedy: str, **facts: str | int
) -> Finding:
    """A finding that says why a share was not backed up."""
    return Finding(
        check=check,
        subject=share.subject,
        severity=Severity.CRITICAL,
        summary=shortened(f"share {share.name} {summary}", 120),
        remedy=remedy,
        facts={"path": str(share.path), **facts},
    )


def refuse_probed(share: Share, probed: Probed) -> Finding | None:
    """What already the root directory tells against a backup, or None."""
    if share.mounted and not probed.mount.here:
        return refusal(
            share,
            "nfs.not_mounted",
            f"is not mounted at {share.path}",
            f"mount {share.path}; if it is no mount point: mounted = false for this share, "
            "and a sentinel",
            on=probed.mount.point,
        )
    if not probed.sentinel:
        return refusal(
            share,
            "nfs.sentinel_missing",
            f"lacks its sentinel {share.sentinel}",
            f"ls {share.path}: is this the right file system? Else: "
            f"touch {share.path / share.sentinel}",
        )
    if not probed.entries and share.min_files:
        return refusal(
            share,
            "nfs.empty",
            "is empty: unmounted or lost?",
            f"ls -la {share.path}; findmnt -T {share.path}; older backups are kept",
        )
    return None


def refuse_scanned(
    share: Share, found: Inventory, *, probed: Probed, last: Mapping[str, Any] | None
) -> Finding | None:
    """What the walk tells against a backup, or None.

    Args:
        share: as configured.
        found: the walk's result.
        probed: the mount, for the remedy.
        last: ``source`` of the last good manifest: its ``walked_files`` and ``walked_bytes``.
    """
    if found.errors:
        return refusal(
            share,
            "nfs.read_error",
            "cannot be read completely",
            "dmesg on the file server; then run again",
            errors=len(found.errors),
            first=printable(found.errors[0]),
        )
    if "." in found.pgdata:
        return refusal(
            share,
            "nfs.pgdata",
            "is a live PostgreSQL data directory, which cannot be copied as files",
            "add this server to [[jobs.postgres-backup.servers]] and remove the share",
        )
    if found.unreadable_count:
        return _unreadable(share, found, probed)
    if found.files < share.min_files:
        return refusal(
            share,
            "nfs.empty",
            f"has {found.files} files, at least {share.min_files} are expected",
            f"ls -la {share.path}; if that is right: min_files = {found.files} for this share",
            files=found.files,
        )
    return _shrunk(share, found, last) if last and share.shrink_percent else None


def _unreadable(share: Share, found: Inventory, probed: Probed) -> Finding:
    server, _, export = probed.mount.source.partition(":")
    if not probed.as_root:
        remedy = "run opsd as root, or on the file server itself"
    elif export and probed.mount.kind.startswith("nfs"):
        remedy = (
            f"root is squashed. On {server} in /etc/exports: {export} "
            f"{os.uname().nodename}(ro,no_root_squash,no_subtree_check); then: exportfs -ra"
        )
    else:
        remedy = f"ls -la {share.path}; the file system refuses root (FUSE allow_root, SMB user?)"
    return refusal(
        share,
        "nfs.unreadable",
        f"has {found.unreadable_count} files or directories that opsd may not read",
        remedy,
        first=printable(found.unreadable[0]),
        unreadable=found.unreadable_count,
    )


def _shrunk(share: Share, found: Inventory, last: Mapping[str, Any]) -> Finding | None:
    for unit, now in (("files", found.files), ("bytes", found.size_bytes)):
        before = int(last.get(f"walked_{unit}", 0))
        if now * 100 < before * share.shrink_percent:
            return refusal(
                share,
                "nfs.shrunk",
                f"fell from {before:,} to {now:,} {unit}",
                f'look what is missing; if that is right: shrink_percent = 0 for share "'
                f'{share.name}", opsd run-job nfs-backup, then set it back',
                before=before,
                now=now,
                unit=unit,
                shrink_percent=share.shrink_percent,
            )
    return None
