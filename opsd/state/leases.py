"""One run of a job at a time, whoever started it: the daemon, a person, a second daemon.

A lease is a lock that the kernel holds for the process: it ends with the process, also
after SIGKILL and a crash, so there are no stale leases to clean up. The file's content only
says who holds it; the file stays when the lease ends.

Limits: one machine. Between machines the lease lives in the Kubernetes API.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from opsd.backup.naming import quote
from opsd.clock import Clock
from opsd.errors import LeaseHeld, PermanentError
from opsd.text import printable

_OWNER_BYTES = 4096  # more than an owner ever needs


@contextlib.contextmanager
def lease(directory: Path, name: str, *, run_id: str, clock: Clock) -> Iterator[None]:
    """Hold the lease `name` within the block.

    Raises:
        LeaseHeld: another process (or another thread) holds it.
        PermanentError: the file cannot be made.
    """
    path = directory / quote(name)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise PermanentError(f"open the lease {path}: {exc.strerror}") from exc
    try:
        _lock(descriptor, name=name, path=path)
        _sign(descriptor, run_id=run_id, since=clock.now())
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, name: str, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LeaseHeld(f"{name} is already running: {_owner(descriptor)}") from None
    except OSError as exc:
        raise PermanentError(f"lock the lease {path}: {exc.strerror}") from exc


def _sign(descriptor: int, *, run_id: str, since: datetime) -> None:
    """Say who holds it. For people only: a full disk must not stop the run."""
    owner = {"run_id": run_id, "pid": os.getpid(), "since": since.isoformat(timespec="seconds")}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, _OWNER_BYTES, 0))
        return printable(f"run {owner['run_id']}, process {owner['pid']}, since {owner['since']}")
    except (OSError, ValueError, KeyError, TypeError):
        return "by a process that has not said who it is"
