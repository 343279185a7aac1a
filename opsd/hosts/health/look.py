"""One look at one part of a machine: what it answered, what earlier looks left, what came of it.

A reading has three states: a value; nothing to read, which the machine proves (no such
hardware); and unknown, which is told with its reason. Nothing is healthy because it could not
be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from opsd.hosts.machine import Machine
from opsd.hosts.script import Probe, Section
from opsd.model import Fact, Finding

Kept = Mapping[str, Any]  #: what one part leaves for its next look: JSON

KILLED = 137  # exit status of what did not answer in time
STEADY = timedelta(minutes=20)  # two looks: for readings that come and go


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Something that could not be read."""

    what: str  #: e.g. ``kernel log``
    why: str
    fix: str = ""  #: the command or line that makes it readable


class Unreadable(Exception):
    """A part could not be read; the text says why. Never leaves this package."""

    def __init__(self, what: str, why: str, fix: str = "") -> None:
        super().__init__(f"{what}: {why}")
        self.unknown = Unknown(what=what, why=why, fix=fix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Since when the machine runs."""

    id: str  #: another one after every start
    uptime_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a reading is told."""

    hot_c: float = 75.0
    too_hot_c: float = 85.0
    space_percent: float = 12.0  #: of a file system, available
    no_space_percent: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at one part."""

    machine: Machine
    part: str
    sections: Mapping[str, Section]  #: of the visit, those that arrived whole
    at: datetime  #: aware UTC, by opsd's clock
    boot: Boot
    is_same_boot: bool = False  #: as at the last look
    kept: Kept = field(default_factory=dict)  #: of the last look at this part
    clock_offset_s: float | None = None  #: its clock minus opsd's, exact to a second
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def at_s(self) -> float:
        """The time of the look in seconds since 1970."""
        return self.at.timestamp()

    def subject(self, deeper: str = "") -> str:
        """Of findings about this part, or something in it."""
        below = f"/{deeper}" if deeper else ""
        return f"{self.machine.subject}/{self.part}{below}"

    def section(self, probe: str, *, what: str) -> Section:
        """A whole answer, whatever it says.

        Raises:
            Unreadable: it was cut off, or sudo refused.
        """
        section = self.sections.get(probe)
        if section is None:
            raise Unreadable(what, "the answer was cut off")
        if section.is_refused and not section.stdout.strip():
            raise Unreadable(what, section.complaint(), "give the right: docs/nodes.md")
        return section

    def text(self, probe: str, *, what: str, statuses: frozenset[int] = frozenset({0})) -> str:
        """What the machine printed.

        Raises:
            Unreadable: it was cut off, refused, took too long or failed.
        """
        section = self.section(probe, what=what)
        if section.status == KILLED:
            raise Unreadable(what, "it did not answer in time, and was ended")
        if section.status not in statuses:
            raise Unreadable(what, section.complaint())
        return section.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a look at one part."""

    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)  #: for the table; units in the keys
    kept: Kept = field(default_factory=dict)  #: for the next look
    unknown: tuple[Unknown, ...] = ()  #: what of it could not be read
    unseen: tuple[str, ...] = ()  #: subjects in it that were not looked at, as a sleeping disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something of a machine that can be unwell."""

    name: str  #: of its findings' subjects: ``machine/NAME/<name>/...``
    probes: tuple[Probe, ...]
    read: Callable[[Look], Answer]  #: raises `Unreadable`
    is_slow: bool = False  #: not asked at every look


def values(text: str) -> dict[str, str]:
    """The last line of each file, from what ``grep -sH .`` prints: ``path:value`` lines."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {path: value.strip() for path, found, value in pairs if found}


def number(text: str | None) -> int | None:
    """A whole number, decimal or ``0x`` hexadecimal; None if it is none."""
    match = re.fullmatch(r"\s*(-?\d+|0[xX][0-9a-fA-F]+)\s*", text or "")
    return int(match[1], 0 if "x" in match[1].lower() else 10) if match else None
