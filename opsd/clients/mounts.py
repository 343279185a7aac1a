"""Which NFS exports are mounted on this machine, and where. Asks the kernel, never a server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
_KINDS = ("nfs", "nfs4")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def nfs_mounts(table: Path = MOUNTS) -> Mapping[str, str]:
    """Mount point -> ``SERVER:/DIRECTORY``; of several on one point the last, which is seen.

    Empty when it cannot be told.
    """
    try:
        lines = table.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for source, point, kind in (line.split(" ")[:3] for line in lines if line.count(" ") > 1):
        place = _unescaped(point)
        found.pop(place, None)
        if kind in _KINDS and ":/" in source:
            found[place] = _unescaped(source)
    return found


def _unescaped(text: str) -> str:
    r"""``\040`` is a blank."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
