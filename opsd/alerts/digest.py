"""One message instead of many: what happened while nobody was to be disturbed.

What is open comes first, with what to do; then what people knew of and is over; then what
came and went without them. Everything is named or counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from opsd.alerts import render
from opsd.alerts.render import BODY_CHARACTERS, News
from opsd.incidents import Event
from opsd.model import Change, Severity
from opsd.text import printable, shortened

_LINE_CHARACTERS = 160
_ROOM = BODY_CHARACTERS - 400  # for the headings and the counts
_ROOM_FOR_OVER = 800  # kept for what is over, however much is open
_NOTHING_TO_DO = "Nothing to do: what happened is over."
_KNOWN = "You were told, and it is over:"
_UNKNOWN = "Came and went:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """An incident of the time in question that is over by its end."""

    summary: str
    opened_at: datetime  #: aware UTC; of the last time
    ended_at: datetime  #: aware UTC
    times: int  #: how often it came
    was_known: bool  #: people were told of it before


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What one digest tells."""

    when: str  #: ``Last night`` or ``Since 14:05``
    open: Sequence[News]  #: worst first
    over: Sequence[Over]  #: in the order in which they came
    uncounted: int = 0  #: events that found no room in the memory


def over(events: Iterable[Event]) -> tuple[Over, ...]:
    """What the events of incidents that are over tell, one for each incident."""
    by_key: dict[tuple[str, str, str], list[Event]] = {}
    for event in events:
        by_key.setdefault(event.key, []).append(event)
    return tuple(map(_over, by_key.values()))


def title(digest: Digest) -> str:
    """How much there is to do, in one line."""
    need = f"{len(digest.open)} need you" if digest.open else "nothing needs you"
    if len(digest.open) == 1:
        need = "1 needs you"
    cleared = f", {len(digest.over)} cleared themselves" if digest.over else ""
    if len(digest.over) == 1:
        cleared = ", 1 cleared itself"
    return f"{digest.when}: {need}{cleared}"


def body(digest: Digest, *, at: datetime, timezone: tzinfo) -> str:
    """The whole of it, as far as it fits a phone; the rest is counted."""
    blocks = [
        render.block(one, at=at, timezone=timezone, start=render.urgency(one.severity))
        for one in digest.open
    ]
    room = _ROOM - (_ROOM_FOR_OVER if digest.over else 0)
    parts = [render.fitted(blocks, room=room) if blocks else _NOTHING_TO_DO]
    known = [one for one in digest.over if one.was_known]
    unknown = [one for one in digest.over if not one.was_known]
    room = (_ROOM - len(parts[0])) // (2 if known and unknown else 1)
    for heading, ended in ((_KNOWN, known), (_UNKNOWN, unknown)):
        if ended:
            parts.append(_section(heading, ended, room=room, timezone=timezone))
    if digest.uncounted:
        parts.append(f"{digest.uncounted} older events are only counted: opsd history")
    return "\n\n".join(parts)


def severity(digest: Digest, events: Iterable[Event]) -> Severity:
    """Of the worst that it tells."""
    reaches = [*(one.reach for one in digest.open), *(event.severity for event in events)]
    return max(reaches, default=Severity.WARNING)


def _over(events: Sequence[Event]) -> Over:
    first, last = events[0], events[-1]
    opened = [event for event in events if event.change is Change.OPENED]
    return Over(
        summary=last.summary,
        opened_at=last.opened_at or first.at,
        ended_at=last.at,
        times=max(1, len(opened)),
        was_known=first.change is not Change.OPENED or any(event.was_told for event in events),
    )


def _section(heading: str, ended: Sequence[Over], *, room: int, timezone: tzinfo) -> str:
    """A heading and a line each, as far as `room` characters reach; the others are counted."""
    lines, room = [heading], room - len(heading)
    for one in ended:
        line = _line(one, timezone=timezone)
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    hidden = len(ended) - len(lines) + 1
    return "\n".join((*lines, f"and {hidden} more: opsd history") if hidden else lines)


def _line(one: Over, *, timezone: tzinfo) -> str:
    began = one.opened_at.astimezone(timezone)
    often = f", {one.times} times" if one.times > 1 else ""
    lasted = render.lasting(one.ended_at - one.opened_at)
    tail = f", {began:%a %H:%M}, lasted {lasted}{often}"
    return f"- {shortened(printable(one.summary), _LINE_CHARACTERS)}{tail}"
