"""One look at the packages of one machine: what it answered, and what is told about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from opsd.hosts.lifetimes import Lifetimes
from opsd.hosts.machine import Machine
from opsd.hosts.packages.answers import text, whole
from opsd.hosts.script import Probe, Section
from opsd.model import Fact, Finding, Severity
from opsd.text import printable, shortened

NAMES_SHOWN = 2  # in a summary, which has 120 characters
NAMES_KEPT = 40  # in the facts
_SUMMARY_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything that is judged."""

    machine: Machine
    sections: Mapping[str, Section]  #: of the visit, those that arrived whole
    at: datetime  #: aware UTC, by opsd's clock
    lifetimes: Lifetimes
    kubelet: str = ""  #: version that runs, as the cluster says; empty: it was not asked

    def text(self, probe: str, *, root: str = "") -> str:
        """What it printed.

        Raises:
            Unreadable: nothing, or it failed.
        """
        return text(self.sections, probe, root=root)

    def section(self, probe: str, *, root: str = "") -> Section:
        """Its whole answer, whatever its exit status.

        Raises:
            Unreadable: it was cut off, refused, or took too long.
        """
        return whole(self.sections, probe, root=root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Something that is told once, with the names of the machines that it is true of."""

    check: str
    subject: str
    summary: str
    remedy: str
    severity: Severity
    facts: Mapping[str, Fact] = field(default_factory=dict)
    machine: str = ""  #: one of them


def together(shared: Iterable[Shared]) -> Iterator[Finding]:
    """One finding for each thing, whatever the number of its machines."""
    by_key: dict[tuple[str, str], list[Shared]] = {}
    for one in shared:
        by_key.setdefault((one.check, one.subject), []).append(one)
    for same in by_key.values():
        names = sorted(one.machine for one in same)
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        first = max(same, key=lambda one: (one.severity, one.summary))
        text = f"{first.summary}: {', '.join(names[:NAMES_SHOWN])}{more}"
        yield Finding(
            check=first.check,
            subject=printable(first.subject),
            severity=first.severity,
            summary=shortened(printable(text), _SUMMARY_CHARACTERS),
            remedy=printable(first.remedy),
            facts=written({**first.facts, "machines": ", ".join(names[:NAMES_KEPT])}),
        )


def written(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Facts whose texts may be shown."""
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in facts.items()
    }


@dataclass(slots=True)
class Report:
    """What is told about one part of a machine. Filled while it is looked at."""

    machine: Machine
    part: str
    findings: list[Finding] = field(default_factory=list)
    shared: list[Shared] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)  #: for the table; units in the keys

    @property
    def subject(self) -> str:
        """Of what is told."""
        return f"{self.machine.subject}/{self.part}"

    def tell(
        self,
        check: str,
        summary: str,
        remedy: str,
        *,
        severity: Severity = Severity.WARNING,
        below: str = "",
        steady_for: timedelta = timedelta(0),
        cause: str = "",
        facts: Mapping[str, Fact] | None = None,
    ) -> None:
        """Add a finding; the summary is completed by the machine's name."""
        self.findings.append(
            Finding(
                check=check,
                subject=printable(f"{self.subject}/{below}" if below else self.subject),
                severity=severity,
                summary=shortened(
                    printable(f"{self.machine.name}: {summary}"), _SUMMARY_CHARACTERS
                ),
                remedy=printable(remedy),
                cause=cause,
                steady_for=steady_for,
                facts=written(facts or {}),
            )
        )

    def share(self, shared: Shared) -> None:
        """Add something that is likely true of other machines too, and told once for all."""
        self.shared.append(shared)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something about the packages of a machine that is judged for itself."""

    name: str  #: of its subject: ``machine/NAME/<name>``
    what: str  #: cannot be told, when it cannot be read
    probes: tuple[Probe, ...]
    judge: Callable[[Look, Report], None]  #: raises `Unreadable`
    #: Of its being unknown; INFO for what only adds to what else is known.
    unknown: Severity = Severity.WARNING
    shared: str = ""  #: subject, or the beginning of it, of what it tells of many machines at once


def count(number: int, noun: str) -> str:
    """``3 updates``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def days(duration: timedelta) -> str:
    """``4 days``, ``7 hours``."""
    if duration < timedelta(hours=36):
        return count(round(duration / timedelta(hours=1)), "hour")
    return count(round(duration / timedelta(days=1)), "day")
