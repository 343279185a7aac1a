"""Messages that are read half asleep on a phone: first what to do, then why, then how.

Plain text without markup, because a service that dislikes a character in a markup refuses
the whole message. Names from the world are made printable first. What does not fit is
shortened to a line, then counted; never left out without a word.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from opsd.incidents import Incident
from opsd.model import Change, Fact, Finding, Severity
from opsd.text import printable, shortened

TITLE_CHARACTERS = 200
BODY_CHARACTERS = 3500
FINDINGS_SHOWN = 5
FACTS_SHOWN = 4
DOCS = "docs/"  # where the pages lie, seen from the place where this program was unpacked
_FACT_CHARACTERS = 80
_NAME_CHARACTERS = 40
_TEXT_CHARACTERS = 240
_LINE_CHARACTERS = 160
_PARAGRAPHS_CHARACTERS = 2400  # leaves room for lines about what has no paragraph
_TAIL_CHARACTERS = 300  # how many there are besides, and who found all that

_URGENCY = {
    Severity.CRITICAL: "Act now",
    Severity.WARNING: "Act within days",
    Severity.INFO: "For information",
}
_GOOD_NEWS = {Change.RESOLVED: "Resolved", Change.EASED: "Less urgent"}


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A change of what people believe about an incident."""

    change: Change
    incident: Incident  #: as it stood before they were told
    severity: Severity  #: what they believe from now on; RESOLVED: what they believed so far
    followers: tuple[str, ...] = ()  #: subjects that follow from it and are not told themselves

    @property
    def reach(self) -> Severity:
        """The severity of the people who must hear it: also those who heard the worse news."""
        if self.change is Change.EASED and self.incident.told is not None:
            return self.incident.told
        return self.severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Something to tell, in two lengths."""

    paragraph: str
    line: str


def title(news: Sequence[News]) -> str:
    """What to do, in one line; `news` is not empty and comes worst first."""
    first = news[0]
    more = f" (and {len(news) - 1} more)" if len(news) > 1 else ""
    return headline(heading(first), first.incident.finding.summary, more)


def headline(start: str, what: str, end: str = "") -> str:
    """A title: ``start: what end``; only `what` is shortened."""
    room = TITLE_CHARACTERS - len(f"{start}: {end}")
    return f"{start}: {shortened(printable(what), room)}{end}"


def body(news: Sequence[News], *, at: datetime, timezone: tzinfo) -> str:
    """The evidence and the next command of the first few; a line or a number for the others."""
    blocks = [block(one, at=at, timezone=timezone) for one in news]
    return "\n\n".join((fitted(blocks), found_by([one.incident for one in news])))


def reminder(news: Sequence[News], *, at: datetime, timezone: tzinfo) -> tuple[str, str]:
    """Title and body about what is still open; the title speaks of the oldest."""
    oldest = min(news, key=lambda one: one.incident.opened_at).incident
    more = f" (and {len(news) - 1} more)" if len(news) > 1 else ""
    head = headline(
        "Still open", oldest.finding.summary, f", for {lasting(at - oldest.opened_at)}{more}"
    )
    return head, _repeated(news, at=at, timezone=timezone)


def escalation(news: Sequence[News], *, at: datetime, timezone: tzinfo) -> tuple[str, str]:
    """Title and body for somebody else, because nobody acknowledged; worst first."""
    told_at = min(one.incident.first_told_at or at for one in news)
    more = f" (and {len(news) - 1} more)" if len(news) > 1 else ""
    start = f"Nobody has acknowledged for {lasting(at - told_at)}"
    text = _repeated(news, at=at, timezone=timezone)
    return headline(start, news[0].incident.finding.summary, more), text


def _repeated(news: Sequence[News], *, at: datetime, timezone: tzinfo) -> str:
    blocks = [
        block(one, at=at, timezone=timezone, start=f"Still open, {urgency(one.severity).lower()}")
        for one in news
    ]
    subject = printable(news[0].incident.finding.subject) if len(news) == 1 else "SUBJECT"
    seen = f"I take care of it: opsd ack {shlex.quote(shortened(subject, _LINE_CHARACTERS))}"
    return "\n\n".join((fitted(blocks), seen, found_by([one.incident for one in news])))


def block(news: News, *, at: datetime, timezone: tzinfo, start: str = "") -> Block:
    """One change; `start` replaces the words that it begins with."""
    finding = news.incident.finding
    first = f"{start or heading(news)}: {_text(finding.summary)}"
    lines = [first, f"{_subject(finding)}, {_age(news, at=at, timezone=timezone)}"]
    if news.change is not Change.RESOLVED:
        lines.extend(_evidence(finding))
    if news.followers:
        lines.append(f"{_FOLLOWING[news.change]}: {_several(news.followers)}")
    if news.change is not Change.RESOLVED:
        if finding.remedy:
            lines.append(f"Next: {_text(finding.remedy)}")
        lines.append(f"See {page(finding.check)}")
    return Block(paragraph="\n".join(lines), line=shortened(first, _LINE_CHARACTERS))


def fitted(blocks: Sequence[Block], *, room: int = BODY_CHARACTERS - _TAIL_CHARACTERS) -> str:
    """As many as fit into `room` characters: paragraphs, then lines, then a number."""
    paragraphs: list[str] = []
    for one in blocks[:FINDINGS_SHOWN]:
        if paragraphs and _length(paragraphs) + len(one.paragraph) > _PARAGRAPHS_CHARACTERS:
            break
        paragraphs.append(one.paragraph)
    room -= _length(paragraphs)
    lines: list[str] = []
    for one in blocks[len(paragraphs) :]:
        room -= len(one.line) + 1
        if room < 0:
            break
        lines.append(one.line)
    hidden = len(blocks) - len(paragraphs) - len(lines)
    if hidden:
        lines.append(f"and {hidden} more: opsd findings")
    return "\n\n".join((*paragraphs, "\n".join(lines)) if lines else paragraphs)


def found_by(incidents: Sequence[Incident]) -> str:
    """Which jobs found it."""
    jobs = dict.fromkeys(_name(incident.job) for incident in incidents)
    return f"found by {shortened(', '.join(jobs), _LINE_CHARACTERS)}"


def heading(news: News) -> str:
    """What to do, in two or three words."""
    if news.change is Change.OPENED and news.incident.muted_by:
        return f"{news.incident.muted_by.capitalize()} over, still open"
    if news.change is Change.EASED and news.severity is Severity.INFO:
        return "No longer urgent"
    return _GOOD_NEWS.get(news.change) or urgency(news.severity)


def urgency(severity: Severity) -> str:
    """How soon to act."""
    return _URGENCY[severity]


def page(check: str) -> str:
    """Where a check is explained: ``docs/findings.md#postgres-dump-failed``."""
    anchor = "".join(letter if letter.isalnum() else "-" for letter in printable(check))
    return f"{DOCS}findings.md#{shortened(anchor, _NAME_CHARACTERS * 2)}"


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


