"""Call rsync so that its exit statuses and its output mean what they should.

rsync ends with 23 when anything could not be copied, which is never a success, and with 24
when files went away while it ran, which is normal on a share in use. It prints names with
control characters as octal escapes, so lines are lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from opsd.backup.share.engine import ADDED, Incomplete, Source
from opsd.backup.share.rsync.machine import SSH_FAILED, Machine
from opsd.clients.process import Process
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, OpsdError, PermanentError
from opsd.progress import Progress
from opsd.text import printable

OLDEST = (3, 2, 0)
VANISHED = 24
IO_TIMEOUT_S = 600  # of silence between two machines

#: Everything of a file is kept, and times are compared to the nanosecond: else a file that
#: changed twice in one second passes for unchanged. NFSv4's own access lists mean nothing on
#: another file system.
KEEP_ALL = (
    "-aHAXS",
    "--numeric-ids",
    "--secluded-args",
    "--modify-window=-1",
    "--filter=-x system.nfs4_acl",
)
TELL = (
    "--8-bit-output",
    "--outbuf=L",
    "--checksum-choice=md5",
    "--info=progress2",
    "--out-format=%i %C %l %n",
)

_VERSION = re.compile(rb"rsync +version v?(\d+)\.(\d+)\.(\d+)")
_TRANSFERRED = re.compile(rb"[<>]f\S{9} ([0-9a-f]{32}) (\d+) (.*)", re.DOTALL)
_OVERALL = re.compile(rb"\s*([\d,]+)\s+\d+%")
_OCTAL = re.compile(rb"\\#([0-7]{3})")
_GONE = re.compile(r'file has vanished: "(.*)"')
_WILD = re.compile(r"[*?\[]")
_ESCAPED = re.compile(r"([\\*?\[])")
_REASONS = {
    10: "the connection to the other machine broke",
    11: "reading or writing files failed",
    12: "the connection to the other machine broke",
    23: "some files could not be copied",
    30: "the other side was silent for too long",
    35: "the other side did not answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A file whose content rsync transferred."""

    path: bytes  #: relative, as on disk
    size_bytes: int
    md5: bytes  #: hex, computed by the sender from what it read


def parse_version(output: bytes, where: str) -> str:
    """The version in what ``rsync --version`` printed.

    Raises:
        PermanentError: not rsync, or older than `OLDEST`.
    """
    match = _VERSION.match(output)
    if match is None:
        raise PermanentError(f"rsync on {where}: its version is not understood")
    found = (int(match[1]), int(match[2]), int(match[3]))
    text = ".".join(map(str, found))
    if found < OLDEST:
        raise PermanentError(
            f"rsync {text} on {where} is too old; opsd needs {'.'.join(map(str, OLDEST))} or newer"
        )
    return text


def filters(source: Source) -> Iterator[str]:
    """The share's globs and exact paths as rsync's arguments."""
    yield f"--exclude=/{ADDED}"
    for pattern in source.share.exclude:
        yield f"--exclude={pattern.rstrip('/')}"
    for path in source.omit:
        # Without a wildcard rsync takes a backslash for itself.
        yield "--exclude=/" + (_ESCAPED.sub(r"\\\1", path) if _WILD.search(path) else path)


def transport(machine: Machine) -> tuple[str, ...]:
    """How rsync reaches the machine."""
    if not machine.is_remote:
        return ()
    return ("-e", " ".join(machine.ssh()), f"--timeout={IO_TIMEOUT_S}")


def transfer(
    args: Sequence[str],
    *,
    action: str,
    machine: Machine,
    deadline: Deadline,
    progress: Progress,
    step: str,
    total_bytes: int = 0,
    on_sent: Callable[[Sent], None] | None = None,
) -> tuple[str, ...]:
    """Run rsync; returns the files that went away while it ran.

    Args:
        args: flags, source and target.
        action: what it does, for errors.
        machine: the other side, if it is not here.
        deadline: when it is killed.
        progress: told about bytes.
        step: the line of progress.
        total_bytes: expected; 0 when unknown.
        on_sent: told about each file whose content was transferred.

    Raises:
        Incomplete: not everything was copied.
        TransientError, PermanentError: the other machine was not reached.
    """
    try:
        with Process(("rsync", *TELL, *transport(machine), *args), deadline=deadline) as process:
            for line in _lines(process):
                if (match := _TRANSFERRED.fullmatch(line)) and on_sent is not None:
                    path = _OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), match[3])
                    on_sent(Sent(path=path, size_bytes=int(match[2]), md5=match[1]))
                elif match := _OVERALL.match(line):
                    done = int(match[1].replace(b",", b""))
                    progress.update(step, done=done, total=total_bytes or None)
            code, stderr = process.wait(), process.stderr
    except DeadlineExceeded as exc:
        raise DeadlineExceeded(f"{action}: {exc}") from exc
    finally:
        progress.finish(step)
    if code not in (0, VANISHED):
        raise _error(action, code, stderr, machine)
    return tuple(sorted({printable(name) for name in _GONE.findall(stderr)}))


def _lines(process: Process) -> Iterator[bytes]:
    """Lines and what `progress2` ends with a carriage return."""
    pending = b""
    while chunk := process.read():
        *whole, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
        yield from whole
    yield pending


def _error(action: str, code: int, stderr: str, machine: Machine) -> OpsdError:
    told = [line for line in stderr.splitlines() if line.strip() and "rsync error:" not in line]
    text = printable(told[0]) if told else f"exit status {code}"
    if machine.is_remote and code == SSH_FAILED:
        return machine.unreachable(text)
    return Incomplete(f"{action}: {_REASONS.get(code, f'rsync ended with {code}')}: {text}")
