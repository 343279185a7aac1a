"""Bring a control plane's backup back as files, ready for a rebuild, or prove that it would.

It is read from storage, decrypted, unpacked into a new directory that gets its name only when all
of it is there, and held against the manifest: the number of files, the snapshot's size, its
SHA-256. Nothing that exists is overwritten.

Limits: while it is unpacked, twice its size is needed. Owners come back only when opsd runs as
root. What is written is plain: whoever can read it is the administrator of the cluster.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from opsd.backup.catalog import read_back
from opsd.backup.etcd import bundle
from opsd.backup.etcd.bundle import File, Unreadable, file_of
from opsd.backup.etcd.drill import drill
from opsd.backup.etcd.rebuild import steps
from opsd.backup.etcd.snapshot import SnapshotCheck
from opsd.backup.etcd.source import EtcdSource, source_of
from opsd.backup.etcd.tools import Tools
from opsd.backup.manifest import Level, Manifest, Verification
from opsd.backup.proof import Comparison
from opsd.backup.repository import Repository
from opsd.backup.stream import Incomplete, opened
from opsd.clock import Deadline
from opsd.errors import PermanentError
from opsd.progress import Progress

_PIECE_BYTES = 1 << 20
_FOLDER_MODE = 0o700


class Damaged(PermanentError):
    """The stored bytes, or what is in them, are not what the manifest promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a restore works with."""

    identity: Path | None  #: age identity file
    deadline: Deadline
    progress: Progress


def restore_control_plane(
    repository: Repository, manifest: Manifest, *, to: Path, means: Means
) -> Comparison:
    """Unpack a backup into a new directory and say what to do with it.

    Args:
        repository: where it is.
        manifest: of kind ``etcd_snapshot``.
        to: a new or empty directory.
        means: everything else.

    Raises:
        Damaged: the backup is not what it was; nothing was left there.
        ConfigError: no identity was given.
        TransientError, PermanentError, DeadlineExceeded: it was not finished; likewise.
    """
    source = source_of(manifest)
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise PermanentError(f"restore to {to}: it is there and not empty; name a new directory")
    with _unpacked(repository, manifest, beside=to, means=means) as (part, found):
        try:
            if to.exists():
                to.rmdir()
            part.rename(to)
        except OSError as exc:
            raise PermanentError(f"restore to {to}: {exc.strerror}") from exc
    warning = f"the keys of the cluster are plain in {to}: delete it when done"
    return Comparison(
        unit="files",
        compared=found.files + 1,
        differences=found.differences(source),
        notes=(warning, *(f"next: {step}" for step in steps(source, str(to)))),
    )


def drill_control_plane(
    repository: Repository, manifest: Manifest, tools: Tools, *, within: Path, means: Means
) -> Verification:
    """Decrypt a backup, start an etcd from it, compare, and remove all of it.

    Args:
        repository: where it is.
        manifest: of kind ``etcd_snapshot``.
        tools: etcd and etcdutl.
        within: a directory that nobody else can enter.
        means: everything else.

    Raises:
        ConfigError, TransientError, PermanentError, DeadlineExceeded: nothing is known.
    """
    source = source_of(manifest)
    try:
        with _unpacked(repository, manifest, beside=within / "backup", means=means) as (
            part,
            found,
        ):
            wrong = found.differences(source)
            if wrong:
                return _verdict(means, "; ".join(wrong), ok=False)
            return drill(
                part / bundle.SNAPSHOT,
                source.promise,
                tools,
                taken_from=source.etcd_version,
                folder=within / "restored",
                deadline=means.deadline,
            )
    except Damaged as exc:
        return _verdict(means, str(exc), ok=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was in a bundle."""

    files: int  #: of the node
    snapshot_bytes: int

    def differences(self, source: EtcdSource) -> tuple[str, ...]:
        """What is not as the manifest promises."""
        found = []
        if self.files != source.files:
            found.append(f"{self.files} files of the node, {source.files} were promised")
        if self.snapshot_bytes != source.snapshot_bytes:
            promised = source.snapshot_bytes
            found.append(f"a snapshot of {self.snapshot_bytes} bytes, {promised} were promised")
        return tuple(found)


