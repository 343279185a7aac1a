"""What people believe about an incident, and how a message changes that. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from opsd.alerts.render import News
from opsd.incidents import Incident
from opsd.model import Change, Severity
from opsd.triage import JOB_CHECK

_BAD_NEWS_FIRST = (Change.OPENED, Change.WORSENED, Change.EASED, Change.RESOLVED)


def change(incident: Incident, before: Severity | None, after: Severity | None) -> Change:
    """What it is called when the level of `incident` goes from one to another."""
    if before is None or before == after:
        return Change.OPENED
    if after is None:
        return Change.EASED if incident.closed_at is None else Change.RESOLVED
    return Change.WORSENED if after > before else Change.EASED


def news_of(incident: Incident, following: Mapping[str, Sequence[Incident]]) -> News:
    """What people learn when they are told what is noted."""
    what = change(incident, incident.told, incident.noted)
    reaches = [one for one in (incident.told, incident.noted) if one is not None]
    is_over = what is Change.RESOLVED
    return News(
        change=what,
        incident=incident,
        severity=max(reaches) if is_over else incident.noted or Severity.INFO,
        followers=tuple(
            one.finding.subject
            for one in following.get(incident.finding.subject, ())
            if one.key != incident.key and (not is_over or one.level is not None)
        ),
    )


def following(incidents: Iterable[Incident]) -> dict[str, list[Incident]]:
    """By subject: the untold incidents that follow, or followed until now, from it.

    Those that follow from it directly come first.
    """
    found: dict[str, list[Incident]] = {}
    for one in incidents:
        subject = one.follows or (one.finding.cause if one.freed_at is not None else "")
        if subject and one.told is None:
            found.setdefault(subject, []).append(one)
    for subject, ones in found.items():
        ones.sort(key=lambda one: one.finding.cause != subject)
    return found


def told(incident: Incident, tags: tuple[str, ...], *, at: datetime) -> Incident:
    """The incident once people with `tags` were told what is noted."""
    before, after = incident.told, incident.noted
    if before == after:
        return replace(incident, told_at=at)
    known = replace(incident, told=after, told_at=at, muted_by="")
    if after is None:
        return replace(
            known,
            told_to=None,
            first_told_at=None,
            acknowledged=None,
            escalated_at=None,
            comebacks=0,
        )
    known = replace(known, told_to=union(tags, incident.told_to or tags))
    if before is None or after > before:
        acknowledged = incident.acknowledged if before is None else None
        known = replace(
            known, first_told_at=at, escalated_at=None, freed_at=None, acknowledged=acknowledged
        )
    return known


def union(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Tags that reach everybody whom either reaches; none reaches all."""
    return tuple(sorted({*some, *others})) if some and others else ()


def order(news: News) -> tuple[bool, int, bool, int, str, str]:
    """Bad news first, the worst of it first, and a cause before the run that it failed."""
    finding = news.incident.finding
    return (
        news.change in (Change.EASED, Change.RESOLVED),
        -news.severity,
        finding.check == JOB_CHECK,
        _BAD_NEWS_FIRST.index(news.change),
        finding.check,
        finding.subject,
    )
