"""Names from the world (databases, shares) as parts of keys, files and subjects.

PostgreSQL allows any bytes but NUL in a database name. Keys use one alphabet that every
file system, S3 server, shell and screen takes: what is outside it is written ``=HH`` per
byte of its UTF-8 form. Ordinary names stay as they are.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_OUTSIDE = re.compile(rb"[^A-Za-z0-9_.-]|^[.-]")
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")
_SLOT_FORMAT = "%Y%m%dT%H%M%SZ"


def quote(name: str) -> str:
    """Write `name` in the key alphabet; different names give different results."""
    raw = name.encode("utf-8", "surrogateescape")
    return _OUTSIDE.sub(lambda match: b"=%02X" % match[0][0], raw).decode("ascii")


def unquote(part: str) -> str:
    """The name that `quote` was given."""
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), part.encode("ascii"))
    return raw.decode("utf-8", "surrogateescape")


def subject(kind: str, *names: str) -> str:
    """``kind/name/...`` with every name quoted: also the prefix of the series' keys."""
    return "/".join((kind, *(quote(name) for name in names)))


def stamp(slot: datetime) -> str:
    """A slot as it stands in keys: ``20261122T030000Z``. Sorts by time."""
    return slot.astimezone(UTC).strftime(_SLOT_FORMAT)


def parse_stamp(text: str) -> datetime:
    """The slot of a stamp, aware UTC.

    Raises:
        ValueError: not a stamp.
    """
    return datetime.strptime(text, _SLOT_FORMAT).replace(tzinfo=UTC)
