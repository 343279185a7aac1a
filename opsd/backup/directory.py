"""Backups in a directory: a disk, a USB stick, another machine's share that is mounted.

A backup must never look finished when it is not, overwrite another one, or fill the
system disk because the backup disk is not mounted. So an object is written under a hidden
temporary name, flushed to the disk, and appears under its key by a hard link, which fails
when the key is taken. The bytes are dropped from the page cache once they are on disk, so
that reading them back proves the disk and not the memory.

Limits: file systems without hard links (exFAT, some SMB servers) need renameat2 with
RENAME_NOREPLACE; one that has neither is refused. File systems that ignore case cannot
hold the backups of two names that differ in case only: the second is refused. A controller
or a file server may still answer the read-back from memory of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from opsd.backup.naming import check_key, check_prefix, is_part
from opsd.backup.repository import (
    CHUNK_BYTES,
    AlreadyExists,
    NotFound,
    Stored,
    StoredObject,
    Unfinished,
    Upload,
    try_rights,
)
from opsd.errors import OpsdError, PermanentError, TransientError

_PARTIAL = re.compile(r"\.partial-([0-9A-Za-z]*)-[0-9a-f]{8}-(.+)")
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF})

_REMEDY = {
    errno.ENOSPC: "free space there, or keep fewer backups",
    errno.EDQUOT: "raise the quota, or keep fewer backups",
    errno.EROFS: "the file system is read-only: check the disk (dmesg), then remount it",
    errno.EACCES: "give the user that runs opsd the right to read and write there",
    errno.EPERM: "give the user that runs opsd the right to read and write there",
    errno.ENAMETOOLONG: "shorten the name, or use a file system with 255-byte names",
    errno.EFBIG: "the file system does not take files of this size; use ext4, XFS or exFAT",
    errno.ELOOP: "a symbolic link stands in its place; remove it",
    errno.ENOTDIR: "a file stands where a directory must be; remove it",
    errno.ESTALE: "the file server changed under the mount: unmount and mount it again",
    errno.EIO: "the disk or the connection to it fails: see dmesg",
}
_TEMPORARY = frozenset({errno.ESTALE, errno.EIO, errno.EINTR, errno.EAGAIN, errno.ETIMEDOUT})


class DirectoryRepository:
    """Objects as files below `path`, which must exist."""

    def __init__(self, name: str, path: Path, *, mounted: bool = False) -> None:
        """Nothing is touched yet.

        Args:
            name: the configured name.
            path: an existing directory; opsd creates what is below, never itself.
            mounted: refuse to work when `path` is not on a mounted file system of its own.
        """
        self._name = name
        self._path = path
        self._mounted = mounted

    @property
    def name(self) -> str:
        """The configured name."""
        return self._name

    @property
    def location(self) -> str:
        """The directory."""
        return str(self._path)

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:  # noqa: ARG002 - protocol
        """Begin an object; see `Repository.upload`. `size_hint` does not matter here."""
        check_key(key)
        with _translated(self._name, f"write {key}"):
            directory = self._make_parents(key)
            return _DirectoryUpload(self._name, directory, key=key, run_id=run_id)

    def create(self, key: str, content: bytes) -> None:
        """Write a small object in one step; see `Repository.create`."""
        upload = self.upload(key, run_id="")
        try:
            upload.write(content)
            upload.commit()
        except AlreadyExists:
            if not self._holds(key, content):
                raise
        finally:
            upload.abort()

    def read(self, key: str) -> Iterator[bytes]:
        """The object's bytes from the disk; see `Repository.read`."""
        path = self._root() / check_key(key)
        with _translated(self._name, f"read {key}", key=key):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with _translated(self._name, f"read {key}"):
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise NotFound(f"repository {self._name}: read {key}: not an object")
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            received = 0
            while piece := self._read_piece(descriptor, key):
                received += len(piece)
                yield piece
            if received < status.st_size:
                raise TransientError(
                    f"repository {self._name}: read {key}: ended after {received} of"
                    f" {status.st_size} bytes; something shortens files there"
                )
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All finished objects under `prefix`; see `Repository.list`."""
        for entry, key in self._walk(prefix):
            if not is_part(entry.name):
                continue
            with _translated(self._name, f"list {key}", missing_ok=True):
                status = entry.stat(follow_symlinks=False)
                yield StoredObject(
                    key=key, size_bytes=status.st_size, modified_at=_modified_at(status)
                )

    def delete(self, key: str) -> None:
        """Remove one object; see `Repository.delete`."""
        path = self._root() / check_key(key)
        with _translated(self._name, f"delete {key}", missing_ok=True):
            path.unlink()
            _sync_directory(path.parent)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Temporary files under `prefix`; `started_at` is when they were last written to."""
        for entry, key in self._walk(prefix):
            match = _PARTIAL.fullmatch(entry.name)
            if match is None:
                continue
            with _translated(self._name, f"list {key}", missing_ok=True):
                yield Unfinished(
                    key=key,
                    run_id=match[1],
                    started_at=_modified_at(entry.stat(follow_symlinks=False)),
                    token=entry.name,
                )

    def discard(self, leftover: Unfinished) -> None:
        """Remove a temporary file; see `Repository.discard`."""
        if _PARTIAL.fullmatch(leftover.token) is None or "/" in leftover.token:
            raise PermanentError(
                f"repository {self._name}: discard {leftover.token!a}: not a temporary file"
            )
        path = (self._root() / check_key(leftover.key)).with_name(leftover.token)
        with _translated(self._name, f"discard {leftover.key}", missing_ok=True):
            path.unlink()
            _sync_directory(path.parent)

    def probe(self) -> None:
        """Try every right; see `Repository.probe`."""
        try_rights(self)

    def _root(self) -> Path:
        """The directory, if it is what the configuration says."""
        with _translated(self._name, f"open {self._path}", missing_ok=True):
            if not stat.S_ISDIR(self._path.stat().st_mode):
                raise PermanentError(
                    f"repository {self._name}: {self._path} is not a directory; change its path"
                )
            if self._mounted and not _is_on_a_mount(self._path):
                raise PermanentError(
                    f"repository {self._name}: nothing is mounted at {self._path} or above it;"
                    " mount the backup disk, or set mounted = false"
                )
            return self._path
        raise PermanentError(
            f"repository {self._name}: {self._path} does not exist; mount the disk, or"
            f" create it: mkdir -p {self._path}"
        )

    def _make_parents(self, key: str) -> Path:
        """The directory of `key`; what is missing is made for this user only."""
        directory = self._root()
        for part in key.split("/")[:-1]:
            directory = directory / part
            try:
                directory.mkdir(mode=0o700)
                _sync_directory(directory.parent)
            except FileExistsError:
                if not stat.S_ISDIR(directory.lstat().st_mode):
                    raise PermanentError(
                        f"repository {self._name}: write {key}: {directory} is a file or a"
                        " symbolic link, not a directory; remove it"
                    ) from None
        return directory

    def _walk(self, prefix: str) -> Iterator[tuple[os.DirEntry[str], str]]:
        """Regular files with the key that they have or would have, in the order of names."""
        yield from self._walk_below(self._root(), "", check_prefix(prefix))

    def _walk_below(
        self, directory: Path, base: str, prefix: str
    ) -> Iterator[tuple[os.DirEntry[str], str]]:
        entries: list[tuple[str, os.DirEntry[str]]] = []
        with (
            _translated(self._name, f"list {directory}", missing_ok=True),
            os.scandir(directory) as scan,
        ):
            # With its slash a directory sorts where the keys below it belong.
            entries = sorted(
                (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in scan
            )
        for name, entry in entries:
            partial = _PARTIAL.fullmatch(name)
            key = base + (partial[2] if partial else name)
            if name.endswith("/"):
                if is_part(entry.name) and (key.startswith(prefix) or prefix.startswith(key)):
                    yield from self._walk_below(directory / entry.name, key, prefix)
            elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                yield entry, key

    def _read_piece(self, descriptor: int, key: str) -> bytes:
        with _translated(self._name, f"read {key}"):
            return os.read(descriptor, CHUNK_BYTES)

    def _holds(self, key: str, content: bytes) -> bool:
        found = hashlib.sha256()
        for piece in self.read(key):
            found.update(piece)
        return found.digest() == hashlib.sha256(content).digest()


class _DirectoryUpload:
    """A temporary file beside the place that the object gets."""

    def __init__(self, repository: str, directory: Path, *, key: str, run_id: str) -> None:
        self._repository = repository
        self._key = key
        self._final = directory / key.rpartition("/")[2]
        self._partial = directory / f".partial-{run_id}-{secrets.token_hex(4)}-{self._final.name}"
        self._hash = hashlib.sha256()
        self._size_bytes = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._partial, flags, 0o600)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append `chunk`; see `Upload.write`."""
        self._hash.update(chunk)
        rest = memoryview(chunk)
        self._size_bytes += len(rest)
        with _translated(self._repository, f"write {self._key}"):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def commit(self) -> Stored:
        """Flush, publish, flush the directory; see `Upload.commit`."""
        with _translated(self._repository, f"write {self._key}"):
            os.fsync(self._descriptor)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            self._close()
            self._publish()
            _sync_directory(self._final.parent)
        self.abort()
        return Stored(key=self._key, size_bytes=self._size_bytes, sha256=self._hash.hexdigest())

    def abort(self) -> None:
        """Remove the temporary file; see `Upload.abort`."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _publish(self) -> None:
        try:
            os.link(self._partial, self._final, follow_symlinks=False)
        except FileExistsError as exc:
            # A file server may have answered a repeated request: then the link is ours.
            if not os.path.samestat(self._partial.lstat(), self._final.lstat()):
                raise self._taken() from exc
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            self._publish_by_rename()

    def _publish_by_rename(self) -> None:
        failure = _rename_exclusively(self._partial, self._final)
        if failure == errno.EEXIST:
            raise self._taken()
        if failure in (errno.EINVAL, errno.ENOSYS):
            raise PermanentError(
                f"repository {self._repository}: write {self._key}: this file system has neither"
                " hard links nor renames that never overwrite; use ext4, XFS, Btrfs or NFS"
            )
        if failure:
            raise OSError(failure, os.strerror(failure))

    def _taken(self) -> AlreadyExists:
        return AlreadyExists(
            f"repository {self._repository}: write {self._key}: an object with this key is there"
        )


