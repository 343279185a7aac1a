"""Have a shell on a machine read a script, and take in what it prints.

Both streams are drained together, into bounded memory. It is over when the end mark arrived on
both, when the machine hangs up, is silent for too long or prints too much: whatever arrived
before is returned with the reason why there is no more.

Limits: a script is not killed on the machine when opsd gives up: it ends itself when it prints
its next mark, because nobody reads it any more.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

import paramiko

from opsd.clients.ssh.connection import Connection
from opsd.clients.ssh.errors import (
    CutOff,
    NoShell,
    PasswordExpired,
    Stage,
    TooMuchOutput,
    Unreachable,
)
from opsd.clients.ssh.login import BROKEN
from opsd.clock import Deadline
from opsd.errors import OpsdError, PermanentError
from opsd.text import shortened

SHELL = "sh -s"
LIMIT_BYTES = 4 << 20  # of both streams together
_CHUNK_BYTES = 64 << 10
_LAST_WORDS_S = 2.0  # between the shell's end and the end of what it printed
_EXPIRED = ("password has expired", "password change required", "required to change your password")
_COMPLAINT_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A script, and how to know that it began and ended."""

    text: bytes
    mark: bytes  #: begins every line that says how far it is; names follow, and a space or newline
    first: bytes  #: the name that it prints first
    last: bytes  #: likewise last, to both streams
    silence_s: float  #: it prints a mark at least this often

    @property
    def begin(self) -> bytes:
        """What says that it began."""
        return self.mark + self.first

    @property
    def end(self) -> bytes:
        """What says that nothing follows."""
        return self.mark + self.last + b"\n"


