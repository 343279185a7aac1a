"""What is worth a message now: the difference between what people believe and what is. Pure.

`advance` compares the incidents (what people were told) with the open findings (what is) and
returns messages that bring one to the other. It is called after every run and by the daemon
every few seconds, with the same result whoever calls it: what was told is not told again, and
what could not be told yet is told later, because the difference stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from opsd.alerts import render
from opsd.incidents import AlertState, Incident
from opsd.model import Change, Message, OpenFinding, Severity, Transition
from opsd.triage import JOB_CHECK

_BAD_NEWS_FIRST = (Change.OPENED, Change.WORSENED, Change.EASED, Change.RESOLVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the messages about some findings go."""

    checks: tuple[str, ...] = ("*",)  #: patterns with ``*`` and ``?``
    subjects: tuple[str, ...] = ("*",)  #: likewise
    min_severity: Severity = Severity.WARNING
    to: tuple[str, ...]  #: tags or names of targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """A time that comes again, in which work on some subjects is expected to disturb them."""

    name: str
    schedule: str  #: cron expression: when it begins
    duration: timedelta
    subjects: tuple[str, ...] = ()  #: patterns; not told meanwhile
    jobs: tuple[str, ...] = ()  #: patterns; not started meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the owner wants to be told. Plain values, so that it travels as JSON."""

    timezone: str = "UTC"
    quiet_hours: str = ""  #: ``22:00-07:00``, local time; empty for none
    remind_critical: timedelta | None = timedelta(hours=4)
    remind_warning: timedelta | None = timedelta(days=1)
    escalate_after: timedelta = timedelta(minutes=30)
    escalate_to: tuple[str, ...] = ()  #: tags; none: nothing is escalated
    max_per_hour: int = 12
    routes: tuple[Route, ...] = ()  #: the first that fits; none fits: to all targets
    maintenance: tuple[Maintenance, ...] = ()
    report: str = ""  #: cron expression of the regular report; empty for none


def advance(
    alerts: AlertState, open_findings: Sequence[OpenFinding], now: datetime, *, policy: Policy
) -> tuple[AlertState, tuple[Message, ...]]:
    """What people know after this, and the messages that make them know it.

    Args:
        alerts: what they were told.
        open_findings: what is open.
        now: aware UTC.
        policy: how they want to be told.
    """
    incidents = {incident.key: incident for incident in alerts.incidents}
    truth = {(entry.job, *entry.finding.key): entry for entry in open_findings}
    told = sorted(_differences(incidents, truth), key=_order)
    for key in incidents.keys() - truth.keys():
        del incidents[key]
    for key, entry in truth.items():
        incidents[key] = _believed(incidents.get(key), entry, now=now)
    after = replace(alerts, incidents=tuple(incidents[key] for key in sorted(incidents)))
    if not told:
        return after, ()
    after = replace(after, generation=alerts.generation + 1)
    message = Message(
        key=f"alert/{after.generation}",
        severity=max(map(_reach, told)),
        title=render.title(told),
        body=render.body(told, at=now, timezone=ZoneInfo(policy.timezone)),
    )
    return after, (message,)


def _differences(
    incidents: dict[tuple[str, str, str], Incident],
    truth: dict[tuple[str, str, str], OpenFinding],
) -> Iterator[Transition]:
    for key in incidents.keys() | truth.keys():
        change = _difference(incidents.get(key), truth.get(key))
        if change is not None and _reach(change) > Severity.INFO:
            yield change


def _difference(incident: Incident | None, entry: OpenFinding | None) -> Transition | None:
    believed = incident.told if incident else None
    actual = entry.finding.severity if entry else None
    if believed == actual:
        return None
    source = entry or incident
    assert source is not None  # noqa: S101 - one of them differs from nothing
    if believed is None:
        change = Change.OPENED
    elif actual is None:
        change = Change.RESOLVED
    else:
        change = Change.WORSENED if actual > believed else Change.EASED
    return Transition(
        change=change, finding=source.finding, job=source.job, opened_at=source.opened_at
    )


def _believed(incident: Incident | None, entry: OpenFinding, *, now: datetime) -> Incident:
    severity = entry.finding.severity
    if incident is None:
        return Incident(
            job=entry.job,
            finding=entry.finding,
            opened_at=entry.opened_at,
            told=severity,
            first_told_at=now,
            told_at=now,
        )
    told_at = incident.told_at if incident.told == severity else now
    return replace(incident, finding=entry.finding, told=severity, told_at=told_at)


def _reach(change: Transition) -> Severity:
    """The severity of the people who must hear it: also those who heard the worse news."""
    if change.change is Change.EASED:
        return Severity(change.finding.severity + 1)
    return change.finding.severity


def _order(change: Transition) -> tuple[bool, int, bool, int, str, str]:
    """Bad news first, the worst of it first, and a cause before the run that it failed."""
    finding = change.finding
    return (
        change.change in (Change.EASED, Change.RESOLVED),
        -finding.severity,
        finding.check == JOB_CHECK,
        _BAD_NEWS_FIRST.index(change.change),
        finding.check,
        finding.subject,
    )
