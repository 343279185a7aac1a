"""The process groups that opsd has started, so that none is forgotten and none stolen.

Limits: one process; a child that was started elsewhere is not known here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar


class _Started(Protocol):
    @property
    def pid(self) -> int: ...


StartedT = TypeVar("StartedT", bound=_Started)

_lock = threading.RLock()  # `kill_all` runs in signal handlers too
_groups: set[int] = set()


def started(start: Callable[[], StartedT]) -> StartedT:
    """Call `start`, which starts a program in a group of its own, and remember it."""
    with _lock:  # `reap_orphans` must not take it for somebody else's child
        process = start()
        _groups.add(process.pid)
    return process


def forget(group: int) -> None:
    """It has ended, or was left behind."""
    with _lock:
        _groups.discard(group)


def kill_all() -> None:
    """SIGKILL every group that this process started and that is still running."""
    with _lock:
        groups = tuple(_groups)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def reap_orphans() -> int:
    """Take the exit statuses of ended children that nobody here waits for; how many.

    As process 1 of a container opsd inherits what its children leave behind. Without this
    they would stay as zombies until no process can be started any more.
    """
    number = 0
    while True:
        with _lock:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return number
            # Our own is waited for by its thread, within a second; the next call goes on.
            if ended is None or ended.si_pid in _groups:
                return number
            os.waitpid(ended.si_pid, 0)
            number += 1
