"""One visit to one machine, judged part by part.

A part that cannot be read, or whose answer makes no sense, is unknown: it is told with its
reason, and what is open about it stays open. So it is for a whole machine that does not answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from opsd.errors import TransientError
from opsd.hosts.fleet import Visit
from opsd.hosts.health import (
    boots,
    clock,
    disks,
    filesystems,
    flash,
    kernellog,
    memory,
    network,
    pools,
    power,
    pressure,
    raid,
    temperature,
)
from opsd.hosts.health.look import (
    STEADY,
    Answer,
    Boot,
    Kept,
    Look,
    Part,
    Thresholds,
    Unknown,
    Unreadable,
)
from opsd.hosts.health.record import Record, Slow
from opsd.hosts.machine import Role
from opsd.hosts.script import Script
from opsd.model import Fact, Finding, Seen, Severity, Unseen
from opsd.text import printable, shortened

PARTS: tuple[Part, ...] = (
    boots.PART,  # first: all others need it
    power.PART,
    temperature.PART,
    memory.PART,
    filesystems.PART,
    flash.PART,
    raid.PART,
    pools.PART,
    network.PART,
    clock.PART,
    pressure.PART,
    kernellog.PART,
    disks.PART,  # last: a disk that hangs costs nothing but itself
)
NAMES = tuple(part.name for part in PARTS[1:])
_FIX_WIDTH = 400  # characters of all fixes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What came of it."""

    observations: tuple[Finding | Seen | Unseen, ...]
    record: Record  #: for the next one


def script(parts: Iterable[Part]) -> Script:
    """Ask a machine about these parts."""
    return Script.of(probe for part in parts for probe in part.probes)


def check(
    visit: Visit,
    *,
    before: Record,
    at: datetime,
    parts: Sequence[Part] = PARTS,
    asked: Sequence[Part] = PARTS,
    thresholds: Thresholds,
) -> Checkup:
    """Judge what a machine answered.

    Args:
        visit: to the machine.
        before: what is known of it.
        at: now, aware UTC.
        parts: what is of interest at all.
        asked: those of them that were asked about this time.
        thresholds: from where on a reading is told.
    """
    machine = visit.machine
    if not visit.sections:
        return Checkup(
            observations=(_unreachable(visit), Unseen(subject=machine.subject)), record=before
        )
    try:
        boot = boots.boot_of(visit.sections.get(boots.PROBE))
    except Unreadable as exc:
        finding = _not_read(visit, [exc.unknown])
        return Checkup(observations=(finding, Unseen(subject=machine.subject)), record=before)
    checking = _Checking(visit, before, at, boot=boot, thresholds=thresholds)
    for part in parts:
        checking.look(part, is_asked=part in asked)
    return checking.result()


class _Checking:
    """One check-up under way."""

    def __init__(
        self, visit: Visit, before: Record, at: datetime, *, boot: Boot, thresholds: Thresholds
    ) -> None:
        self._visit, self._before, self._at = visit, before, at
        self._boot, self._thresholds = boot, thresholds
        self._found: list[Finding] = []
        self._told: list[tuple[int, str]] = []
        self._unseen: list[str] = []
        self._unknown: list[Unknown] = []
        self._facts: dict[str, Fact] = {}
        self._kept: dict[str, Kept] = {}
        self._slow: dict[str, Slow] = {}

    def look(self, part: Part, *, is_asked: bool) -> None:
        """Judge one part, or repeat what is known of it."""
        look = Look(
            machine=self._visit.machine,
            part=part.name,
            sections=self._visit.sections,
            at=self._at,
            boot=self._boot,
            is_same_boot=self._boot.id == self._before.boot_id,
            kept=self._before.kept.get(part.name, {}),
            clock_offset_s=self._visit.clock_offset_s,
            thresholds=self._thresholds,
        )
        answer = _read(part, look) if is_asked else _repeated(part, look, self._before)
        self._found.extend(answer.findings)
        told = tuple((int(one.severity), one.summary) for one in answer.findings)
        self._facts.update(answer.facts)
        self._unknown.extend(answer.unknown)
        self._kept[part.name] = answer.kept
        whole = (look.subject(),) if answer.unknown or not is_asked else ()
        self._unseen.extend((*whole, *answer.unseen))
        if part.is_slow and is_asked:
            self._slow[part.name] = Slow(
                read_at=self._at, facts=answer.facts, unknown=answer.unknown, told=told
            )
        elif part.name in self._before.slow:
            self._slow[part.name] = self._before.slow[part.name]
            told = self._slow[part.name].told
        self._told.extend(told)

    def result(self) -> Checkup:
        """All of it."""
        machine = self._visit.machine
        unknown = [_not_read(self._visit, self._unknown)] if self._unknown else []
        state = Finding(
            check="health.state",
            subject=machine.subject,
            severity=Severity.INFO,
            summary=_state(self._told, self._unknown, self._facts),
            facts={
                **self._facts,
                "not_read": ", ".join(dict.fromkeys(one.what for one in self._unknown)) or None,
            },
        )
        unseen = tuple(Unseen(subject=subject) for subject in dict.fromkeys(self._unseen))
        return Checkup(
            observations=(*self._found, *unknown, state, *unseen),
            record=Record(boot_id=self._boot.id, kept=self._kept, slow=self._slow),
        )


