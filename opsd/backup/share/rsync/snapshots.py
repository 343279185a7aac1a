"""A directory of rsync snapshots, here or on another machine, and its lists of checksums.

``<base>/<slot>-<run>`` is a whole snapshot, ``<slot>-<run>.sha256`` its list; names that
begin with a dot are under way or going away. Everything is done by GNU tools that run where
the data is: no file crosses the network to be checked.

Limits: what was written a moment ago may be read back from the memory of that machine; the
rotating part reads what was written weeks ago, which is the disk.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from opsd.backup.share.engine import Damaged
from opsd.backup.share.rsync import checksums
from opsd.backup.share.rsync.machine import Machine
from opsd.clients.process import Process, lines
from opsd.clock import Deadline
from opsd.errors import PermanentError, TransientError
from opsd.text import printable

LIST_SUFFIX = ".sha256"
COPY_BYTES = 1 << 20
BATCH_LINES = 1000
NAMED = 3  # damaged files in an error text

_SNAPSHOT = re.compile(r"\d{8}T\d{6}Z-(?P<run>[0-9A-Za-z]+)(?:-\d+)?")
_LEFTOVER = re.compile(r"\.(?P<why>partial|removed)-\d{8}T\d{6}Z-(?P<run>[0-9A-Za-z]+).*")

# $1 is a directory, $2 a file of NUL-separated names in it.
_HASH = 'cd -- "$1" && exec xargs -0 -r -a "$2" {program} -z --'
_FILES = 'cd -- "$1" && find . -type f -printf "%i %s %p\\0" | LC_ALL=C sort -z -t " " -k 3'
_CHECK = 'cd -- "$1" && exec sha256sum --check --quiet --strict -'
_WRITE = 'cat > "$1.new" && sync "$1.new" && mv -T -- "$1.new" "$1"'
_PROBE = """
cd -- "$1" || exit 3
a=$(mktemp .probe-XXXXXX) || exit 3
trap 'rm -f "$a" "$a.link"' EXIT
ln "$a" "$a.link" || { echo 'no hard links' >&2; exit 3; }
{ chmod 640 "$a" && [ "$(stat -c %a "$a")" = 640 ]; } || { echo 'no modes' >&2; exit 3; }
if [ "$(id -u)" = 0 ]; then
  { chown 4711 "$a" && [ "$(stat -c %u "$a")" = 4711 ]; } || { echo 'no owners' >&2; exit 3; }
