"""Where a job keeps what it saw of the nodes between its runs: one small file.

Limits: it is not synced to disk. A file that is lost costs one time of watching.
"""

from __future__ import annotations

from pathlib import Path

from opsd.cluster.nodeloss.memory import Memory, decode, encode
from opsd.errors import TransientError


def read(place: Path) -> Memory | None:
    """What the last run saw; None when there is nothing that can be read."""
    try:
        return decode(place.read_bytes())
    except OSError:
        return None


def write(place: Path, memory: Memory) -> None:
    """Keep it for the next run.

    Raises:
        TransientError: the disk refused.
    """
    part = place.with_suffix(".part")
    try:
        part.write_bytes(encode(memory))
        part.replace(place)
    except OSError as exc:
        raise TransientError(f"write {place}: {exc.strerror}") from exc
