"""Copy live SQLite databases consistently. Runs as a child, because it touches the share.

A database that is written to while it is copied byte by byte is torn. Three ways, the least
intrusive first; each copy must pass ``PRAGMA integrity_check``:

``file_copy``: nobody writes (no log beside it, and nothing changed during the copy): the
bytes themselves. ``backup_api``: somebody on this machine writes: SQLite's own online backup,
which takes part in its locking. ``file_copy_with_log``: somebody elsewhere may write (locks
and shared memory do not cross NFS): database and log are copied together, again if anything
changed meanwhile, and the copy is opened so that SQLite replays the log.

Limits: the share itself is never written to. A database that is never still for as long as
its copy takes cannot be copied from another machine; it is reported.
"""

# Paths are bytes here, which pathlib does not know; its import would double the start-up time.
# ruff: noqa: PTH101, PTH103, PTH107, PTH110, PTH116, PTH118, PTH120, PTH123
from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

ATTEMPTS = 3
PAUSE_S = 0.5  # between two attempts at a database that is being written to
BUSY_S = 10.0  # how long the writer's lock is waited for
LOCK_S = 30.0  # how long one backup tries for its turn among writers
COPY_BYTES = 1 << 20
SPARE_BYTES = 64 << 20  # kept free on the scratch disk
LOGS = (b"-wal", b"-journal")
NO_JOURNAL = b"\0" * 8  # what a journal that is kept but not in use begins with


class Torn(Exception):
    """The copy is not a database that can be trusted."""


def copy_database(source: bytes, target: bytes, *, remote: bool) -> str:
    """Make a consistent copy; returns how.

    Raises:
        Torn: after `ATTEMPTS`, the text says why.
        OSError: the share or the scratch disk failed.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        try:
            return _copy_once(source, target, remote=remote)
        except (Torn, sqlite3.Error) as exc:
            reason = str(exc) or type(exc).__name__
        _remove(target)
    raise Torn(reason)


def _copy_once(source: bytes, target: bytes, *, remote: bool) -> str:
    logs = _logs_in_use(source)
    if not logs:
        _copy_still(source, target, ())
        _check(target)
        return "file_copy"
    if not remote:
        with contextlib.suppress(sqlite3.Error):
            _backup(source, target)
            return "backup_api"
        _remove(target)
    _copy_still(source, target, logs)
    with contextlib.closing(sqlite3.connect(os.fsdecode(target))) as replayed:
        replayed.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        replayed.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    _check(target)
    return "file_copy_with_log"


def _logs_in_use(source: bytes) -> tuple[bytes, ...]:
    return tuple(suffix for suffix in LOGS if _is_in_use(source + suffix))


def _is_in_use(log: bytes) -> bool:
    try:
        with open(log, "rb") as stream:
            begin = stream.read(len(NO_JOURNAL))
    except FileNotFoundError:
        return False
    return bool(begin) and begin != NO_JOURNAL


def _copy_still(source: bytes, target: bytes, logs: tuple[bytes, ...]) -> None:
    """Copy the files if none of them changes meanwhile."""
    before = _state(source)
    for suffix in (b"", *logs):
        _copy_file(source + suffix, target + suffix)
    if _state(source) != before or _logs_in_use(source) != logs:
        raise Torn("it was written to while it was copied")


def _state(source: bytes) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    for suffix in (b"", *LOGS):
        try:
            status = os.stat(source + suffix)
        except FileNotFoundError:
            found.append(())
        else:
            times = (status.st_mtime_ns, status.st_ctime_ns)
            found.append((status.st_ino, status.st_size, *times))
    return tuple(found)


def _copy_file(source: bytes, target: bytes) -> None:
    with open(source, "rb") as reading, open(target, "wb") as writing:
        while piece := reading.read(COPY_BYTES):
            writing.write(piece)


def _backup(source: bytes, target: bytes) -> None:
    # Without the shared memory there is no live writer, and opening would create it there.
    if _is_in_use(source + b"-wal") and not os.path.exists(source + b"-shm"):
        raise sqlite3.OperationalError("a log without its shared memory")
    with (
        contextlib.closing(
            sqlite3.connect(_uri(source, "mode=ro"), uri=True, timeout=BUSY_S)
        ) as live,
        contextlib.closing(sqlite3.connect(os.fsdecode(target))) as copy,
    ):
        # In one step: with steps, every write in between begins the copy anew, for ever.
        live.backup(copy, pages=-1, progress=_give_up_after(LOCK_S))
    _check(target)


def _give_up_after(seconds: float) -> Callable[[int, int, int], None]:
    """For `Connection.backup`, which by itself waits for its turn without end."""
    end = time.monotonic() + seconds

    def progress(_status: int, remaining: int, total: int) -> None:
        if (remaining or not total) and time.monotonic() > end:
            raise sqlite3.OperationalError("its writers left no moment for a backup")

    return progress


def _check(target: bytes) -> None:
    """Have SQLite read the whole copy, without changing a byte of it."""
    with contextlib.closing(sqlite3.connect(_uri(target, "immutable=1"), uri=True)) as copy:
        verdict = copy.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != ("ok",):
        raise Torn(f"integrity_check: {verdict[0] if verdict else 'no answer'}")


def _uri(path: bytes, option: str) -> str:
    return f"file:{quote(path)}?{option}"


def _remove(target: bytes) -> None:
    for suffix in (b"", b"-wal", b"-shm", b"-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(target + suffix)


def _like(source: bytes, target: bytes) -> None:
    """Owner, mode and time of the original, so that the copy can take its place."""
    status = os.stat(source)
    newest = status.st_mtime_ns
    with contextlib.suppress(FileNotFoundError):
        newest = max(newest, os.stat(source + b"-wal").st_mtime_ns)
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o777)
    os.utime(target, ns=(newest, newest))


def _has_room(source: bytes, directory: bytes) -> bool:
    needed = sum(state[1] for state in _state(source) if state)
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize > needed + SPARE_BYTES


def handle(root: bytes, into: bytes, name: str, *, remote: bool) -> dict[str, Any]:
    """Copy one database; the answer says how, or why not."""
    source = os.path.join(root, os.fsencode(name))
    target = os.path.join(into, os.fsencode(name))
    try:
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        if not _has_room(source, into):
            return {"path": name, "method": "", "reason": "no room on the scratch disk"}
        method = copy_database(source, target, remote=remote)
        _like(source, target)
    except (Torn, OSError) as exc:
        _remove(target)
        return {"path": name, "method": "", "reason": str(exc)}
    size = os.stat(target).st_size
    return {"path": name, "method": method, "size_bytes": size, "reason": ""}


def main() -> None:
    """Answer the one request on stdin with a line for each database."""
    request = json.loads(sys.stdin.buffer.read())
    root, into = os.fsencode(request["path"]), os.fsencode(request["into"])
    for name in request["databases"]:
        answer = handle(root, into, name, remote=request["remote"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
