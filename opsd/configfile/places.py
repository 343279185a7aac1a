"""Find the line of every key in a TOML file, so that an error can name it.

The parser of the standard library gives lines for syntax errors only. This reads a text
that the parser already accepted, and therefore needs to tell strings, brackets and
comments apart but never to judge them.

Limits: a text that is not valid TOML gives wrong places or an exception.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Place = tuple[str | int, ...]  #: ``("jobs", "nfs-backup", "shares", 0, "path")``

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?"""("{0,2})|\'\'\'.*?\'\'\'(\'{0,2})|"(?:[^"\\\n]|\\.)*"|'[^'\n]*\'''',
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]+")


def lines(text: str) -> Mapping[Place, int]:
    """The line, counted from 1, on which each key, table and list entry begins.

    A table that is only implied, as ``a`` is by ``[a.b]``, gets the line that implies it.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.scan()
    return scanner.lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.lines: dict[Place, int] = {}
        self._entries: dict[Place, int] = {}  # arrays of tables -> index of the last entry

    def scan(self) -> None:
        table: Place = ()
        self._skip()
        while self.pos < len(self.text):
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()

    def _header(self) -> Place:
        start = self.pos
        is_entry = self.text.startswith("[[", start)
        self.pos += 2 if is_entry else 1
        table: Place = ()
        keys = self._dotted_key()
        for depth, key in enumerate(keys, start=1):
            table = (*table, key)
            self._note(table, start)
            if depth == len(keys) and not is_entry:
                self.lines[table] = self._line(start)  # it may have been implied before
            if depth == len(keys) and is_entry:
                self._entries[table] = self._entries.get(table, -1) + 1
            if table in self._entries:
                table = (*table, self._entries[table])
                self._note(table, start)
        self.pos += 2 if is_entry else 1
        return table

    def _pair(self, table: Place) -> None:
        start = self.pos
        place = table
        for key in self._dotted_key():
            place = (*place, key)
            self._note(place, start)
        self.pos += 1  # the equals sign
        self._skip()
        self._value(place)

    def _value(self, place: Place) -> None:
        self._note(place, self.pos)
        match self._peek():
            case "[":
                self._array(place)
            case "{":
                self._inline_table(place)
            case '"' | "'":
                self._take(_STRING)
            case _:
                self._take(_SCALAR)

    def _array(self, place: Place) -> None:
        self.pos += 1
        index = 0
        self._skip()
        while self._peek() != "]":
            if self._peek() == ",":
                self.pos += 1
                index += 1
            else:
                self._value((*place, index))
            self._skip()
        self.pos += 1

    def _inline_table(self, place: Place) -> None:
        self.pos += 1
        self._skip()
        while self._peek() != "}":
            if self._peek() == ",":
                self.pos += 1
            else:
                self._pair(place)
            self._skip()
        self.pos += 1

    def _dotted_key(self) -> list[str]:
        keys = [self._key()]
        while self._peek() == ".":
            self.pos += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        token = self._take(_KEY).strip(" \t")
        return str(tomllib.loads(f"key = {token}")["key"]) if token[0] in "\"'" else token

    def _note(self, place: Place, pos: int) -> None:
        self.lines.setdefault(place, self._line(pos))

    def _line(self, pos: int) -> int:
        return self.text.count("\n", 0, pos) + 1

    def _peek(self) -> str:
        return self.text[self.pos]

    def _skip(self) -> None:
        self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.pos)
        if match is None:
            raise ValueError(f"not TOML at offset {self.pos}")
        self.pos = match.end()
        return match[0]