_FOLLOWING = {
    Change.OPENED: "Follows from it",
    Change.WORSENED: "Follows from it",
    Change.EASED: "Follows from it",
    Change.RESOLVED: "Still open of what followed",
}


def _age(news: News, *, at: datetime, timezone: tzinfo) -> str:
    return ", ".join(_ages(news, at=at, timezone=timezone))


def _ages(news: News, *, at: datetime, timezone: tzinfo) -> Iterator[str]:
    incident = news.incident
    yield f"since {incident.opened_at.astimezone(timezone):%a %d %b %H:%M %Z}"
    if news.change is Change.RESOLVED:
        yield f"lasted {lasting((incident.closed_at or at) - incident.opened_at)}"
        if incident.comebacks:
            yield f"came and went {incident.comebacks + 1} times"
    elif news.change is not Change.OPENED or incident.told is not None:
        yield f"for {lasting(at - incident.opened_at)}"
        if incident.comebacks:
            yield "comes and goes"
    elif incident.comebacks > 1:
        yield f"came and went {incident.comebacks} times before"
    elif incident.comebacks and incident.fell_at and incident.changed_at:
        yield f"came back after {lasting(incident.changed_at - incident.fell_at)}"


def _evidence(finding: Finding) -> list[str]:
    shown = [
        (name, value)
        for name, value in finding.facts.items()
        if value not in (None, "") and not _is_said(value, finding.summary)
    ]
    return [f"{_name(name)}: {_fact(value)}" for name, value in shown[:FACTS_SHOWN]]


def _is_said(value: Fact, summary: str) -> bool:
    return isinstance(value, str) and value in summary


def _several(subjects: Sequence[str]) -> str:
    more = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
    return f"{shortened(printable(subjects[0]), _LINE_CHARACTERS)}{more}"


def _length(paragraphs: Sequence[str]) -> int:
    return sum(len(paragraph) + 2 for paragraph in paragraphs)


def _subject(finding: Finding) -> str:
    return shortened(printable(finding.subject), _LINE_CHARACTERS)


def _text(text: str) -> str:
    return shortened(printable(text), _TEXT_CHARACTERS)


def _name(text: str) -> str:
    return shortened(printable(text), _NAME_CHARACTERS)


def _fact(value: Fact) -> str:
    return shortened(printable(str(value)), _FACT_CHARACTERS)
