"""The program that lists the directories of a share: it may hang or die there, and opsd goes on.

Started as a child (``python -I -S listing.py``) as `opsd.backup.share.walk` is, and for the same
reason: a dead file server freezes whatever touches it. One JSON request on stdin, one JSON line
for each directory on stdout, a line ``{"done": true}`` last. Standard library only.

A directory that is a volume's, or that leads to none, is measured with all below it; one that
leads to volumes is entered. Links are not followed.
"""

# Paths are bytes here, which pathlib does not know; its import would double the start-up time.
# ruff: noqa: PTH118
from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any


def say(answer: dict[str, Any]) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


class Tree:
    """What lies below a directory."""

    def __init__(self, path: bytes, *, until: float) -> None:
        """Count until `until` (monotonic clock), then leave the counts open."""
        status = os.lstat(path)
        self.inode = status.st_ino
        self.newest_ns = status.st_mtime_ns
        self.files = self.size = 0
        self.is_whole = self._count(path, until)

    def _count(self, root: bytes, until: float) -> bool:
        pending = [root]
        while pending:
            if time.monotonic() >= until:
                return False
            try:
                found = list(os.scandir(pending.pop()))
            except OSError:
                return False
            for entry in found:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                self.newest_ns = max(self.newest_ns, status.st_mtime_ns)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(os.path.join(root, entry.path))
                else:
                    self.files += 1
                    self.size += status.st_size
        return True

    def answer(self, path: bytes) -> dict[str, Any]:
        """What is told about it."""
        return {
            "path": os.fsdecode(path),
            "inode": self.inode,
            "newest_ns": self.newest_ns,
            "files": self.files if self.is_whole else None,
            "size_bytes": self.size if self.is_whole else None,
        }


def directories(root: bytes, volumes: set[bytes], ignored: list[str]) -> Iterator[bytes]:
    """Every directory to be told of, relative to `root`, that is not a volume's itself."""
    leading = {b""}
    for path in volumes:
        parts = path.split(b"/")
        leading.update(b"/".join(parts[:count]) for count in range(len(parts)))
    pending = [] if b"" in volumes else [b""]
    while pending:
        inside = pending.pop()
        for entry in os.scandir(os.path.join(root, inside)):
            path = os.path.join(inside, entry.name)
            name = os.fsdecode(entry.name)
            if not entry.is_dir(follow_symlinks=False) or path in volumes:
                continue
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored):
                continue
            if path in leading:
                pending.append(path)
            else:
                yield path


def main() -> None:
    """Answer the one request on stdin."""
    request = json.loads(sys.stdin.buffer.read())
    root = os.fsencode(request["path"])
    until = time.monotonic() + request["measure_s"]
    volumes = {os.fsencode(path) for path in request["volumes"]}
    for path in sorted(volumes):
        try:
            say(Tree(os.path.join(root, path), until=until).answer(path))
        except (FileNotFoundError, NotADirectoryError):
            say({"missing": os.fsdecode(path)})
    for path in sorted(directories(root, volumes, request["ignored"])):
        with contextlib.suppress(FileNotFoundError):
            say(Tree(os.path.join(root, path), until=until).answer(path))
    say({"done": True})


if __name__ == "__main__":
    main()
