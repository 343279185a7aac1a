"""What the owner wrote about a database where it is: annotations ``opsd.dev/...``.

They stand on the StatefulSet, the Deployment or the operator's resource, or on its pods'
template; on the workload counts more. A hint that says nothing clear is told, never guessed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from opsd.text import printable

PREFIX = "opsd.dev/"
BACKUP = f"{PREFIX}backup"
KEYS = (
    "backup", "service", "port", "user", "secret", "password-key", "databases", "exclude"
)  # fmt: skip

_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HIGHEST_PORT = 65535
_ALIKE = 0.75  # of 1


class Unclear(ValueError):
    """A hint that cannot be followed; the text names the annotation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What was written; empty or None where nothing was."""

    backup: bool | None = None  #: None: decide by yourself
    service: str = ""
    port: int = 0
    user: str = ""
    secret: str = ""
    password_key: str = ""
    databases: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def read(*annotations: Mapping[str, str]) -> Hints:
    """The hints of a workload.

    Args:
        annotations: of the workload and of its template; the first that has a key counts.

    Raises:
        Unclear: with the annotation and what was expected.
    """
    told: dict[str, str] = {}
    for one in annotations:
        for key, value in one.items():
            if key.startswith(PREFIX):
                told.setdefault(key.removeprefix(PREFIX), value.strip())
    for key in sorted(set(told) - set(KEYS)):
        meant = difflib.get_close_matches(key, KEYS, n=1, cutoff=_ALIKE)
        if meant:  # all others are for other things than backups
            raise Unclear(f"{PREFIX}{printable(key)}: did you mean {PREFIX}{meant[0]}?")
    return Hints(
        backup=_flag(told.get("backup", "")),
        service=_object_name(told, "service"),
        port=_port(told.get("port", "")),
        user=told.get("user", ""),
        secret=_object_name(told, "secret"),
        password_key=told.get("password-key", ""),
        databases=_names(told.get("databases", "")),
        exclude=_names(told.get("exclude", "")),
    )


def is_asked(*annotations: Mapping[str, str]) -> bool:
    """Whether the owner wrote anything about backups."""
    return any(BACKUP in one for one in annotations)


def _flag(text: str) -> bool | None:
    if text not in ("", "true", "false"):
        raise Unclear(f'{BACKUP}: expected "true" or "false", got "{printable(text)}"')
    return text == "true" if text else None


def _port(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= _HIGHEST_PORT:
        raise Unclear(f'{PREFIX}port: expected a number up to 65535, got "{printable(text)}"')
    return int(text)


def _object_name(told: Mapping[str, str], key: str) -> str:
    text = told.get(key, "")
    if text and not _OBJECT_NAME.fullmatch(text):
        expected = "the name of an object of its namespace"
        raise Unclear(f'{PREFIX}{key}: expected {expected}, got "{printable(text)}"')
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))
