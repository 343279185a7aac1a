"""One question before an upgrade, its answer, and what the answer rests on.

A check is a value: its judge is a pure function of the facts and of one hop, and yields one
note for each thing it looked at. The worst note is the result. A judge that has nothing to look
at says so (`skipped`); one that says nothing at all has not looked, and is unknown.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from opsd.hosts.script import Probe
from opsd.text import printable, shortened
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Minor

if TYPE_CHECKING:
    from opsd.upgrade.facts import Facts

T = TypeVar("T")

VALUE_CHARACTERS = 300  # of one piece of evidence
TO_READ = "mend what keeps opsd from reading it, and look again"


class Status(enum.IntEnum):
    """What came of a check, or of one thing that it looked at; the highest one counts."""

    SKIPPED = 0  #: there is nothing here that it is about
    PASS = 1
    WARN = 2  #: it does not stop the upgrade; somebody should know
    UNKNOWN = 3  #: it could not be read, which is never a pass
    FAIL = 4  #: the upgrade would break, or break something

    @property
    def label(self) -> str:
        """Lower-case name, as in JSON."""
        return self.name.lower()


class Scope(enum.Enum):
    """What a check is about."""

    NOW = "now"  #: the cluster as it is: judged once, whatever the target
    HOP = "hop"  #: one step from a minor release to the next: judged for each


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One step of an upgrade: kubeadm takes one minor release at a time."""

    start: Minor
    target: Minor
    is_first: bool = True  #: it starts from the cluster as it is, not from an earlier hop

    def __str__(self) -> str:
        return f"{self.start} → {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing that a check looked at."""

    status: Status
    where: str  #: ``kube-system/pod etcd-rpi1``, ``rpi3:/var/lib/kubelet/config.yaml``
    value: str  #: what is there, for people
    fix: str = ""  #: what to do about just this; empty: as the check says


def passed(where: str, value: str) -> Note:
    """It is as it should be."""
    return Note(status=Status.PASS, where=where, value=value)


def skipped(where: str, value: str) -> Note:
    """There is nothing of this kind here."""
    return Note(status=Status.SKIPPED, where=where, value=value)


def warned(where: str, value: str, *, fix: str = "") -> Note:
    """It does not stop the upgrade."""
    return Note(status=Status.WARN, where=where, value=value, fix=fix)


def unknown(where: str, why: str, *, fix: str = "") -> Note:
    """It could not be read."""
    return Note(status=Status.UNKNOWN, where=where, value=why, fix=fix)


def failed(where: str, value: str, *, fix: str = "") -> Note:
    """It would break."""
    return Note(status=Status.FAIL, where=where, value=value, fix=fix)


def each(items: Iterable[T], judge: Callable[[T], Iterable[Note]]) -> Iterator[Note]:
    """Judge many things; one that cannot be read is unknown and does not hide the others."""
    for item in items:
        try:
            yield from judge(item)
        except Unreadable as exc:
            yield unknown(exc.where, exc.why, fix=exc.fix)


Judge = Callable[["Facts", Hop], Iterator[Note]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A question, and how it is answered."""

    id: str  #: stable, kebab-case; its finding is ``upgrade.ID``
    title: str  #: what is so when it passes: ``Kubelets are within three minors``
    row: int  #: of the table in docs/upgrades.md
    judge: Judge
    fix: str  #: what to do when it does not pass
    source: str  #: where the rule comes from
    probes: tuple[Probe, ...] = ()  #: what it needs to be asked of every node
    scope: Scope = Scope.NOW
    unknown_blocks: bool = False  #: to start without knowing it would be a gamble with the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a check, for one hop or for the cluster as it is."""

    check: Check
    target: Minor | None  #: of the hop; None: of the cluster as it is
    status: Status
    notes: tuple[Note, ...]  #: the worst first

    @property
    def blocks(self) -> bool:
        """Whether nobody should start before it is mended."""
        is_gamble = self.status is Status.UNKNOWN and self.check.unknown_blocks
        return self.status is Status.FAIL or is_gamble

    @property
    def worst(self) -> tuple[Note, ...]:
        """The notes that made it what it is."""
        return tuple(note for note in self.notes if note.status is self.status)

    @property
    def fix(self) -> str:
        """What to do."""
        own = next((note.fix for note in self.worst if note.fix), "")
        if own or self.status is not Status.UNKNOWN:
            return own or self.check.fix
        return TO_READ


def judged(check: Check, facts: Facts, hop: Hop) -> Result:
    """Ask a check about one hop."""
    notes: list[Note] = []
    try:
        notes.extend(_tidy(note) for note in check.judge(facts, hop))
    except Unreadable as exc:
        notes.append(_tidy(unknown(exc.where, exc.why, fix=exc.fix)))
    if not notes:
        notes.append(unknown(check.id, "the check said nothing: report it as a defect of opsd"))
    notes.sort(key=lambda note: -note.status)
    return Result(
        check=check,
        target=hop.target if check.scope is Scope.HOP else None,
        status=notes[0].status,
        notes=tuple(notes),
    )


def _tidy(note: Note) -> Note:
    """Names and values come from the world: one line each, and not endless."""
    return Note(
        status=note.status,
        where=shortened(printable(note.where), VALUE_CHARACTERS),
        value=shortened(printable(note.value), VALUE_CHARACTERS),
        fix=note.fix,
    )
