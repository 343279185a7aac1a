"""Known secrets, and the places where none of them may ever stand.

An oracle for fault tests: give it what a test planted and what it can see afterwards (text,
directories, processes), and it names every secret that shows, in plain or as libraries write
secrets: quoted for URLs, JSON, SQL and HTML, in base64 and in hexadecimal digits.

    canaries = Canaries({"password of main": "canary-Passw0rd"})
    assert canaries.in_text(log) == set()
    assert canaries.in_directory(state_dir) == {}

Limits: what is compressed or encrypted is not looked into.
"""

from __future__ import annotations

import base64
import html
import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote, quote_plus


class Canaries:
    """Secrets by what they are for."""

    def __init__(self, planted: Mapping[str, str]) -> None:
        """Know the secrets; each is at least eight characters long, else it may be a word.

        Raises:
            ValueError: one is shorter.
        """
        short = sorted(name for name, value in planted.items() if len(value) < 8)
        if short:
            raise ValueError(f"too short to be told from a word: {', '.join(short)}")
        self.planted = dict(planted)
        self._forms = {name: forms(value) for name, value in planted.items()}

    def in_bytes(self, content: bytes) -> set[str]:
        """Names of the secrets that stand in `content`."""
        return {
            name for name, shapes in self._forms.items() if any(one in content for one in shapes)
        }

    def in_text(self, text: str) -> set[str]:
        """Names of the secrets that stand in `text`."""
        return self.in_bytes(text.encode("utf-8", "surrogateescape"))

    def in_directory(self, place: Path, *, besides: Collection[Path] = ()) -> dict[Path, set[str]]:
        """By file, the secrets in its content or name; `besides` are where they belong."""
        found = {path: self._in_file(path) for path in files(place, besides=besides)}
        return {path: names for path, names in found.items() if names}

    def _in_file(self, path: Path) -> set[str]:
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # a temporary file that is gone by now
            content = b""
        return self.in_bytes(content + b"\0" + os.fsencode(path))


def forms(value: str) -> frozenset[bytes]:
    """A secret in every form in which it may be written."""
    raw = value.encode("utf-8", "surrogateescape")
    texts = {
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        html.escape(value),
        value.replace("'", "''"),
        raw.hex(),
    }
    return frozenset({raw, *(text.encode() for text in texts), *_in_base64(raw)})


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """The characters that only `raw` decides, wherever it stands in what was encoded."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        first = -(-before * 8 // 6)
        last = len(encoded) - (1 if (before + len(raw)) % 3 else 0)
        yield encoded[first:last]


def files(place: Path, *, besides: Collection[Path] = ()) -> Iterator[Path]:
    """Every file below `place`, but for those that are or lie in one of `besides`."""
    for path in sorted(place.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(one) for one in besides):
            yield path


@dataclass(frozen=True, slots=True)
class Program:
    """A process as its neighbours see it."""

    name: str
    command: bytes  #: its arguments, with a zero byte after each
    environment: bytes  #: likewise


class Watch:
    """Samples a process and its descendants fifty times a second, for as long as it runs."""

    def __init__(self, pid: int, *, every_s: float = 0.02) -> None:
        self._pid = pid
        self._every_s = every_s
        self._done = threading.Event()
        self.seen: set[Program] = set()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._done.wait(self._every_s):
            for pid in (self._pid, *descendants(self._pid)):
                program = look(pid)
                if program:
                    self.seen.add(program)


def look(pid: int) -> Program | None:
    """A process; None when it is over, or just becomes another program."""
    place = Path(f"/proc/{pid}")
    try:
        name, command = (place / "comm").read_text().strip(), (place / "cmdline").read_bytes()
        environment = (place / "environ").read_bytes()
        same = command and command == (place / "cmdline").read_bytes()
    except OSError:
        return None
    return Program(name, command, environment) if same else None


def descendants(pid: int) -> Iterator[int]:
    """The processes below a process."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(word) for word in listed.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from descendants(child)