@dataclass(slots=True, kw_only=True)
class Transcript:
    """What arrived."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    began_at: datetime | None = None  #: when the first mark arrived; aware UTC
    status: int | None = None  #: of the shell, if it said so
    problem: OpsdError | None = None  #: why it is not whole


def run(connection: Connection, order: Order, *, deadline: Deadline) -> Transcript:
    """Run a script on the machine until it ended, or something ended it.

    Raises:
        DeadlineExceeded: no time was left from the beginning.
    """
    reading = _Reading(connection, order, deadline)
    with connection.until(deadline):
        try:
            reading.start()
            reading.read()
        except OpsdError as exc:
            reading.got.problem = exc
    reading.close()
    return reading.got


class _Reading:
    def __init__(self, connection: Connection, order: Order, deadline: Deadline) -> None:
        self.name = connection.target.name
        self.user = connection.target.user
        self.order = order
        self.deadline = deadline
        self.got = Transcript()
        self.arrived = threading.Event()
        self._connection = connection
        self._channel: paramiko.Channel | None = None
        self._searched = [0, 0]  # up to where the end was looked for
        self._ended = [False, False]

    @property
    def channel(self) -> paramiko.Channel:
        if self._channel is None:
            raise RuntimeError("not started")
        return self._channel

    def start(self) -> None:
        """Begin the shell and hand it the script."""
        try:
            self._channel = self._connection.transport.open_session(
                timeout=self.deadline.remaining()
            )
            self.channel.in_buffer.set_event(self.arrived)
            self.channel.in_stderr_buffer.set_event(self.arrived)
            self.channel.exec_command(SHELL)
        except paramiko.ChannelException as exc:
            hint = 'is there a "ForceCommand", or "MaxSessions 0"?'
            raise PermanentError(self._about(f"sshd starts no shell: {exc.text}; {hint}")) from exc
        except BROKEN as exc:
            late = "in its time" if self._is_late() else f"({exc or type(exc).__name__})"
            text = f"it lets opsd in and starts no shell {late}"
            raise Unreachable(self._about(text), stage=Stage.START) from exc
        try:
            self.channel.sendall(self.order.text)
            self.channel.shutdown_write()
        except BROKEN:  # it ended without reading all: what it printed says why
            return

    def read(self) -> None:
        """Take in what it prints, until it is over."""
        while not all(self._ended):
            if not self._drain():
                if self._is_over():
                    raise self._cut()
                self._wait()

    def close(self) -> None:
        if self._channel is not None:
            if self.channel.exit_status_ready():
                self.got.status = self.channel.recv_exit_status()
            self.channel.close()

    def _drain(self) -> bool:
        """Whether anything was there."""
        got, channel = self.got, self.channel
        drained = False
        streams = (
            (got.stdout, channel.recv_ready, channel.recv),
            (got.stderr, channel.recv_stderr_ready, channel.recv_stderr),
        )
        for which, (kept, is_ready, receive) in enumerate(streams):
            while is_ready():
                kept.extend(receive(_CHUNK_BYTES))
                drained = True
                if len(got.stdout) + len(got.stderr) > LIMIT_BYTES:
                    raise TooMuchOutput(
                        self._about(
                            f"it prints more than {LIMIT_BYTES >> 20} MiB, cut at {self._where()}"
                        )
                    )
            self._look_for_end(which, kept)
        if drained and got.began_at is None and self._has_begun():
            got.began_at = self.deadline.clock.now()
        return drained

    def _look_for_end(self, which: int, kept: bytearray) -> None:
        end = self.order.end
        start = max(0, self._searched[which] - len(end))
        self._ended[which] = self._ended[which] or kept.find(end, start) >= 0
        self._searched[which] = len(kept)

    def _is_over(self) -> bool:
        """Whether nothing can follow: both streams ended, or the shell did some time ago."""
        if self.channel.closed or self.channel.eof_received:
            return not (self.channel.recv_ready() or self.channel.recv_stderr_ready())
        return False

    def _wait(self) -> None:
        """Until something arrives; raises when nothing will."""
        clock, silence_s = self.deadline.clock, self.order.silence_s
        silent_at = clock.monotonic() + silence_s
        while clock.monotonic() < min(silent_at, self.deadline.at):
            has_ended = self.channel.exit_status_ready()
            if self.arrived.wait(min(_LAST_WORDS_S, silence_s)):
                return
            if has_ended:  # and something that it left behind holds the streams
                raise self._cut()
        raise self._cut() if self._is_late() else self._silence()

    def _silence(self) -> OpsdError:
        silence_s = self.order.silence_s
        if not self._has_begun():
            hint = f"does ~{self.user}/.bashrc wait for something?"
            text = f"its shell begins no script for {silence_s:.0f} s; {hint}"
            return Unreachable(self._about(text), stage=Stage.START)
        text = f"it fell silent for {silence_s:.0f} s at {self._where()}"
        return Unreachable(self._about(text), stage=Stage.SCRIPT)

    def _cut(self) -> OpsdError:
        """Why the end did not come although nothing more can."""
        if self._is_late():
            text = f"the script did not end in its time, it is at {self._where()}"
            return Unreachable(self._about(text), stage=Stage.SCRIPT)
        self.channel.status_event.wait(_LAST_WORDS_S)
        if not self._connection.transport.is_active():
            text = f"the connection broke at {self._where()}"
            return CutOff(self._about(text))
        complaint, status = self._complaint(), self.channel.exit_status
        if any(one in complaint.lower() for one in _EXPIRED):
            hint = f"chage -d -1 -M -1 {self.user}"
            return PasswordExpired(
                self._about(f"it asks {self.user} for a new password; on it: {hint}")
            )
        how = f"exit status {status}" if status >= 0 else "no exit status"
        if not self._has_begun():
            said = f"it says {complaint!r}, {how}" if complaint else how
            hint = f"a login shell (usermod -s /bin/sh {self.user}), no other forced command"
            return NoShell(self._about(f"no shell reads the script: {said}; it needs {hint}"))
        return CutOff(self._about(f"the script was killed at {self._where()} ({how})"))

    def _has_begun(self) -> bool:
        return self.order.begin in self.got.stdout

    def _where(self) -> str:
        """The last mark that arrived."""
        _, mark, rest = self.got.stdout.rpartition(self.order.mark)
        name = bytes(rest).split(maxsplit=1)[0] if mark and rest.strip() else b""
        is_named = name and name not in (self.order.first, self.order.last)
        return name.decode("utf-8", "backslashreplace") if is_named else "the beginning"

    def _is_late(self) -> bool:
        return self.deadline.at <= self.deadline.clock.monotonic()

    def _complaint(self) -> str:
        raw = bytes(self.got.stderr[-_CHUNK_BYTES:] or self.got.stdout[-_CHUNK_BYTES:])
        text = " ".join(raw.decode("utf-8", "backslashreplace").split())
        return shortened(text, _COMPLAINT_CHARACTERS)

    def _about(self, text: str) -> str:
        return f"ask {self.name}: {text}"
