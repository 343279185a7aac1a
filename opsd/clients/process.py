"""Run other programs so that they cannot hang, hide or outlive opsd.

Every program runs in a process group of its own, with a deadline, both its outputs
drained, and a parent-death signal: when opsd is killed, so is what it started. At the
deadline the whole group is killed. A process that even SIGKILL does not end (it waits
for a dead file server in the kernel) is left behind and reported; it never blocks opsd.

Limits: the parent-death signal is tied to the thread that started the program, so that
thread must wait for it (`Process` is used by one thread from start to end). It is set a
millisecond after the start: an opsd that is killed within it leaves the program running.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, NoReturn, Self

import structlog

from opsd.clients import groups
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, PermanentError
from opsd.secrets import redact

log = structlog.get_logger()

PIPE_BYTES = 1 << 20  # asked of the kernel for a program's stdout: fewer switches
STDERR_TAIL_BYTES = 16 << 10  # how much of a program's complaints is kept
TERM_GRACE_S = 5.0  # between SIGTERM and SIGKILL
KILL_GRACE_S = 5.0  # after SIGKILL, before a process is called unkillable

# Programs see this much of opsd's environment; secrets reach only the one that needs them.
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")


class ProgramMissing(PermanentError):
    """The program is not installed or not executable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended by itself."""

    argv: tuple[str, ...]
    returncode: int  #: negative: minus the signal that ended it
    stdout: bytes
    stderr: str  #: the last `STDERR_TAIL_BYTES`, undecodable bytes escaped, no secrets

    def complaint(self) -> str:
        """The last line of stderr that says something, or how it ended."""
        return complaint(self.stderr, self.returncode)


def complaint(stderr: str, returncode: int) -> str:
    """The last meaningful line of a program's stderr, for an error in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    ended = f"killed by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"
    return f"{lines[-1]} ({ended})" if lines else ended


def find_program(name: str) -> str:
    """The absolute path of a program on PATH.

    Raises:
        ProgramMissing: it is not there.
    """
    path = shutil.which(name)
    if path is None:
        raise ProgramMissing(f"{name} is not installed (not found on PATH)")
    return path


