"""Processes by the hundred: forked from one that has loaded opsd already, 5 ms each.

`Forks` is a process that has one thread and does nothing but fork, run what it is given in the
child, and say how that ended. A child dies with it, and it dies with its owner, as children of
the daemon do; so a test may kill at any level and leaves nothing behind.

Limits: one child at a time. What is run, and what it returns, must survive pickling. A child
that somebody stops (SIGSTOP) is reported as stopped and killed: nobody would end it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
CRASHED = 70  # exit status of a child whose work raised; its traceback is on stderr
LONGEST_S = 60.0  # no child of a test works longer
STUCK_S = 20.0  # a child that is at it for so long says on stderr where it stands
_LOOK_S = 0.001
ORPHANS_GONE_S = 10.0  # what a child leaves dies with it; the kernel may take a moment
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

Work = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a child ended."""

    status: int  #: exit status; negative: minus the signal that ended it
    result: Any = None  #: what its work returned; None when it did not get there
    was_stopped: bool = False  #: it stood still, and was killed for that
    has_orphans: bool = False  #: what it started did not die with it

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Forks:
    """The owner's side."""

    _orders: IO[bytes]
    _endings: IO[bytes]

    def run(self, work: Work, *, kill_after_s: float = LONGEST_S) -> Ending:
        """Run `work` in a new process and wait for its end; SIGKILL after `kill_after_s`.

        Raises:
            AssertionError: its work raised, or it left processes behind.
        """
        pickle.dump((work, kill_after_s), self._orders)
        self._orders.flush()
        ending: Ending = pickle.load(self._endings)  # noqa: S301 - our own child wrote it
        assert ending.status != CRASHED, "a child crashed; its traceback is on stderr"
        assert not ending.has_orphans, "a child left processes behind"
        return ending


@contextlib.contextmanager
def started() -> Iterator[Forks]:
    """A new process that forks, whatever threads the caller has."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # what is killed reports none
    with subprocess.Popen(
        [sys.executable, "-c", "from tests.chaos import forks; forks.main()"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Forks(process.stdin, process.stdout)
        finally:
            process.kill()


@contextlib.contextmanager
def forked() -> Iterator[Forks]:
    """As `started`, but from this process, which must have one thread only. Cheap."""
    to_child, from_child = os.pipe(), os.pipe()
    faulthandler.cancel_dump_traceback_later()  # its thread would be missing in the child
    pid = os.fork()
    if not pid:
        os.close(to_child[1])
        os.close(from_child[0])
        _die_with_parent()
        with os.fdopen(to_child[0], "rb") as orders, os.fdopen(from_child[1], "wb") as endings:
            _serve(orders, endings)
        os._exit(0)
    os.close(to_child[0])
    os.close(from_child[1])
    with os.fdopen(to_child[1], "wb") as orders, os.fdopen(from_child[0], "rb") as endings:
        try:
            yield Forks(orders, endings)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _serve(orders: IO[bytes], endings: IO[bytes]) -> None:
    """Fork for every order until there is nobody to give one."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    while True:
        try:
            work, kill_after_s = pickle.load(orders)  # noqa: S301 - our own parent wrote it
        except EOFError:
            return
        pickle.dump(_fork(work, kill_after_s), endings)
        endings.flush()


def _fork(work: Work, kill_after_s: float) -> Ending:
    with os.fdopen(os.memfd_create("result"), "w+b") as result:
        pid = os.fork()
        if not pid:
            _die_with_parent()
            os._exit(_work(work, result))
        status, was_stopped = _await(pid, kill_after_s)
        result.seek(0)
        content = result.read() if status == 0 else b""
    has_orphans = not _await_orphans()
    returned = pickle.loads(content) if content else None  # noqa: S301 - our child wrote it
    return Ending(status=status, result=returned, was_stopped=was_stopped, has_orphans=has_orphans)


def _await_orphans() -> bool:
    """Reap what the last child left; whether nothing of it is left."""
    until = time.monotonic() + ORPHANS_GONE_S
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_LOOK_S)
        except ChildProcessError:
            return True
    return False


def _work(work: Work, result: IO[bytes]) -> int:
    faulthandler.enable()
    faulthandler.dump_traceback_later(STUCK_S)
    try:
        result.write(pickle.dumps(work()))
        result.flush()
    except BrokenPipeError:  # its owner was killed, and it will be in a moment
        return CRASHED
    except BaseException:  # noqa: BLE001 - the process ends here, and says why
        traceback.print_exc()
        return CRASHED
    return 0


def _await(pid: int, kill_after_s: float) -> tuple[int, bool]:
    """Its exit status, and whether it had stopped."""
    until = time.monotonic() + kill_after_s
    was_stopped = False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if ended and not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status), was_stopped
        was_stopped = was_stopped or bool(ended)
        if was_stopped or time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Fork until the owner is gone."""
    import tests.chaos.lives  # noqa: F401, PLC0415 - warms up: the children find it loaded

    _die_with_parent()
    endings = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever prints must not stand in between
    _serve(sys.stdin.buffer, endings)
