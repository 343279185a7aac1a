"""Databases in a share: SQLite is copied consistently, PostgreSQL is left to its own job.

A file copy of a database in use is a coin toss that lands when you need it. So each SQLite
database gets a second, consistent copy in the snapshot, in ``.opsd/sqlite/``, and its logs
are left out of the first; a PGDATA tree is left out altogether, and said so.

Limits: a database is known by its header and its layout. An encrypted SQLite file (SQLCipher)
or another engine's files are copied as any file.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opsd.backup.share import sqlitecopy
from opsd.backup.share.engine import ADDED
from opsd.backup.share.guards import Inventory, Share
from opsd.clients.process import Process, lines
from opsd.clock import Deadline
from opsd.errors import TransientError
from opsd.progress import Progress
from opsd.text import storable

SQLITE = "sqlite"  # the directory below `ADDED`
SIDE_FILES = ("-wal", "-shm", "-journal")
_WILD = re.compile(r"([\\*?\[])")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteCopy:
    """What became of one SQLite database."""

    path: str  #: in the share
    method: str  #: see `opsd.backup.share.sqlitecopy`; empty when there is no copy
    size_bytes: int = 0
    reason: str = ""  #: why there is none

    def facts(self) -> dict[str, str | int]:
        """For the manifest."""
        return {
            "path": storable(self.path),
            "method": self.method,
            "size_bytes": self.size_bytes,
            "reason": storable(self.reason),
        }


@contextmanager
def stage(scratch: Path) -> Iterator[Path]:
    """A directory whose ``.opsd`` joins the snapshot; always at the same path, gone after use.

    It is there even when nothing is in it: restic finds the snapshot before by the paths.
    """
    place = scratch / "added"
    shutil.rmtree(place, ignore_errors=True)
    (place / ADDED / SQLITE).mkdir(parents=True, mode=0o700)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def copy_databases(
    share: Share,
    found: Inventory,
    *,
    remote: bool,
    into: Path,
    deadline: Deadline,
    progress: Progress,
) -> tuple[SqliteCopy, ...]:
    """Copy every SQLite database that the walk found; a failed copy is told in its entry.

    Args:
        share: where they are.
        found: the walk.
        remote: other machines may write to the share.
        into: from `stage`.
        deadline: of all copies together.
        progress: told about databases.
    """
    if not found.sqlite:
        return ()
    request = {
        "path": str(share.path),
        "into": str(into / ADDED / SQLITE),
        "databases": found.sqlite,
        "remote": remote,
    }
    step = f"copy databases of {share.name}"
    copies: list[SqliteCopy] = []
    argv = (sys.executable, "-I", "-S", sqlitecopy.__file__)
    with Process(argv, deadline=deadline, stdin=True) as child:
        child.write(json.dumps(request).encode())
        child.close_stdin()
        for line in lines(child):
            copies.append(SqliteCopy(**json.loads(line)))
            progress.update(step, done=len(copies), total=len(found.sqlite), unit="files")
        progress.finish(step)
        if child.wait():
            raise TransientError(f"{step}: {child.stderr.strip()}")
    return tuple(copies)


def omitted(found: Inventory, copies: tuple[SqliteCopy, ...]) -> tuple[str, ...]:
    """Exact paths that the engine leaves out: what is saved better elsewhere."""
    logs = (copy.path + suffix for copy in copies if copy.method for suffix in SIDE_FILES)
    return (*found.pgdata, *logs)


def unwatched(share: Share, found: Inventory, copies: tuple[SqliteCopy, ...]) -> tuple[str, ...]:
    """Globs of what may change while the engine reads: all that has a consistent copy."""
    saved = (copy.path for copy in copies if copy.method)
    exact = (*omitted(found, copies), *saved, ADDED)
    return (*share.exclude, *("/" + _WILD.sub(r"\\\1", path) for path in exact))
