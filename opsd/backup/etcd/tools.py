"""Which etcd and etcdutl are here: the programs that restore a snapshot.

Newer ones restore what older ones wrote; the other way round it may work or not.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from opsd.clients.process import run
from opsd.clock import Deadline
from opsd.errors import PermanentError

_VERSION = re.compile(r"etcd Version: (\d+)\.(\d+)\.(\d+)")
ASK_S = 20.0


class ToolsMissing(PermanentError):
    """No etcd and etcdutl are installed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Both programs, of one version."""

    etcd: str
    etcdutl: str
    version: str  #: ``3.6.16``

    def is_older_than(self, version: str) -> bool:
        """Whether their minor release is before that of `version`."""
        return _minor(self.version) < _minor(version)


def installed(programs: Path | None, *, deadline: Deadline) -> Tools:
    """The programs in a directory, or on PATH.

    Raises:
        ToolsMissing: they are not both there, or do not run.
    """
    search = str(programs) if programs else None
    found = {name: shutil.which(name, path=search) for name in ("etcd", "etcdutl")}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        where = str(programs) if programs else "PATH"
        raise ToolsMissing(
            f"{' and '.join(absent)} not found in {where}; apt-get install etcd-server"
            " etcd-client, or set programs (docs/etcd.md#programs)"
        )
    etcd, etcdutl = (str(found[name]) for name in ("etcd", "etcdutl"))
    within = Deadline.after(min(ASK_S, deadline.remaining()), deadline.clock)
    done = run([etcd, "--version"], deadline=within)
    match = _VERSION.search(done.stdout.decode("ascii", "replace"))
    if done.returncode != 0 or match is None:
        raise ToolsMissing(f"{etcd} does not tell its version: {done.complaint()}")
    return Tools(etcd=etcd, etcdutl=etcdutl, version=".".join(match.groups()))


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
