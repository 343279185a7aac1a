"""Lists of files while an rsync snapshot is made. They lie on disk: there may be millions.

Records end with NUL, and paths begin with ``./``, so that any name survives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsd.backup.share.engine import Damaged
from opsd.backup.share.rsync import checksums
from opsd.backup.share.rsync.command import Sent
from opsd.backup.share.rsync.snapshots import COPY_BYTES, SnapshotDirectory, parsed
from opsd.clock import Deadline
from opsd.text import printable


class SentFiles:
    """What was transferred, kept on disk: a first run may transfer millions of files."""

    def __init__(self, work: Path) -> None:
        self.names = work / "sent"
        self._md5s = work / "md5s"
        self.count = self.size_bytes = 0
        self._streams = (self.names.open("wb"), self._md5s.open("wb"))

    def add(self, sent: Sent) -> None:
        """Note one more."""
        self.count += 1
        self.size_bytes += sent.size_bytes
        self._streams[0].write(b"./" + sent.path + b"\0")
        self._streams[1].write(sent.md5 + b" ./" + sent.path + b"\0")

    def close(self) -> None:
        """Nothing more comes. Idempotent."""
        for stream in self._streams:
            stream.close()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """(md5, path) in the order of `names`."""
        for record in _records_of(self._md5s):
            yield record[:32], record[33:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of checksums that was made."""

    sha256: str  #: of the list itself
    files: int
    size_bytes: int  #: of the files


def list_checksums(
    store: SnapshotDirectory, partial: str, previous: str, *, work: Path, deadline: Deadline
) -> Listing:
    """Write the list of the snapshot `partial` to ``work/list``.

    Only what is not linked to the snapshot `previous` (empty: none) is hashed.
    """
    files = size_bytes = 0

    def now() -> Iterator[tuple[bytes, bytes]]:
        nonlocal files, size_bytes
        for file in store.files(partial, deadline=deadline):
            files += 1
            size_bytes += file.size_bytes
            yield file.path, file.inode

    plan, names = work / "plan", work / "fresh"
    with plan.open("wb") as planned, names.open("wb") as fresh:
        for path, digest in _reused(store, now(), previous, deadline=deadline):
            planned.write(digest + b" " + path + b"\0")
            if not digest:
                fresh.write(path + b"\0")
    hashed = store.digests(partial, names, program="sha256sum", deadline=deadline)
    overall = hashlib.sha256()
    with (work / "list").open("wb") as listed:
        for digest, path in filled(plan, hashed):
            text = checksums.line(digest, path)
            overall.update(text)
            listed.write(text)
    return Listing(sha256=overall.hexdigest(), files=files, size_bytes=size_bytes)


def _reused(
    store: SnapshotDirectory,
    now: Iterator[tuple[bytes, bytes]],
    previous: str,
    *,
    deadline: Deadline,
) -> Iterator[tuple[bytes, bytes]]:
    """(path, digest) of every file; no digest where it is not the inode of before."""
    if not previous:
        return checksums.reuse(now, (), ())
    before = ((f.path, f.inode) for f in store.files(previous, deadline=deadline))
    return checksums.reuse(now, before, parsed(store.list_lines(previous, deadline=deadline)))


def _records_of(path: Path) -> Iterator[bytes]:
    """NUL-terminated records of a file, without reading it whole."""
    pending = b""
    with path.open("rb") as stream:
        while piece := stream.read(COPY_BYTES):
            *whole, pending = (pending + piece).split(b"\0")
            yield from whole


def filled(plan: Path, hashed: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """(digest, path) of every record of the plan; missing digests come from `hashed`."""
    for record in _records_of(plan):
        digest, _, path = record.partition(b" ")
        if not digest:
            digest, found = next(hashed, (b"", b""))
            if found != path:
                raise Damaged(
                    f"{printable(path.decode('utf-8', 'replace'))}: gone before its hash"
                )
        yield digest, path
    for _ in hashed:  # lets it end, so that its exit status is judged
        pass


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory or in it; ``.`` holds everything."""
    return directory in {b".", path} or path.startswith(directory + b"/")


def difference(path: bytes, digest: bytes) -> str:
    """What is wrong with a restored file; empty when nothing is."""
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - bytes
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"
    return "" if found.encode() == digest else "differs"
