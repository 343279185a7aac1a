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
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from opsd.backup.naming import quote
from opsd.clock import Clock
from opsd.errors import LeaseHeld, PermanentError
from opsd.state import Holder
from opsd.text import printable

_OWNER_BYTES = 4096  # more than an owner ever needs
_PAUSES_S = (0.01, 0.02, 0.05)  # until those who only looked at who holds it have looked


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


def holder(directory: Path, name: str) -> Holder | None:
    """Who holds the lease `name`; None when nobody does.

    Raises:
        PermanentError: that cannot be told.
    """
    path = directory / quote(name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise PermanentError(f"open the lease {path}: {exc.strerror}") from exc
    try:
        # Others who only look do not disturb; who wants the lease in this instant waits it out.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _signed(descriptor) or Holder()
    except OSError as exc:
        raise PermanentError(f"look at the lease {path}: {exc.strerror}") from exc
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, name: str, path: Path) -> None:
    for pause_s in (*_PAUSES_S, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause_s is None:
                raise LeaseHeld(f"{name} is already running: {_owner(descriptor)}") from None
            time.sleep(pause_s)
        except OSError as exc:
            raise PermanentError(f"lock the lease {path}: {exc.strerror}") from exc
        else:
            return


def _sign(descriptor: int, *, run_id: str, since: datetime) -> None:
    """Say who holds it. For people only: a full disk must not stop the run."""
    owner = {"run_id": run_id, "pid": os.getpid(), "since": since.isoformat(timespec="seconds")}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)


def _signed(descriptor: int) -> Holder | None:
    """Who says to hold it; None when that cannot be read."""
    try:
        owner = json.loads(os.pread(descriptor, _OWNER_BYTES, 0))
        since = datetime.fromisoformat(owner["since"])
        return Holder(run_id=printable(owner["run_id"]), pid=int(owner["pid"]), since=since)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _owner(descriptor: int) -> str:
    owner = _signed(descriptor)
    if owner is None or owner.since is None:
        return "by a process that has not said who it is"
    since = owner.since.isoformat(timespec="seconds")
    return f"run {owner.run_id}, process {owner.pid}, since {since}"
