"""Messages that go as soon as there is room for them, and what is known once they have gone.

The text is written only when the message goes: in a storm hundreds of drafts wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo

from opsd.alerts import beliefs, digest, render
from opsd.alerts.render import News
from opsd.alerts.tracking import Key
from opsd.incidents import Event, Incident
from opsd.model import Severity

Tags = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that is not sent yet."""

    severity: Severity
    tags: Tags
    write: Callable[[], tuple[str, str]]  #: title and body
    keys: Collection[Key]  #: the incidents that it tells
    after: Callable[[Incident], Incident]  #: each of them once it has gone
    empties_log: bool = False  #: it tells all events with these tags
    uncounted: int = 0  #: older events that it counts
    is_urgent: bool = False  #: it goes whether there is room or not


def plain(
    news: Sequence[News], tags: Tags, *, empties_log: bool, at: datetime, timezone: tzinfo
) -> Draft:
    """What changed, the worst first; `news` is not empty."""
    news = sorted(news, key=beliefs.order)
    return Draft(
        severity=max(one.reach for one in news),
        tags=tags,
        write=lambda: (render.title(news), render.body(news, at=at, timezone=timezone)),
        keys=[one.incident.key for one in news],
        after=lambda incident: beliefs.told(incident, tags, at=at),
        empties_log=empties_log,
    )


def collected(
    told: digest.Digest,
    tags: Tags,
    *,
    keys: Collection[Key],
    events: Collection[Event],
    at: datetime,
    timezone: tzinfo,
) -> Draft:
    """Everything that was held back; `keys` are those that people learn of by it."""
    return Draft(
        severity=digest.severity(told, events),
        tags=tags,
        write=lambda: (digest.title(told), digest.body(told, at=at, timezone=timezone)),
        keys=keys,
        after=lambda incident: beliefs.told(incident, tags, at=at),
        empties_log=True,
        uncounted=told.uncounted,
    )


def reminder(news: Sequence[News], tags: Tags, *, at: datetime, timezone: tzinfo) -> Draft:
    """What is still open, as bad as it is now; `news` is not empty."""
    now_as_bad = (replace(one, severity=_severity(one)) for one in news)
    news = sorted(now_as_bad, key=beliefs.order)
    return Draft(
        severity=max(one.severity for one in news),
        tags=tags,
        write=lambda: render.reminder(news, at=at, timezone=timezone),
        keys=[one.incident.key for one in news],
        after=lambda incident: replace(incident, told_at=at),
    )


def escalation(
    news: Sequence[News], tags: Tags, *, at: datetime, timezone: tzinfo, is_urgent: bool
) -> Draft:
    """What nobody acknowledged, for somebody else; `news` is not empty."""
    news = sorted(news, key=beliefs.order)
    return Draft(
        severity=Severity.CRITICAL,
        tags=tags,
        write=lambda: render.escalation(news, at=at, timezone=timezone),
        keys=[one.incident.key for one in news],
        after=lambda incident: replace(incident, escalated_at=at),
        is_urgent=is_urgent,
    )


def _severity(news: News) -> Severity:
    """What people believe, or less when it has eased lately."""
    level = news.incident.level
    return news.severity if level is None else min(news.severity, level)
