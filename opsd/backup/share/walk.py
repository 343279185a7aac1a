"""The one program that touches a share: it may hang or die there, and opsd goes on.

A dead file server freezes whatever touches its mount, down to `stat`. So opsd itself never
does: it starts this file as a child (``python -I -S walk.py``), which reads one JSON
request from stdin and answers with JSON lines. A thread of the child reports progress and
says where it hangs. Standard library only, nothing of opsd: it must start in milliseconds.

Limits: names travel as text with surrogate escapes, so any bytes survive. One walk reads no
file content except the first 16 bytes of what can be an SQLite database by its size.
"""

# Paths are bytes here, which pathlib does not know; its import would double the start-up time.
# ruff: noqa: PTH110, PTH118, PTH123, PTH208
from __future__ import annotations

import errno
import hashlib
import heapq
import json
import os
import random
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

REPORT_S = 0.5  # between two progress lines
STALL_S = 60.0  # without one more file seen: the share hangs
LISTED = 50  # paths named in an answer; what is beyond is counted
NEWEST_PER_TOP = 3  # files probed in each top directory
SAMPLE_MAX_BYTES = 32 << 20  # larger files are not drawn for the spot check
SQLITE_HEADER = b"SQLite format 3\0"
SQLITE_PAGE = 512  # every database is a multiple of it
PGDATA = frozenset({b"PG_VERSION", b"base", b"global"})
READ_BYTES = 1 << 20


def translate(pattern: bytes) -> bytes:
    """A glob as a regular expression: ``*`` and ``?`` stop at slashes, ``**`` does not."""
    out, at = b"", 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        end = pattern.find(b"]", at + 2)
        if pattern.startswith(b"**", at):
            out, at = out + b".*", at + 2
        elif char in {b"*", b"?"}:
            out, at = out + (b"[^/]*" if char == b"*" else b"[^/]"), at + 1
        elif char == b"\\" and at + 1 < len(pattern):
            out, at = out + re.escape(pattern[at + 1 : at + 2]), at + 2
        elif char == b"[" and end > 0:
            out, at = out + _char_class(pattern[at + 1 : end]), end + 1
        else:
            out, at = out + re.escape(char), at + 1
    return out


def _char_class(inner: bytes) -> bytes:
    negated = inner[:1] in {b"!", b"^"}
    body = inner[1:] if negated else inner
    return b"[" + (b"^" if negated else b"") + body.replace(b"\\", b"\\\\") + b"]"


class Excluded:
    """Which paths are left out. ``name`` matches anywhere, ``/a/b`` from the share's root."""

    def __init__(self, patterns: list[str]) -> None:
        raw = [os.fsencode(pattern).rstrip(b"/") for pattern in patterns]
        names = [translate(p) for p in raw if b"/" not in p]
        paths = [translate(p[1:]) for p in raw if p.startswith(b"/")]
        paths += [b"(?:.*/)?" + translate(p) for p in raw if b"/" in p and p[:1] != b"/"]
        self._name = _any_of(names)
        self._path = _any_of(paths)

    def __call__(self, name: bytes, path: bytes) -> bool:
        """Whether the entry `name` at `path` is left out, with all below it."""
        if self._name is not None and self._name.fullmatch(name):
            return True
        return self._path is not None and self._path.fullmatch(path) is not None


def _any_of(expressions: list[bytes]) -> re.Pattern[bytes] | None:
    return (
        re.compile(b"|".join(b"(?:%b)" % e for e in expressions), re.DOTALL)
        if expressions
        else None
    )


@dataclass
class Tally:
    """What one walk found; grows while it goes on, read by the reporting thread."""

    at: bytes = b""
    files: int = 0
    size: int = 0
    directories: int = 0
    others: int = 0
    newest_ctime_ns: int = 0
    sqlite: list[str] = field(default_factory=list)
    pgdata: list[str] = field(default_factory=list)
    newest: dict[bytes, list[tuple[int, bytes]]] = field(default_factory=dict)
    sample: list[tuple[str, int, int]] = field(default_factory=list)
    drawn_from: int = 0
    changed: list[str] = field(default_factory=list)
    changed_count: int = 0
    unreadable: list[str] = field(default_factory=list)
    unreadable_count: int = 0
    errors: list[str] = field(default_factory=list)

    def trouble(self, path: bytes, exc: OSError) -> None:
        """Sort an error: gone is normal, forbidden is counted, all else fails the walk."""
        if isinstance(exc, FileNotFoundError | NotADirectoryError):
            return
        if isinstance(exc, PermissionError):
            self.unreadable_count += 1
            if len(self.unreadable) < LISTED:
                self.unreadable.append(os.fsdecode(path))
        elif len(self.errors) < LISTED:
            self.errors.append(f"{os.fsdecode(path)}: {exc.strerror}")

    def mark_changed(self, path: bytes) -> None:
        """Remember one more file that changed since the walk before."""
        self.changed_count += 1
        if len(self.changed) < LISTED:
            self.changed.append(os.fsdecode(path))


