"""Messages that are read half asleep on a phone: first what to do, then why, then how.

Plain text without markup, because a service that dislikes a character in a markup refuses
the whole message. Names from the world are made printable first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo

from opsd.model import Change, Fact, Finding, Severity, Transition
from opsd.text import printable, shortened

TITLE_CHARACTERS = 200
FINDINGS_SHOWN = 5
FACTS_SHOWN = 4
_FACT_CHARACTERS = 80
_TEXT_CHARACTERS = 300

_URGENCY = {
    Severity.CRITICAL: "Act now",
    Severity.WARNING: "Act within days",
    Severity.INFO: "For information",
}
_GOOD_NEWS = {Change.RESOLVED: "Resolved", Change.EASED: "Less urgent"}


def title(changes: Sequence[Transition]) -> str:
    """What to do, in one line; `changes` is not empty and comes worst first."""
    first = changes[0]
    what = printable(first.finding.summary)
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    room = TITLE_CHARACTERS - len(f"{_heading(first)}: {more}")
    return f"{_heading(first)}: {shortened(what, room)}{more}"


def body(changes: Sequence[Transition], *, at: datetime, timezone: tzinfo) -> str:
    """The evidence and the next command of the first few changes; plain text."""
    parts = [_paragraph(change, at=at, timezone=timezone) for change in changes[:FINDINGS_SHOWN]]
    hidden = len(changes) - len(parts)
    if hidden:
        parts.append(f"and {hidden} more: opsd findings")
    jobs = ", ".join(dict.fromkeys(printable(change.job) for change in changes))
    return "\n\n".join((*parts, f"found by {jobs}"))


def lasting(duration: timedelta) -> str:
    """A duration in its two largest units: ``2 d 4 h``, ``3 h 5 min``, ``40 s``."""
    seconds = max(0, int(duration.total_seconds()))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
    return " ".join(part for part in parts[:2] if part) or "0 s"


def _heading(change: Transition) -> str:
    return _GOOD_NEWS.get(change.change) or _URGENCY[change.finding.severity]


def _paragraph(change: Transition, *, at: datetime, timezone: tzinfo) -> str:
    finding = change.finding
    lines = [
        f"{_heading(change)}: {shortened(printable(finding.summary), _TEXT_CHARACTERS)}",
        f"{printable(finding.subject)}, {_age(change, at=at, timezone=timezone)}",
    ]
    if change.change is not Change.RESOLVED:
        lines.extend(_evidence(finding))
        if finding.remedy:
            lines.append(f"Next: {shortened(printable(finding.remedy), _TEXT_CHARACTERS)}")
    return "\n".join(lines)


def _age(change: Transition, *, at: datetime, timezone: tzinfo) -> str:
    since = f"since {change.opened_at.astimezone(timezone):%a %d %b %H:%M %Z}"
    if change.change is Change.OPENED:
        return since
    ended = "lasted" if change.change is Change.RESOLVED else "for"
    return f"{since}, {ended} {lasting(at - change.opened_at)}"


def _evidence(finding: Finding) -> list[str]:
    shown = [
        (name, value)
        for name, value in finding.facts.items()
        if value not in (None, "") and not _is_said(value, finding.summary)
    ]
    return [f"{printable(name)}: {_fact(value)}" for name, value in shown[:FACTS_SHOWN]]


def _is_said(value: Fact, summary: str) -> bool:
    return isinstance(value, str) and value in summary


def _fact(value: Fact) -> str:
    return shortened(printable(str(value)), _FACT_CHARACTERS)
