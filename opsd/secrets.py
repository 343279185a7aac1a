"""Secrets are named in the configuration and read where they are used, never before.

A reference is ``env:NAME`` or ``file:/path``. A value that was read once is remembered
for one purpose only: `redact` takes it out of every log line, message and error text.

Limits: a secret shorter than `SHORTEST_REDACTED` characters is not redacted, because
removing it would mangle ordinary words; `opsd check` warns about such secrets.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

from opsd.errors import ConfigError
from opsd.text import printable, storable

SHORTEST_REDACTED = 4  # characters
MASK = "[redacted]"

_revealed: tuple[str, ...] = ()  # longest first, so that a secret inside another goes with it


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret. Printing it shows the reference, never the value."""

    reference: str  #: ``env:OPSD_S3_SECRET`` or ``file:/run/secrets/s3``

    def __str__(self) -> str:
        return self.reference

    def reveal(self) -> str:
        """Read the value now; the last newline of a file is not part of it.

        Raises:
            ConfigError: the variable is not set, the file cannot be read, or it is empty.
        """
        kind, _, name = self.reference.partition(":")
        value = _from_environment(name) if kind == "env" else _from_file(Path(name))
        if not value:
            raise ConfigError(f"secret {self.reference} is empty")
        conceal(value)
        return value


def conceal(value: str) -> None:
    """Have `redact` remove `value`, for secrets that are part of something else (a URL)."""
    global _revealed  # noqa: PLW0603 - one process, one set of secrets; replaced as a whole
    if len(value) >= SHORTEST_REDACTED and value not in _revealed:
        forms = {*_revealed, *_forms(value)}
        _revealed = tuple(sorted(forms, key=len, reverse=True))


def redact(text: str) -> str:
    """Replace every secret that was read so far by a mask."""
    for value in _revealed:
        text = text.replace(value, MASK)
    return text


def describe(exc: BaseException) -> str:
    """One line for records and messages: class and text, without secrets."""
    text = printable(redact(str(exc)))
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _forms(value: str) -> set[str]:
    """`value` as it is, and as URLs, JSON, tracebacks and error texts write it."""
    in_one_line = " ".join(value.split())
    return {
        value,
        storable(value),
        *_in_urls(value),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        in_one_line if len(in_one_line) >= SHORTEST_REDACTED else value,
    }


def _in_urls(value: str) -> tuple[str, ...]:
    """As URLs write it; nothing when none can, because it is no text in any encoding."""
    try:
        return (
            quote(value, safe="", errors="surrogateescape"),
            quote(value, errors="surrogateescape"),
            quote_plus(value, errors="surrogateescape"),
        )
    except UnicodeEncodeError:
        return ()


def _from_environment(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(f"secret env:{name}: the environment variable is not set") from None


def _from_file(path: Path) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not valid UTF-8"
        raise ConfigError(f"secret file:{path}: {reason}") from exc
    return text.removesuffix("\n").removesuffix("\r")