def say(answer: dict[str, Any]) -> None:
    """One JSON line; written in one call so that two threads cannot mix."""
    view = memoryview(json.dumps(answer).encode() + b"\n")
    while view:
        view = view[os.write(1, view) :]


class Reporter:
    """Tells the parent how far the walk is, and when it has stopped moving."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _report(self) -> None:
        last: tuple[bytes, int] = (b"", -1)
        moved = time.monotonic()
        while not self._done.wait(REPORT_S):
            now = (self._tally.at, self._tally.files)
            if now != last:
                last, moved = now, time.monotonic()
                say({"files": self._tally.files, "bytes": self._tally.size})
            elif time.monotonic() - moved > STALL_S:
                say({"stalled": os.fsdecode(self._tally.at) or "."})
                os._exit(3)


def entries(root: bytes, directory: bytes, tally: Tally) -> list[os.DirEntry[bytes]]:
    """What is in a directory; a handle that went stale is opened once more."""
    path = os.path.join(root, directory)
    for attempt in (1, 2):
        try:
            with os.scandir(path) as found:
                return list(found)
        except OSError as exc:
            if attempt == 1 and exc.errno == errno.ESTALE:
                continue
            tally.trouble(directory or b".", exc)
    return []


def walk(
    root: bytes, excluded: Excluded, tally: Tally
) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Every regular file as (path, top directory, lstat). Links are not followed."""
    pending: list[tuple[bytes, bytes]] = [(b"", b"")]
    while pending:
        directory, top = pending.pop()
        tally.at = directory
        found = entries(root, directory, tally)
        if PGDATA.issubset({entry.name for entry in found}):
            tally.pgdata.append(os.fsdecode(directory) or ".")
            continue
        prefix = directory + b"/" if directory else b""
        for entry in found:
            path = prefix + entry.name
            if excluded(entry.name, path):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as exc:
                tally.trouble(path, exc)
                continue
            if stat.S_ISDIR(status.st_mode):
                tally.directories += 1
                pending.append((path, top or entry.name))
            elif stat.S_ISREG(status.st_mode):
                yield path, top, status
            else:
                tally.others += 1


def scan(request: dict[str, Any]) -> dict[str, Any]:
    """Count the share and find what needs care in it."""
    root = os.fsencode(request["path"])
    tally, draw = Tally(), random.Random()  # noqa: S311 - a sample, not a secret
    with Reporter(tally):
        for path, top, status in walk(root, Excluded(request["exclude"]), tally):
            tally.files += 1
            tally.size += status.st_size
            tally.newest_ctime_ns = max(tally.newest_ctime_ns, status.st_ctime_ns)
            _remember_newest(tally, top, (status.st_mtime_ns, path))
            if status.st_size % SQLITE_PAGE == 0 and status.st_size:
                _look_for_sqlite(root, path, tally)
            if status.st_size <= SAMPLE_MAX_BYTES:
                _draw(tally, draw, request["sample"], path, status)
        _probe_newest(root, tally)
    return _answer(tally)


def changed(request: dict[str, Any]) -> dict[str, Any]:
    """Which files changed after an earlier walk, told by the file server's own clock."""
    tally = Tally()
    since = int(request["since_ns"])
    with Reporter(tally):
        excluded = Excluded(request["exclude"])
        for path, _, status in walk(os.fsencode(request["path"]), excluded, tally):
            tally.files += 1
            tally.newest_ctime_ns = max(tally.newest_ctime_ns, status.st_ctime_ns)
            if status.st_ctime_ns > since:
                tally.mark_changed(path)
    return _answer(tally)


def _answer(tally: Tally) -> dict[str, Any]:
    return {
        "done": {
            "files": tally.files,
            "bytes": tally.size,
            "directories": tally.directories,
            "others": tally.others,
            "newest_ctime_ns": tally.newest_ctime_ns,
            "sqlite": sorted(tally.sqlite),
            "pgdata": sorted(tally.pgdata),
            "sample": tally.sample,
            "changed": sorted(tally.changed),
            "changed_count": tally.changed_count,
            "unreadable": sorted(tally.unreadable),
            "unreadable_count": tally.unreadable_count,
            "errors": tally.errors,
        }
    }


