"""Everything that people read passes here: columns, colours, sizes, ages, odd names.

A name may hold any bytes; what is printed is one line of harmless characters. A terminal
gets colours and columns that fit its width; a pipe gets plain lines that are never cut.
"""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import IO, Any

from opsd.backup.naming import unquote
from opsd.model import Severity
from opsd.text import printable, storable

DAY = timedelta(days=1)
NARROW = 90  # columns
NARROWEST = 60  # columns: below it, tables are drawn as if there were as many
_GAP = "  "


class Tone(enum.StrEnum):
    """What a text means, as a style of rich."""

    PLAIN = ""
    GOOD = "green"
    WARNING = "yellow"
    BAD = "bold red"
    DIM = "dim"
    TITLE = "bold"


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a table."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Column:
    """How the fields of one column stand."""

    title: str
    right: bool = False
    folds: bool = False  #: its text may go on in the next line when the terminal is narrow


Row = Sequence[Cell | str]


class Screen:
    """Where text for people goes: stdout, drawn as far as it can show it."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def is_unicode(self) -> bool:
        """Whether it can show more than letters and digits."""
        encoding = getattr(self.stream, "encoding", None) or ""
        return self.is_terminal and encoding.lower().replace("-", "") == "utf8"

    @property
    def is_narrow(self) -> bool:
        """Whether a column of text beside others would be too thin to be read."""
        return self.is_terminal and bool(self._console().width < NARROW)

    def line(self, text: str = "", tone: Tone = Tone.PLAIN) -> None:
        """Print one line; it is folded at the width of a terminal."""
        if not self.is_terminal:
            self.stream.write(printable(text) + "\n" if text.strip() else "\n")
            return
        self._console().print(self._styled(Cell(text, tone)), soft_wrap=False)

    def detail(self, text: str, *, indent: int, tone: Tone = Tone.PLAIN, mark: str = "") -> None:
        """Print a text that hangs below a line, with `mark` before its first word."""
        lead = " " * indent + mark
        if not self.is_terminal:
            self.stream.write(lead + printable(text) + "\n")
            return
        from rich.table import Table  # noqa: PLC0415 - only when drawing

        grid = Table.grid(padding=0)
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(self._raw(lead, tone), self._styled(Cell(text, tone)))
        self._console().print(grid)

    def table(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Print rows in columns; a column without any text is left out."""
        cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
        used = [i for i in range(len(columns)) if any(row[i].text for row in cells)]
        columns = [columns[i] for i in used]
        cells = [[row[i] for i in used] for row in cells]
        if self.is_terminal:
            self._draw(columns, cells)
        else:
            self.stream.writelines(line + "\n" for line in _aligned(columns, cells))

    def _draw(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        from rich.table import Table  # noqa: PLC0415 - only when drawing

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=Tone.DIM.value)
        for column in columns:
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=not column.folds,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(self._styled(cell) for cell in row))
        self._console().print(table)

    def _console(self) -> Any:
        from rich.console import Console  # noqa: PLC0415 - only when drawing

        console = Console(
            file=self.stream,
            highlight=False,
            markup=False,
            emoji=False,
            color_system=None if os.environ.get("NO_COLOR") else "auto",  # no bold either
        )
        console.width = max(console.width, NARROWEST)
        return console

    def _styled(self, cell: Cell) -> Any:
        return self._raw(printable(cell.text), cell.tone)

    def _raw(self, text: str, tone: Tone) -> Any:
        from rich.text import Text  # noqa: PLC0415 - only when drawing

        return Text(text, style=tone.value)


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> list[str]:
    lines = [[column.title for column in columns]]
    lines += [[printable(cell.text) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return [
        _GAP.join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def print_json(value: Mapping[str, Any], stream: IO[str] | None = None) -> None:
    """Print one JSON object; bytes that are no text are escaped, so that any parser reads it."""
    (stream or sys.stdout).write(json.dumps(_safe(value), indent=2, default=_plain) + "\n")


def _safe(value: Any) -> Any:
    match value:
        case str():
            return storable(value)
        case Mapping():
            return {storable(str(key)): _safe(item) for key, item in value.items()}
        case list() | tuple():
            return [_safe(item) for item in value]
    return value


def _plain(value: object) -> str | float:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
    return storable(str(value))


def name_text(subject: str) -> str:
    """A subject as its owner knows it: ``database/main/it's odd``."""
    try:
        return printable("/".join(unquote(part) for part in subject.split("/")))
    except (UnicodeError, ValueError):
        return printable(subject)


def size_text(size_bytes: int) -> str:
    """``12.4 MiB``."""
    amount = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:  # noqa: PLR2004 - what these units are
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """``1 table``, ``4,210 tables``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def span_text(span: timedelta) -> str:
    """``0.4 s``, ``12 s``, ``3 min``, ``5 h``, ``2 days``: as exact as a person needs."""
    seconds = span.total_seconds()
    if seconds < 10:  # noqa: PLR2004 - below it, tenths matter
        return f"{seconds:.1f} s"
    for limit, unit_s, unit in ((90, 1, "s"), (5400, 60, "min"), (2 * 86400, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def age_text(then: datetime | None, now: datetime) -> str:
    """``3 h ago``, ``in 5 min``, ``never``."""
    if then is None:
        return "never"
    return f"in {span_text(then - now)}" if then > now else f"{span_text(now - then)} ago"


def time_text(moment: datetime | None, timezone: tzinfo) -> str:
    """``2026-11-22 03:15`` in the operator's time zone."""
    return f"{moment.astimezone(timezone):%Y-%m-%d %H:%M}" if moment else "-"


def severity_cell(severity: Severity) -> Cell:
    """How severe, in its colour."""
    tones = {Severity.CRITICAL: Tone.BAD, Severity.WARNING: Tone.WARNING}
    return Cell(severity.label, tones.get(severity, Tone.DIM))


def joined(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