@contextlib.contextmanager
def _translated(
    repository: str, action: str, *, key: str = "", missing_ok: bool = False
) -> Iterator[None]:
    """Turn what the kernel says into an error that a person can act on."""
    try:
        yield
    except FileNotFoundError as exc:
        if missing_ok:
            return
        if key:
            raise NotFound(f"repository {repository}: {action}: no such object") from exc
        raise _error(repository, action, exc) from exc
    except OSError as exc:
        raise _error(repository, action, exc) from exc


def _error(repository: str, action: str, exc: OSError) -> OpsdError:
    number = exc.errno or errno.EIO
    reason = exc.strerror or type(exc).__name__
    remedy = _REMEDY.get(number)
    text = f"repository {repository}: {action}: {reason}" + (f"; {remedy}" if remedy else "")
    temporary = number in _TEMPORARY or number not in _REMEDY
    return TransientError(text) if temporary else PermanentError(text)


def _sync_directory(directory: Path) -> None:
    """Make names durable, where the file system can."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def _rename_exclusively(source: Path, target: Path) -> int:
    """Rename without overwriting; 0 or the error number. Source: renameat2(2)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return errno.ENOSYS
    done = rename(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    )
    return ctypes.get_errno() if done else 0


def _is_on_a_mount(path: Path) -> bool:
    """Whether a file system other than the root one holds `path`."""
    real = path.resolve()
    return any(place.is_mount() for place in (real, *real.parents[:-1]))


def _modified_at(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)