def _remember_newest(tally: Tally, top: bytes, item: tuple[int, bytes]) -> None:
    heap = tally.newest.setdefault(top, [])
    if len(heap) < NEWEST_PER_TOP:
        heapq.heappush(heap, item)
    elif item > heap[0]:
        heapq.heapreplace(heap, item)


def _look_for_sqlite(root: bytes, path: bytes, tally: Tally) -> None:
    try:
        if _first_bytes(os.path.join(root, path)) == SQLITE_HEADER:
            tally.sqlite.append(os.fsdecode(path))
    except OSError as exc:
        tally.trouble(path, exc)


def _first_bytes(path: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, len(SQLITE_HEADER))
    finally:
        os.close(descriptor)


def _draw(
    tally: Tally, draw: random.Random, wanted: int, path: bytes, status: os.stat_result
) -> None:
    """Keep a uniform sample of all files seen so far (reservoir sampling)."""
    tally.drawn_from += 1
    place = int(draw.random() * tally.drawn_from)
    item = (os.fsdecode(path), status.st_size, status.st_mtime_ns)
    if len(tally.sample) < wanted:
        tally.sample.append(item)
    elif place < wanted:
        tally.sample[place] = item


def _probe_newest(root: bytes, tally: Tally) -> None:
    """Open the newest files: what this user may list it still may not read."""
    for heap in tally.newest.values():
        for _, path in heap:
            tally.at = path
            try:
                _first_bytes(os.path.join(root, path))
            except OSError as exc:
                tally.trouble(path, exc)


def probe(request: dict[str, Any]) -> dict[str, Any]:
    """Answer quickly whether the share is there: its mount, its root, its sentinel."""
    path = os.fsencode(request["path"])
    try:
        found = os.listdir(path)
    except OSError as exc:
        return {"done": {"error": exc.strerror, "code": exc.errno}}
    sentinel = request["sentinel"]
    return {
        "done": {
            "error": "",
            "entries": len(found),
            "mount": _mount_of(os.path.realpath(path)),
            "sentinel": not sentinel or os.path.exists(os.path.join(path, os.fsencode(sentinel))),
            "root": os.geteuid() == 0,
        }
    }


def _mount_of(path: bytes) -> dict[str, Any]:
    """The mount that holds `path`, from the kernel's table: (point, type, source)."""
    best: dict[str, Any] = {"point": "", "type": "", "source": ""}
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields, _, rest = line.partition(b" - ")
            point = _unescape(fields.split(b" ")[4])
            if path != point and not path.startswith(point.rstrip(b"/") + b"/"):
                continue
            if len(point) >= len(best["point"].encode("utf-8", "surrogateescape")):
                kind, source = rest.split(b" ")[:2]
                best = {
                    "point": os.fsdecode(point),
                    "type": os.fsdecode(kind),
                    "source": os.fsdecode(_unescape(source)),
                }
    best["here"] = best["point"] == os.fsdecode(path) and best["type"] != "autofs"
    return best


def _unescape(field_: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field_)


def hashes(request: dict[str, Any]) -> dict[str, Any]:
    """SHA-256 of the named files; one that cannot be read or changed meanwhile is left out."""
    root = os.fsencode(request["path"])
    tally = Tally()
    found: dict[str, tuple[str, int, int]] = {}
    with Reporter(tally):
        for name in request["names"]:
            tally.at = os.fsencode(name)
            try:
                found[name] = _hash(os.path.join(root, tally.at), tally)
            except OSError as exc:
                tally.trouble(tally.at, exc)
    return {"done": {"hashes": found, "errors": tally.errors}}


def _hash(path: bytes, tally: Tally) -> tuple[str, int, int]:
    digest = hashlib.sha256()
    with open(path, "rb", opener=_open_no_follow) as stream:
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
            tally.files += 1
        status = os.fstat(stream.fileno())
    return digest.hexdigest(), status.st_size, status.st_mtime_ns


def _open_no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


MODES = {"probe": probe, "scan": scan, "changed": changed, "hashes": hashes}


def main() -> None:
    """Answer the one request on stdin."""
    request = json.loads(sys.stdin.buffer.read())
    say(MODES[request["mode"]](request))


if __name__ == "__main__":
    main()
