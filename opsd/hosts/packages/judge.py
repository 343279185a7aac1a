"""Everything that is asked of a machine about its packages, and everything that is told of it.

What could not be read is told with its reason, once for each reason, and nothing that was open
there is taken to be over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from opsd.hosts.fleet import Visit
from opsd.hosts.lifetimes import Lifetimes
from opsd.hosts.machine import Machine
from opsd.hosts.packages import kubernetes, running, updates, upkeep
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.look import Look, Part, Report, Shared, written
from opsd.hosts.script import Script
from opsd.model import Fact, Finding, Severity, Unseen
from opsd.text import printable

PARTS: tuple[Part, ...] = (updates.PART, kubernetes.PART, *upkeep.PARTS, *running.PARTS)
AREA = "patches"


def script() -> Script:
    """All questions together."""
    return Script.of(probe for part in PARTS for probe in part.probes)


def judge(
    visit: Visit, *, at: datetime, lifetimes: Lifetimes, kubelet: str = ""
) -> Iterator[Finding | Unseen | Shared]:
    """Tell everything about one machine.

    Args:
        visit: with the answers to `script`.
        at: now, by opsd's clock, aware UTC.
        lifetimes: when releases end.
        kubelet: the version that runs on it, as the cluster says; empty: not known.
    """
    look = Look(
        machine=visit.machine,
        sections=visit.sections,
        at=at,
        lifetimes=lifetimes,
        kubelet=kubelet,
    )
    facts: dict[str, Fact] = {}
    reasons: set[str] = set()
    if not visit.sections:
        yield from _unread(visit)
        return
    for part in PARTS:
        report = Report(machine=visit.machine, part=part.name)
        try:
            part.judge(look, report)
        except Unreadable as exc:
            why = f"{exc}: {visit.problem}" if visit.problem else str(exc)
            if why not in reasons:
                _tell_unknown(report, part, why, exc.fix)
                reasons.add(why)
            yield from _unseen(report.subject, part.shared)
        yield from report.findings
        yield from report.shared
        facts |= report.facts
    yield state(visit.machine, facts)


def _unread(visit: Visit) -> Iterator[Finding | Unseen]:
    """Nothing at all was answered."""
    machine = visit.machine
    why = str(visit.problem or "it answered nothing")
    report = Report(machine=machine, part=AREA)
    report.tell(
        "patches.unknown",
        f"its updates cannot be told: {why}",
        f"opsd nodes check {machine.name}",
        cause=machine.subject,
        facts={"why": why},
    )
    yield from report.findings
    yield from _unseen(machine.subject, *(part.shared for part in PARTS))


def _unseen(*subjects: str) -> Iterator[Unseen]:
    """What is told of many machines may still be true of this one."""
    return (Unseen(subject=subject) for subject in subjects if subject)


def _tell_unknown(report: Report, part: Part, why: str, fix: str) -> None:
    name = report.machine.name
    report.tell(
        "patches.unknown",
        f"cannot tell {part.what}: {why}",
        f"on {name}: {fix}" if fix else f"opsd nodes check {name}",
        severity=part.unknown,
        facts={"why": printable(why)},
    )


def state(machine: Machine, facts: Mapping[str, Fact]) -> Finding:
    """One line for the table of machines."""
    return Finding(
        check="patches.state",
        subject=machine.subject,
        severity=Severity.INFO,
        summary=_short(facts),
        facts=written(facts),
    )


def _short(facts: Mapping[str, Fact]) -> str:
    if facts.get("pending") is None:
        patched = "updates unknown"
    elif facts["pending"] == 0 and facts.get("security") is None:
        patched = "no updates known"  # and nothing would mark a security fix
    elif facts["pending"] == 0 and facts["security"] == 0:
        patched = "up to date"
    elif facts.get("security") is None:
        patched = f"{facts['pending']} updates"
    else:
        patched = f"{facts['pending']} updates, {facts['security']} for security"
    return f"{patched}, needs a reboot" if facts.get("reboot") else patched