def _read(part: Part, look: Look) -> Answer:
    try:
        return part.read(look)
    except Unreadable as exc:
        unknown = exc.unknown
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        if look.kept:  # another release may have left something else
            return _read(part, replace(look, kept={}))
        why = f"its answer makes no sense ({type(exc).__name__}: {exc})"
        unknown = Unknown(what=part.name, why=shortened(printable(why), 120))
    return Answer(kept=look.kept, unknown=(unknown,))


def _repeated(part: Part, look: Look, before: Record) -> Answer:
    slow = before.slow.get(part.name)
    if slow is None:
        return Answer(kept=look.kept)
    return Answer(kept=look.kept, facts=slow.facts, unknown=slow.unknown)


def _state(
    told: Sequence[tuple[int, str]], unknown: Sequence[Unknown], facts: Mapping[str, Fact]
) -> str:
    """The line of the table: the worst first."""
    if told:
        _, worst = max(told, key=lambda one: one[0])
        more = f", and {len(told) - 1} more" if len(told) > 1 else ""
        return shortened(worst, 120 - len(more)) + more
    parts = ", ".join(dict.fromkeys(one.what for one in unknown))
    figures = [f"{facts['temperature_c']} °C"] if "temperature_c" in facts else []
    if "fullest" in facts:
        figures.append(f"{facts['fullest']} has {facts['fullest_available_percent']} % left")
    said = f"nothing found; not read: {parts}" if parts else "healthy"
    return shortened(printable(f"{said} ({', '.join(figures)})" if figures else said), 120)


def _not_read(visit: Visit, unknown: Sequence[Unknown]) -> Finding:
    """One finding for all that could not be read of a machine."""
    machine = visit.machine
    names = ", ".join(dict.fromkeys(one.what for one in unknown))
    fixes = dict.fromkeys(one.fix for one in unknown if one.fix)
    reasons = {one.what.replace(" ", "_"): printable(one.why) for one in unknown}
    if visit.problem is not None:
        reasons["visit"] = printable(str(visit.problem))
    return Finding(
        check="health.unknown",
        subject=f"{machine.subject}/health",
        severity=Severity.WARNING,
        summary=shortened(printable(f"not known of {machine.name}: {names}"), 120),
        remedy=shortened(printable("; ".join(fixes)), _FIX_WIDTH)
        or f"opsd nodes check {machine.name}",
        facts=reasons,
        steady_for=STEADY,
    )


def _unreachable(visit: Visit) -> Finding:
    """A machine that nothing was read from."""
    machine, problem = visit.machine, visit.problem
    text = printable(str(problem or "it said nothing"))
    # "log in to rpi3 (opsd@10.0.0.3): no answer": who and where is told anyway.
    reason = text.partition("): ")[2] or text
    is_away = problem is None or isinstance(problem, TransientError)
    is_vital = bool(machine.roles & {Role.NFS_SERVER, Role.CONTROL_PLANE})
    return Finding(
        check="machine.unreachable",
        subject=machine.subject,
        severity=Severity.CRITICAL if is_away and is_vital else Severity.WARNING,
        summary=shortened(f"{machine.name} cannot be asked: {reason}", 120),
        remedy=f"opsd nodes check {machine.name}",
        facts={
            "address": machine.address,
            "port": machine.port,
            "roles": ", ".join(sorted(machine.roles)),
            "problem": text,
        },
        cause=f"machine/{visit.blocked_by}" if visit.blocked_by else machine.node_subject,
        steady_for=STEADY,
    )


def is_due(record: Record, part: Part, *, at: datetime, every: timedelta) -> bool:
    """Whether a slow part is asked about again."""
    slow = record.slow.get(part.name)
    return slow is None or not timedelta(0) <= at - slow.read_at < every
