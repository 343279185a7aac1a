"""Names from the world (databases, shares) as parts of keys, files and subjects.

PostgreSQL allows any bytes but NUL in a database name. Keys use one alphabet that every
file system, S3 server, shell and screen takes: what is outside it is written ``=HH`` per
byte of its UTF-8 form. Ordinary names stay as they are.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from opsd.errors import PermanentError

LONGEST_PART = 200  # characters: 255 bytes of a file name less those of a temporary name
LONGEST_KEY = 800  # characters: S3 allows 1024 bytes, the configured prefix included

_OUTSIDE = re.compile(rb"[^A-Za-z0-9_.-]|^[.-]")
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")
_PART = re.compile(r"[A-Za-z0-9_=][A-Za-z0-9_.=-]*")
_SLOT_FORMAT = "%Y%m%dT%H%M%SZ"


class InvalidKey(PermanentError):
    """Not a key: a part is empty, too long, or outside the alphabet."""


def quote(name: str) -> str:
    """Write `name` in the key alphabet; different names give different results."""
    if not name:
        return "="  # no other name is written so
    raw = name.encode("utf-8", "surrogateescape")
    return _OUTSIDE.sub(lambda match: b"=%02X" % match[0][0], raw).decode("ascii")


def unquote(part: str) -> str:
    """The name that `quote` was given."""
    if part == "=":
        return ""
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


def is_part(text: str) -> bool:
    """Whether `text` can stand between two slashes of a key."""
    return len(text) <= LONGEST_PART and _PART.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return `key` if it is one.

    Raises:
        InvalidKey: a part is empty, longer than `LONGEST_PART` or outside the alphabet.
    """
    if len(key) > LONGEST_KEY or not all(is_part(part) for part in key.split("/")):
        raise InvalidKey(
            f"key {key[:LONGEST_PART]!a}: parts must be 1 to {LONGEST_PART} characters of"
            " A-Z a-z 0-9 _ . = - and begin with none of . -; use a shorter or plainer name"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if keys can start with it; the last part may be incomplete.

    Raises:
        InvalidKey: no key can start with it.
    """
    if prefix:
        check_key(prefix + "x" if prefix.endswith("/") else prefix)
    return prefix