fi
id -u
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One regular file of a snapshot."""

    path: bytes  #: begins with ``./``
    inode: bytes
    size_bytes: int


class SnapshotDirectory:
    """The snapshots of one share. Used by one thread."""

    def __init__(self, machine: Machine, base: str) -> None:
        """`base` is absolute, on `machine`. Nothing is touched yet."""
        self.machine = machine
        self.base = base

    @property
    def location(self) -> str:
        """The directory, with the machine."""
        return self.machine.name(self.base)

    def path(self, name: str) -> str:
        """Where a snapshot is, on its machine."""
        return f"{self.base}/{name}"

    def exists(self, name: str = "", *, deadline: Deadline) -> bool:
        """Whether there is anything under a name; empty: the directory itself."""
        script = '[ -e "$1" ] || [ -L "$1" ]'
        done = self.machine.ask("sh", "-c", script, "sh", self.path(name), deadline=deadline)
        return done.returncode == 0

    def make(self, *, deadline: Deadline) -> None:
        """Create it, for this user only: the snapshots keep modes that were safe elsewhere."""
        self.machine.do("mkdir", "-p", "-m", "700", "--", self.base, deadline=deadline)

    def probe(self, *, deadline: Deadline) -> bool:
        """Whether files there are written as root.

        Raises:
            PermanentError: it cannot hold what a snapshot needs.
        """
        done = self.machine.ask("sh", "-c", _PROBE, "sh", self.base, deadline=deadline)
        if done.returncode:
            raise PermanentError(
                f"{self.location}: {done.complaint()}; rsync snapshots need hard links, owners "
                'and modes (ext4, XFS, Btrfs, NFS with no_root_squash), else: engine = "restic"'
            )
        return done.stdout.split() == [b"0"]

    def names(self, *, deadline: Deadline) -> tuple[str, ...]:
        """Whole snapshots, oldest first."""
        return tuple(
            name for name in self._entries(deadline=deadline) if _SNAPSHOT.fullmatch(name)
        )

    def _entries(self, *, deadline: Deadline) -> tuple[str, ...]:
        command = ("find", self.base, "-mindepth", "1", "-maxdepth", "1", "-printf", "%f\\0")
        output = self.machine.do(*command, deadline=deadline)
        names = (name.decode("utf-8", "surrogateescape") for name in output.split(b"\0"))
        return tuple(sorted(filter(None, names)))

    def files(self, name: str, *, deadline: Deadline) -> Iterator[StoredFile]:
        """Every regular file in a snapshot, sorted by the bytes of its path."""
        command = ("sh", "-c", _FILES, "sh", self.path(name))
        with self.machine.start(*command, deadline=deadline) as process:
            for record in _records(process):
                inode, size, path = record.split(b" ", 2)
                yield StoredFile(path=path, inode=inode, size_bytes=int(size))
            if process.wait() or process.stderr:
                raise TransientError(f"list {self.location}/{name}: {process.stderr.strip()}")

    def list_lines(self, name: str, *, deadline: Deadline) -> Iterator[bytes]:
        """The lines of a snapshot's list, without their newlines.

        Raises:
            Damaged: it cannot be read.
        """
        target = self.path(name) + LIST_SUFFIX
        with self.machine.start("cat", "--", target, deadline=deadline) as process:
            yield from lines(process)
            if process.wait():
                raise Damaged(f"read {self.machine.name(target)}: {process.stderr.strip()}")

    def put_list(self, content: Path, name: str, *, deadline: Deadline) -> None:
        """Write a snapshot's list, durable and whole."""
        self._upload(content, self.path(name) + LIST_SUFFIX, deadline=deadline)

    def digests(
        self,
        name: str,
        names: Path,
        *,
        program: Literal["sha256sum", "md5sum"],
        deadline: Deadline,
    ) -> Iterator[tuple[bytes, bytes]]:
        """(digest, path) of the files of a snapshot whose names are in the file `names`.

        In the order of the names, which are separated by NUL and begin with ``./``.
        """
        there = f"{self.base}/.partial-{name.removeprefix('.partial-')}.names"
        self._upload(names, there, deadline=deadline)
        script = _HASH.format(program=program)
        command = ("sh", "-c", script, "sh", self.path(name), there)
        with self.machine.start(*command, deadline=deadline) as process:
            for record in _records(process):
                digest, _, path = record.partition(b"  ")
                yield digest, path
            if process.wait():
                raise Damaged(f"read back {self.location}/{name}: {process.stderr.strip()}")
        self.machine.do("rm", "-f", "--", there, deadline=deadline)

    def check(self, name: str, listed: Collection[bytes], *, deadline: Deadline) -> int:
        """Read files and hold them against lines of the list; returns how many.

        Raises:
            Damaged: naming the first that differ or are missing.
        """
        if not listed:
            return 0
        command = ("sh", "-c", _CHECK, "sh", self.path(name))
        with self.machine.start(*command, deadline=deadline, stdin=True) as process:
            with contextlib.suppress(BrokenPipeError):
                for batch in _batches(sorted(listed)):
                    process.write(batch)
            process.close_stdin()
            failed = list(itertools.islice(lines(process), NAMED))
            if process.wait():
                told = b"; ".join(failed).decode("utf-8", "backslashreplace")
                raise Damaged(f"{self.location}/{name}: {printable(told or process.stderr)}")
        return len(listed)

    def flush(self, name: str, *, deadline: Deadline) -> None:
        """Have the disk hold everything that was written below a name."""
        self.machine.do("sync", "-f", self.path(name), deadline=deadline)

    def publish(self, partial: str, name: str, *, deadline: Deadline) -> None:
        """Give a flushed snapshot its final name."""
        self.machine.do("mv", "-T", "--", self.path(partial), self.path(name), deadline=deadline)
        self.flush("", deadline=deadline)

    def remove(self, name: str, *, deadline: Deadline) -> None:
        """Take a snapshot away: renamed first, so that a crash leaves no half one. Idempotent.

        Raises:
            PermanentError: not the name of a snapshot.
        """
        if not _SNAPSHOT.fullmatch(name):
            raise PermanentError(f"{self.location}: {printable(name)} is no snapshot's name")
        doomed = self.path(f".removed-{name}")
        if self.exists(name, deadline=deadline):
            self.machine.do("mv", "-T", "--", self.path(name), doomed, deadline=deadline)
        listed = self.path(name) + LIST_SUFFIX
        self.machine.do("rm", "-rf", "--", doomed, listed, deadline=deadline)

    def discard(self, name: str, *, deadline: Deadline) -> None:
        """Remove what is under way under a hidden name."""
        self.machine.do("rm", "-rf", "--", self.path(name), deadline=deadline)

    def sweep(
        self, *, published: Collection[str], dead_runs: frozenset[str], deadline: Deadline
    ) -> Iterator[str]:
        """Remove what dead runs left, and what was going away; yields the names."""
        for name in self._entries(deadline=deadline):
            bare = name.removesuffix(LIST_SUFFIX)
            match = _LEFTOVER.fullmatch(name) or _SNAPSHOT.fullmatch(bare)
            if match is None or bare in published:
                continue
            if match["run"] in dead_runs or name.startswith(".removed-"):
                self.discard(name, deadline=deadline)
                yield name

    def _upload(self, content: Path, target: str, *, deadline: Deadline) -> None:
        command = ("sh", "-c", _WRITE, "sh", target)
        with self.machine.start(*command, deadline=deadline, stdin=True) as process:
            with contextlib.suppress(BrokenPipeError), content.open("rb") as source:
                while piece := source.read(COPY_BYTES):
                    process.write(piece)
            if process.wait():
                complaint = process.stderr.strip()
                raise TransientError(f"write {self.machine.name(target)}: {complaint}")


def _records(process: Process) -> Iterator[bytes]:
    """NUL-terminated records of a program's stdout."""
    pending = b""
    while chunk := process.read():
        *whole, pending = (pending + chunk).split(b"\0")
        yield from whole


def _batches(listed: Iterable[bytes]) -> Iterator[bytes]:
    rest = iter(listed)
    while batch := list(itertools.islice(rest, BATCH_LINES)):
        yield b"\n".join(batch) + b"\n"


def parsed(listed: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(path, digest) of the lines of a list."""
    for text in listed:
        digest, path = checksums.parse(text)
        yield path, digest