def _verdict(means: Means, detail: str, *, ok: bool) -> Verification:
    now = means.deadline.clock.now()
    return Verification(level=Level.RESTORED.label, at=now, ok=ok, detail=detail)


@contextlib.contextmanager
def _unpacked(
    repository: Repository, manifest: Manifest, *, beside: Path, means: Means
) -> Iterator[tuple[Path, Found]]:
    """The bundle in a directory beside `beside`; removed at the end unless it was moved away."""
    part = beside.with_name(f".{beside.name}.partial-{secrets.token_hex(4)}")
    _prove(repository, manifest, means)
    try:
        part.mkdir(mode=_FOLDER_MODE)
        packed = part / ".tar"
        _fetch(repository, manifest, packed, means)
        found = unpack(packed, part, promised_bytes=source_of(manifest).snapshot_bytes)
        packed.unlink()
        yield part, found
    except OSError as exc:
        raise PermanentError(f"restore to {beside}: {exc.strerror}") from exc
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _prove(repository: Repository, manifest: Manifest, means: Means) -> None:
    """Hold the stored bytes against the manifest before anything is made of them."""
    verdict = read_back(
        repository,
        manifest.key,
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        deadline=means.deadline,
        progress=means.progress,
    )
    if not verdict.ok:
        raise Damaged(f"repository {repository.name}: {manifest.key}: {verdict.detail}")


def _fetch(repository: Repository, manifest: Manifest, to: Path, means: Means) -> None:
    step = f"read {manifest.key}"

    def report(done: int) -> None:
        means.deadline.remaining()
        means.progress.update(step, done=done, total=manifest.size_bytes)

    try:
        with _created(to, 0o600) as file:
            opened(repository, manifest, file.write, identity=means.identity, report=report)
    finally:
        means.progress.finish(step)


def unpack(packed: Path, to: Path, *, promised_bytes: int) -> Found:
    """Unpack a whole, plain bundle into an empty directory of our own.

    Symbolic links are made last, so that nothing is written through one.

    Raises:
        Damaged: it is not whole, or holds what no bundle holds.
        OSError: it cannot be written.
    """
    files, links = 0, list[File]()
    check = SnapshotCheck()
    try:
        with tarfile.open(packed, mode="r:") as tar:
            for member in tar:
                files += member.name.startswith(bundle.NODE)
                if member.issym():
                    links.append(file_of(member, b""))
                else:
                    _write(tar, member, to, check)
        check.finish(promised_bytes=promised_bytes)
    except (tarfile.TarError, Unreadable, Incomplete, EOFError) as exc:
        raise Damaged(f"the backup cannot be unpacked: {exc}") from exc
    for link in links:
        place = to / link.path
        place.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        place.symlink_to(link.link)
    return Found(files=files, snapshot_bytes=check.size_bytes)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, to: Path, check: SnapshotCheck) -> None:
    described = file_of(member, b"")
    place = to / described.path
    content = tar.extractfile(member) if member.isfile() else None
    if content is None:
        raise Unreadable(f"{member.name!a} is neither a file nor a link")
    place.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    with content, _created(place, described.mode) as file:
        while piece := content.read(_PIECE_BYTES):
            file.write(piece)
            if described.path == bundle.SNAPSHOT:
                check.feed(piece)
        if os.geteuid() == 0:
            os.fchown(file.fileno(), described.uid, described.gid)
        os.fchmod(file.fileno(), described.mode & 0o777)
    os.utime(place, (described.modified_s, described.modified_s))


@contextlib.contextmanager
def _created(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """A new file, durable at the end of the context."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode & 0o700 | 0o600), "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
