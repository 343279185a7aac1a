"""`opsd status --html`: the state of everything as one page that needs nothing else.

The first question is whether everything can be got back; what is wrong comes next, with the
next command. No script, no file from anywhere: it can be sent, stored and read on a phone.

Limits: it is as old as it says. What could not be told is told as that, and never as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import jinja2

from opsd.cli.render import Tone

TONES = {
    Tone.PLAIN: "plain",
    Tone.GOOD: "good",
    Tone.WARNING: "warning",
    Tone.BAD: "bad",
    Tone.DIM: "plain",
    Tone.TITLE: "plain",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word and what it means: good, warning, bad or neither."""

    text: str
    tone: str = "plain"  #: one of the values of `TONES`


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The newest backup of something in one repository."""

    repository: str
    age: str  #: ``3 h ago``
    at: str  #: the exact time
    size: str
    proof: Word  #: how far it is proven


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something that one may want back."""

    kind: str  #: ``database``
    name: str  #: ``main/shop``
    state: Word
    newest: str  #: age of its newest good backup; ``none``
    wanted: str  #: ``every 24 h``; empty when that is not known
    restored: str  #: how long ago one was restored and compared; ``never``
    copies: tuple[Copy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that a person should know, with what follows from it."""

    severity: Word
    subject: str
    summary: str
    since: str
    found_by: str
    remedy: str = ""
    mark: str = ""  #: who deals with it
    facts: tuple[tuple[str, str], ...] = ()
    effects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One job."""

    name: str
    summary: str
    last: Word
    when: str
    following: str
    took: str
    bars: tuple[int, ...] = ()  #: how long the last runs took, oldest first, in percent
    note: str = ""  #: what holds it back, or went wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine."""

    name: str
    state: Word
    areas: tuple[tuple[str, Word], ...]  #: ``patches`` and what is said of it
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Everything that the page says."""

    verdict: Word
    at: str
    version: str
    notes: tuple[Word, ...] = ()  #: what could not be told, and about opsd itself
    things: tuple[Thing, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    works: tuple[Work, ...] = ()
    machines: tuple[Machine, ...] = ()
    upgrade: tuple[Trouble, ...] = ()
    silenced: tuple[str, ...] = ()


def rendered(status: Status) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("opsd.cli.page", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("status.html").render(status=status)