class Process:
    """One running program. Use as a context manager: leaving it ends the whole group.

    Used by one thread only. Reading and writing respect the deadline.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        env: Mapping[str, str] | None = None,
        stdin: bool | IO[bytes] = False,
        cwd: str | None = None,
        shares_stderr: bool = False,
    ) -> None:
        """Start `argv`.

        Args:
            argv: program and arguments; never a shell line, never a secret.
            deadline: when the group is killed.
            env: added to the few variables of `INHERITED`; secrets belong here.
            stdin: a file to read, or whether `write` will be used; else stdin is empty.
            cwd: working directory.
            shares_stderr: its stderr is ours and its stdout is dropped, for a program that
                logs as opsd does; `read` and `stderr` give nothing then.

        Raises:
            ProgramMissing: the program cannot be started.
            DeadlineExceeded: no time is left.
        """
        deadline.remaining()
        self.argv = tuple(argv)
        self._deadline = deadline
        self._stderr = bytearray()
        self._forgotten = False
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        command = [find_program("setpriv"), "--pdeathsig", "KILL", "--", find_program(argv[0])]
        try:
            self._popen = groups.started(
                lambda: subprocess.Popen(
                    [*command, *argv[1:]],
                    env={**inherited, "LC_ALL": "C.UTF-8", **(env or {})},
                    stdin=_stdin_of(stdin),
                    stdout=subprocess.DEVNULL if shares_stderr else subprocess.PIPE,
                    stderr=None if shares_stderr else subprocess.PIPE,
                    bufsize=0,
                    cwd=cwd,
                    start_new_session=True,
                )
            )
        except OSError as exc:
            raise ProgramMissing(f"start {argv[0]}: {exc.strerror}") from exc
        self._out: IO[bytes] | None = self._popen.stdout
        self._err: IO[bytes] | None = self._popen.stderr
        self._in: IO[bytes] | None = self._popen.stdin
        self._tune_pipes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._popen.pid

    @property
    def stderr(self) -> str:
        """What it has complained about so far (the tail), without secrets."""
        tail = self._stderr
        if len(tail) == STDERR_TAIL_BYTES:  # cut: half a line might begin with half a secret
            tail = tail[tail.find(b"\n") + 1 :]
        return redact(tail.decode("utf-8", "backslashreplace"))

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Wait at most `seconds` for its end; whether it came. Its outputs are not read."""
        return self._await_exit(seconds)

    @property
    def returncode(self) -> int | None:
        """Its exit status (minus the signal that ended it); None while it runs."""
        return self._popen.returncode

    def read(self, size: int = PIPE_BYTES) -> bytes:
        """Some bytes of its stdout, at most `size`; empty at the end.

        Raises:
            DeadlineExceeded: the deadline passed; the group was killed.
        """
        while (stdout := self._out) is not None:
            if stdout in self._poll():
                chunk = os.read(stdout.fileno(), size)
                if chunk:
                    return chunk
                stdout.close()
                self._out = None
        return b""

    def write(self, data: bytes | memoryview) -> None:
        """Feed its stdin. Its stdout is not read meanwhile: for programs that say little.

        Raises:
            BrokenPipeError: it does not read any more; `wait` tells why.
            DeadlineExceeded: the deadline passed; the group was killed.
        """
        stdin = self._in
        if stdin is None:
            raise BrokenPipeError
        view = memoryview(data)
        while view:
            if stdin in self._poll(writing_to=stdin):
                view = view[os.write(stdin.fileno(), view) :]

    def close_stdin(self) -> None:
        """Tell it that nothing more comes."""
        if self._in is not None:
            with contextlib.suppress(BrokenPipeError):
                self._in.close()
            self._in = None

    def wait(self) -> int:
        """Its exit status, after its outputs ended; stdout that was not read is dropped.

        Raises:
            DeadlineExceeded: the deadline passed; the group was killed.
        """
        self.close_stdin()
        while self.read():
            pass
        while self._err is not None:
            self._poll()
        try:
            return self._popen.wait(timeout=self._remaining())
        except subprocess.TimeoutExpired:
            self._expire()

    def kill(self, *, term_grace_s: float | None = None) -> None:
        """End the whole group: SIGTERM, after `TERM_GRACE_S` SIGKILL. Idempotent, bounded.

        A process that stays is logged as ``process.left_behind`` and forgotten.
        """
        if self._forgotten:
            return
        self.close_stdin()
        if self._popen.returncode is None:
            self._signal(signal.SIGTERM)
            self._await_exit(TERM_GRACE_S if term_grace_s is None else term_grace_s)
        self._signal(signal.SIGKILL)
        if not self._await_exit(KILL_GRACE_S):
            log.error("process.left_behind", program=self.argv[0], pid=self.pid)
        groups.forget(self._popen.pid)
        self._abandon_pipes()
        self._forgotten = True

    def _poll(self, *, writing_to: IO[bytes] | None = None) -> set[IO[bytes]]:
        """Wait up to a second for something to do on a pipe; stderr is taken care of here.

        Returns the stream that the caller wants if it is ready. When the program has ended
        but something that it started still holds its outputs, they count as ended too.
        """
        wanted, mode = (writing_to, select.POLLOUT) if writing_to else (self._out, select.POLLIN)
        poller = select.poll()
        if wanted is not None:
            poller.register(wanted, mode)
        if self._err is not None:
            poller.register(self._err, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(min(1000.0, self._remaining() * 1000))}
        if self._err is not None and self._err.fileno() in ready:
            self._drain_stderr(self._err)
        elif not ready and self._popen.poll() is not None:
            self._abandon_pipes()
            return set()
        return {wanted} if wanted is not None and wanted.fileno() in ready else set()

    def _tune_pipes(self) -> None:
        for stream in (self._out, self._err, self._in):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
        for stream in (self._out, self._in):
            if stream is not None:
                # Refused when the user's pipe quota is used up; the default works too.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def _drain_stderr(self, stderr: IO[bytes]) -> None:
        chunk = os.read(stderr.fileno(), 65536)
        if not chunk:
            stderr.close()
            self._err = None
        self._stderr += chunk
        del self._stderr[:-STDERR_TAIL_BYTES]

    def _abandon_pipes(self) -> None:
        for stream in (self._out, self._err):
            if stream is not None:
                stream.close()
        self._out = self._err = None

    def _remaining(self) -> float:
        try:
            return self._deadline.remaining()
        except DeadlineExceeded:
            self._expire()

    def _expire(self) -> NoReturn:
        complaint_so_far = self.stderr.strip()
        self.kill()
        raise DeadlineExceeded(
            f"{self.argv[0]} did not end in time and was killed"
            + (
                f"; its last words: {complaint_so_far.splitlines()[-1]}"
                if complaint_so_far
                else ""
            )
        )

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _await_exit(self, seconds: float) -> bool:
        try:
            self._popen.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def run(
    argv: Sequence[str],
    *,
    deadline: Deadline,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    input: bytes = b"",  # noqa: A002 - the word that subprocess uses
    stdout_limit: int = 64 << 20,
) -> Completed:
    """Run a program to its end and keep its output. The caller judges the exit status.

    Raises:
        ProgramMissing: it cannot be started.
        DeadlineExceeded: it did not end in time; its group was killed.
        PermanentError: it printed more than `stdout_limit` bytes.
    """
    output = bytearray()
    with (
        _readable(input) as stdin,
        Process(argv, deadline=deadline, env=env, stdin=stdin, cwd=cwd) as process,
    ):
        while chunk := process.read():
            output += chunk
            if len(output) > stdout_limit:
                raise PermanentError(f"{argv[0]} printed more than {stdout_limit} bytes")
        returncode = process.wait()
        return Completed(
            argv=process.argv, returncode=returncode, stdout=bytes(output), stderr=process.stderr
        )


@contextlib.contextmanager
def _readable(content: bytes) -> Iterator[IO[bytes]]:
    """`content` as a file in memory: a program that reads slowly or never cannot block us."""
    with os.fdopen(os.memfd_create("opsd-stdin"), "r+b") as file:
        file.write(content)
        file.seek(0)
        yield file


def _stdin_of(stdin: bool | IO[bytes]) -> int | IO[bytes]:  # noqa: FBT001 - passed on as given
    if isinstance(stdin, bool):
        return subprocess.PIPE if stdin else subprocess.DEVNULL
    return stdin


def lines(process: Process) -> Iterator[bytes]:
    """The lines of a program's stdout as they come, without their newlines."""
    pending = bytearray()
    while chunk := process.read():
        *whole, rest = (bytes(pending) + chunk).split(b"\n")
        yield from whole
        pending = bytearray(rest)
    if pending:
        yield bytes(pending)
