"""What a channel missed while it was down, as one message instead of a hundred. Pure.

A phone that was dead for days would ring for an hour when it comes back. So what it did not
take for a day is put together: one line each, the worst first, and what finds no room is
counted. When more is missed later, the lines of the earlier collapse join in: there is one
such message for a channel, never one within another.

Limits: a line has the time and the title; what stood below is in `opsd history`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import tzinfo

from opsd.alerts.render import TITLE_CHARACTERS
from opsd.model import Message, Severity
from opsd.state import OutboxEntry
from opsd.text import printable, shortened

MOST_LINES = 40
KEY = "collapse"
_TITLE_CHARACTERS = 56  # of a collapsed message: all lines together fit one page of a phone
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d) (info|warning|critical): (.*)")
_MORE = re.compile(r"and (\d+) more: opsd history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One message that was missed."""

    at: str  #: ``2026-11-22 03:00``, local time
    severity: Severity
    title: str  #: printable, short

    def __str__(self) -> str:
        return f"{self.at} {self.severity.label}: {self.title}"


def is_collapse(entry: OutboxEntry) -> bool:
    """Whether this message stands for others already."""
    return entry.message.key.startswith(f"{KEY}/")


def collapsed(entries: Sequence[OutboxEntry], *, target: str, timezone: tzinfo) -> Message:
    """One message for `target` that stands for all of these.

    Its key cannot come again: an entry is given up once for a target, and the number in the
    key is that of the latest of them.

    Args:
        entries: at least one; earlier collapses are taken apart.
        target: who missed them.
        timezone: of the times in it.
    """
    lines: list[Line] = []
    uncounted = 0
    for entry in entries:
        earlier, more = _taken_apart(entry, timezone)
        lines.extend(earlier)
        uncounted += more
    lines.sort(key=lambda line: (-line.severity, line.at))
    shown, hidden = lines[:MOST_LINES], lines[MOST_LINES:]
    total = len(lines) + uncounted
    missed = f"{total} message{'s' if total != 1 else ''}"
    return Message(
        key=f"{KEY}/{target}/{max(entry.id for entry in entries)}",
        severity=max(entry.message.severity for entry in entries),
        title=shortened(
            f"While {printable(target)} could not be reached: {missed}", TITLE_CHARACTERS
        ),
        body=_body(shown, len(hidden) + uncounted),
        tags=(target,),
    )


def _body(lines: Sequence[Line], hidden: int) -> str:
    more = [f"and {hidden} more: opsd history"] if hidden else []
    return "\n".join([*map(str, lines), *more, "", "How it is now: opsd status"])


def _taken_apart(entry: OutboxEntry, timezone: tzinfo) -> tuple[list[Line], int]:
    """The lines that stand for a message, and how many more it stands for."""
    if not is_collapse(entry):
        return [_line(entry, timezone)], 0
    lines, more = [], 0
    for text in entry.message.body.splitlines():
        if match := _LINE.fullmatch(text):
            severity = Severity[match[2].upper()]
            lines.append(Line(at=match[1], severity=severity, title=match[3]))
        elif match := _MORE.fullmatch(text):
            more = int(match[1])
    return lines, more


def _line(entry: OutboxEntry, timezone: tzinfo) -> Line:
    return Line(
        at=f"{entry.created_at.astimezone(timezone):%Y-%m-%d %H:%M}",
        severity=entry.message.severity,
        title=shortened(printable(entry.message.title), _TITLE_CHARACTERS),
    )
