"""Read all stored data back within a set time, one part with each run.

A disk forgets quietly. Which part is next is kept in a small file on local disk; losing it
only begins the round anew.

Limits: runs that fail or do not happen delay the round; a tenth of the time is kept in hand.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from opsd.backup.share.engine import Part

IN_HAND = 0.9
MOST_PARTS = 256  # restic tells packs apart by the first byte of their names
USUAL_INTERVAL = timedelta(days=1)  # before there are two backups to measure
RECENT = 8  # slots whose distance is the interval


def parts(slots: Sequence[datetime], *, within: timedelta) -> int:
    """How many runs may share the reading of everything.

    Args:
        slots: of the backups so far and of this run, in any order.
        within: the time in which all data must be read.
    """
    newest = sorted(set(slots))[-RECENT:]
    distances = [(later - earlier).total_seconds() for earlier, later in pairwise(newest)]
    interval_s = statistics.median(distances) if distances else USUAL_INTERVAL.total_seconds()
    runs = int(IN_HAND * within.total_seconds() / interval_s)
    return min(max(runs, 1), MOST_PARTS)


def next_part(notes: Path, *, of: int) -> Part:
    """The part that is due. A round keeps its size to its end, unless it must hurry."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        last = json.loads(notes.read_text())
        n, was = int(last["n"]), int(last["of"])
        if 1 <= n < was <= of:
            return Part(n=n + 1, of=was)
    return Part(n=1, of=of)


def done(notes: Path, part: Part) -> None:
    """Remember that a part was read."""
    new = notes.with_suffix(".new")
    new.write_text(json.dumps({"n": part.n, "of": part.of}))
    new.replace(notes)
