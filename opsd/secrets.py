"""Secrets are named in the configuration and read where they are used, never before.

A reference is ``env:NAME`` or ``file:/path``. A value that was read once is remembered
for one purpose only: `redact` takes it out of every log line, message and error text, also
where a library wrote it as URLs, JSON, SQL or HTML do, and where the text was cut in it.

Limits: a secret shorter than `SHORTEST_REDACTED` characters is not redacted, because
removing it would mangle ordinary words; `opsd check` warns about such secrets. A process
redacts what it read itself; what only others read never reaches it.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, unquote

from opsd.errors import ConfigError
from opsd.text import printable, storable

SHORTEST_REDACTED = 4  # characters
MASK = "[redacted]"

_SHORTEST_URL_PART = 6  # characters; shorter parts of an address are words, not tokens
_CUT = "…"  # what `opsd.text.shortened` puts at an end
_URL = re.compile(
    r"(?:(?:[^:/?#]*:)?//)?(?P<authority>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?:\#(?P<fragment>.*))?",
    re.DOTALL,
)
_SLUG = re.compile(r"[a-z]+(?:[-_.][a-z]+)*")

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


def conceal_url(url: str, *, slugs: bool = False) -> None:
    """Have `redact` remove an address that is a secret, whole and in parts.

    Libraries write parts of an address apart: the path without the host, the login as
    HTTP's header. Hosts and ports stay readable; a word in the host's place does not,
    because in ``ntfys://TOPIC`` it is the secret.

    Args:
        url: the address, well formed or not.
        slugs: words of small letters in its path and query are names, as those of pings.
    """
    conceal(url)
    conceal(_password(url))  # however short
    for part in _url_parts(url):
        if len(part) >= _SHORTEST_URL_PART and not (slugs and _SLUG.fullmatch(part)):
            conceal(part)
            conceal(unquote(part))


def redact(text: str) -> str:
    """Replace every secret that was read so far by a mask."""
    for value in _revealed:
        text = text.replace(value, MASK)
    return _without_cut_secret(text) if text.endswith(_CUT) else text


def describe(exc: BaseException) -> str:
    """One line for records and messages: class and text, without secrets."""
    text = printable(redact(str(exc)))
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _forms(value: str) -> set[str]:
    """`value` as it is, and as URLs, JSON, tracebacks and error texts write it."""
    in_one_line = printable(value)
    return {
        value,
        storable(value),
        *_in_urls(value),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        html.escape(value),
        value.replace("'", "''"),  # as SQL
        in_one_line if len(in_one_line) >= SHORTEST_REDACTED else value,
    }


def _without_cut_secret(text: str) -> str:
    """Mask the beginning of a secret at the end of a text that was cut there."""
    shown = text.removesuffix(_CUT)
    cut = max((_overlap(shown, value) for value in _revealed), default=0)
    return shown[:-cut] + MASK + _CUT if cut >= SHORTEST_REDACTED else text


def _overlap(text: str, value: str) -> int:
    """How many characters at the end of `text` are the beginning of `value`."""
    longest = min(len(text), len(value))
    return next((n for n in range(longest, 0, -1) if text.endswith(value[:n])), 0)


def _password(url: str) -> str:
    authority = next(_URL.finditer(url))["authority"]
    return unquote(authority.rpartition("@")[0].partition(":")[2])


def _url_parts(url: str) -> Iterator[str]:
    """What may be a secret by itself, in an address that may not even be one."""
    authority, path, query, fragment = next(_URL.finditer(url)).groups("")
    login, _, host = authority.rpartition("@")
    yield from _login_parts(login)
    name, _, port = host.partition(":")
    if not (host.startswith("[") or "." in name or port.isdigit() or name == "localhost"):
        yield from (host, name, port)
    yield from path.split("/")
    yield from (value for _, value in parse_qsl(query))
    yield fragment


def _login_parts(login: str) -> Iterator[str]:
    """Of ``user:password``, also as HTTP's header has it."""
    for text in (login, unquote(login)):
        yield text
        yield from text.split(":", 1)
        yield base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


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
