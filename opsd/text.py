"""Names from the world are any bytes; stores, screens and phones are not.

Two forms: `storable` is valid Unicode and loses nothing that matters; `printable` is one
line without a character that could move a cursor, ring a bell or forge a second log line.
"""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")


def storable(text: str) -> str:
    r"""Write what is not UTF-8 as ``\udcff`` escapes, so that no encoder refuses it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """One line: control characters and those that reorder text become a space each run."""
    return " ".join(_CONTROL.sub(" ", storable(text)).split())


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters; what is cut off is shown as ``…``."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
