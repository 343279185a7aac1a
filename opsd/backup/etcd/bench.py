"""A place where one snapshot is tried out, that leaves no plain copy behind.

Nothing is copied when the programs for it are not here. What a killed run left is removed before
the next begins; what a run made, with its end.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsd.backup.etcd.drill import cleared, drill
from opsd.backup.etcd.source import EtcdSource
from opsd.backup.etcd.tools import Tools, installed
from opsd.backup.manifest import Verification
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, PermanentError, TransientError

DRILL_S = 1800.0  # for a database of gigabytes on a slow disk
_PLAIN, _RESTORED = "snapshot.db", "restored"


@dataclass(slots=True)
class Bench:
    """Where it is tried; `problem` says why it cannot be."""

    folder: Path
    tools: Tools | None = None
    problem: str = ""

    @property
    def copy(self) -> Path | None:
        """Where a plain snapshot may lie; None: nothing will be tried."""
        return None if self.problem else self.folder / _PLAIN

    def again(self) -> None:
        """Another member is taken: what the last one left is removed."""
        (self.folder / _PLAIN).unlink(missing_ok=True)

    def verdict(self, source: EtcdSource, *, deadline: Deadline) -> Verification | None:
        """Try the copy; None: it could not be tried, `problem` says why."""
        if self.problem or self.tools is None:
            return None
        try:
            return drill(
                self.folder / _PLAIN,
                source.promise,
                self.tools,
                taken_from=source.etcd_version,
                folder=self.folder / _RESTORED,
                deadline=Deadline.after(min(DRILL_S, deadline.remaining()), deadline.clock),
            )
        except (TransientError, PermanentError, DeadlineExceeded) as exc:
            self.problem = str(exc)
            return None


@contextlib.contextmanager
def bench(folder: Path, *, programs: Path | None, deadline: Deadline) -> Iterator[Bench]:
    """A place for one drill, empty, for opsd's user only; removed at the end.

    Args:
        folder: it is made anew, and all that is in it is removed.
        programs: directory with etcd and etcdutl; None: those on PATH.
        deadline: for asking the programs their version.
    """
    found = Bench(folder)
    try:
        try:
            cleared(folder)
            found.tools = installed(programs, deadline=deadline)
        except (TransientError, PermanentError, DeadlineExceeded) as exc:
            found.problem = str(exc)
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
