"""The file of the state: opened, brought to the current shape, and its errors in words.

One connection per process, behind a lock; other processes wait for each other up to
`BUSY_TIMEOUT`. Every transaction is on the disk when it returns (WAL, synchronous FULL).

Limits: local disks only. On NFS the locks and the shared memory of SQLite do not work.
A damaged file is reported and never touched, let alone deleted.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.state.migrations import MIGRATIONS

BUSY_TIMEOUT = timedelta(seconds=15)
APPLICATION_ID = 0x6F707364  # "opsd": `file state.db` shows it, and no other file is taken for one
_PRIMARY_CODE = 0xFF  # SQLite's extended result codes carry the class in the low byte

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_READ_ONLY = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_NOTHING_LOST = "no backup is lost: the repositories hold everything that a restore needs"


class Database:
    """The state file of one process. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            TransientError: it is locked, or the disk is full.
            PermanentError: it is damaged, newer than this opsd, or may not be written.
        """
        self.path = path
        self._lock = threading.RLock()
        with self._translated("open"):
            _make_private(path)
            self._connection = _connect(path)
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                _migrate(self._connection, path)
            except BaseException:
                self._connection.close()
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Use the connection for statements that change nothing."""
        with self._lock, self._translated("read"):
            yield self._connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk at the end of the block, or none."""
        with self._lock, self._translated("write"), _transaction(self._connection):
            yield self._connection

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        with self._lock, self._translated("close"):
            self._connection.close()

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise _in_words(exc, action=action, path=self.path) from exc
        except OSError as exc:
            raise PermanentError(f"{action} the state file {self.path}: {exc.strerror}") from exc


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT.total_seconds(),
        isolation_level=None,
        check_same_thread=False,
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()  # the caught error would keep the file open
        raise
    return connection


def _make_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself already (disk full).
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == len(MIGRATIONS):
        return
    with _transaction(connection):
        version = _version(connection)  # another process may have been faster
        _refuse_foreign(connection, path, version=version)
        if 0 < version < len(MIGRATIONS):
            _keep_copy(path, version=version)
        for step in MIGRATIONS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_foreign(connection: sqlite3.Connection, path: Path, *, version: int) -> None:
    if version > len(MIGRATIONS):
        raise PermanentError(
            f"the state file {path} was written by a newer opsd (version {version}, this opsd "
            f"knows {len(MIGRATIONS)}): update opsd, or move the file away and opsd starts a "
            f"new one; {_NOTHING_LOST}"
        )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version == 0 and tables:
        raise PermanentError(
            f"the state file {path} is a database of another program: set opsd.state_dir to a "
            "directory of its own"
        )


def _keep_copy(path: Path, *, version: int) -> None:
    """Copy the file as it is before the migration; the caller keeps writers out."""
    copy = path.with_name(f"{path.name}.version-{version}")
    partial = copy.with_name(f".{copy.name}.partial")
    partial.unlink(missing_ok=True)
    with (
        contextlib.closing(_connect(path)) as source,
        contextlib.closing(sqlite3.connect(partial)) as target,
    ):
        source.backup(target)
    partial.replace(copy)


def _in_words(exc: sqlite3.Error, *, action: str, path: Path) -> OpsdError:
    """Say what is the matter with the file and what to do about it."""
    primary = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE
    what = f"{action} the state file {path}"
    if primary in _BUSY:
        return TransientError(
            f"{what}: another opsd process has kept it locked for "
            f"{BUSY_TIMEOUT.total_seconds():.0f} s; try again, or find it: fuser -v {path}"
        )
    if primary in _NO_ROOM:
        return TransientError(
            f"{what}: the disk is full or failing ({exc}): free some room (df -h {path.parent}) "
            f"or look for disk errors (dmesg); {_NOTHING_LOST}"
        )
    if primary in _READ_ONLY:
        return PermanentError(
            f"{what}: no right to write it ({exc}): run opsd as the owner of {path.parent}, and "
            "see that the file system is not mounted read-only"
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        return PermanentError(
            f"{what}: {exc}: see that {path.parent} exists, is on a local disk and belongs to "
            "the user that runs opsd"
        )
    return PermanentError(
        f"{what}: it is damaged ({exc}): move {path}* away (all files of that name) and opsd "
        f"starts a new one; history and open findings begin anew, {_NOTHING_LOST}"
    )
