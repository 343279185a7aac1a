"""What the last report said, so that the next one can say what is new.

Kept in the job's own directory. A file that cannot be read is forgotten: then nothing is called
new. One that cannot be written costs no report: the next one is compared with an older one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opsd.upgrade.assessment import Assessment


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The last report, in short."""

    at: datetime  #: aware UTC
    blockers: tuple[str, ...]  #: ids of checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What changed since the last report."""

    since: datetime  #: aware UTC
    new: tuple[str, ...]  #: blockers that were none
    gone: tuple[str, ...]  #: blockers that are none any more

    def __bool__(self) -> bool:
        return bool(self.new or self.gone)


def difference(before: Memory | None, now: Assessment) -> Difference | None:
    """What changed; None: nobody knows what was before."""
    if before is None:
        return None
    names = now.blocked_by
    return Difference(
        since=before.at,
        new=tuple(name for name in names if name not in before.blockers),
        gone=tuple(name for name in before.blockers if name not in names),
    )


def read(path: Path) -> Memory | None:
    """The memory that lies there; None: there is none that can be read."""
    try:
        return _memory(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, assessment: Assessment) -> None:
    """Keep it for the next time, if that is possible; atomic."""
    kept = {
        "at": assessment.at.isoformat(),
        "blockers": list(assessment.blocked_by),
    }
    new = path.with_suffix(".new")
    with contextlib.suppress(OSError):
        with new.open("w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def _memory(content: Mapping[str, object]) -> Memory:
    blockers = content["blockers"]
    at = datetime.fromisoformat(str(content["at"]))
    if not isinstance(blockers, list) or at.tzinfo is None:
        raise TypeError("this is no memory of a report")
    return Memory(at=at, blockers=tuple(str(name) for name in blockers))
