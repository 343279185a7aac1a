"""What keeps a message back for now: the night, a silence, work on the cluster, too many.

Pure. A gate never drops anything: what is kept back stays a difference between belief and
truth, and is told when the gate opens.

Limits: quiet hours and maintenance follow the local time zone; a night in which the clock
is put back is an hour longer, one in which it is put forward an hour shorter.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from opsd.alerts.rules import Maintenance, Policy, Route
from opsd.cron import Cron, parse
from opsd.incidents import Silence
from opsd.model import Finding, Severity

HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """One stretch of quiet hours."""

    start: datetime  #: aware UTC
    end: datetime  #: aware UTC; not quiet any more
    is_night: bool  #: it goes over midnight


def quiet_at(policy: Policy, at: datetime) -> Quiet | None:
    """The quiet hours in which `at` lies; None when it is not quiet then."""
    if not policy.quiet_hours:
        return None
    first, last = _times(policy.quiet_hours)
    zone = ZoneInfo(policy.timezone)
    today = at.astimezone(zone).date()
    over_midnight = first > last
    for begins in (today, today - _DAY) if over_midnight else (today,):
        ends = begins + _DAY if over_midnight else begins
        start = datetime.combine(begins, first, zone).astimezone(UTC)
        end = datetime.combine(ends, last, zone).astimezone(UTC)
        if start <= at < end:
            return Quiet(start=start, end=end, is_night=over_midnight)
    return None


def maintenance_at(window: Maintenance, at: datetime, *, timezone: str) -> datetime | None:
    """When the `window` that is open at `at` ends; None when it is not open."""
    begun = _last_slot(window.schedule, timezone, window.name, at.replace(second=0, microsecond=0))
    until = begun + window.duration
    return until if at < until else None


def muted_by(
    finding: Finding, *, silences: Iterable[Silence], windows: Iterable[Maintenance]
) -> str:
    """What keeps this finding from being told: ``silence``, ``maintenance`` or nothing.

    Args:
        finding: which.
        silences: those that have not run out.
        windows: those that are open now.
    """
    for silence in silences:
        if fits(silence.check, finding.check) and fits(silence.subject, finding.subject):
            return "silence"
    for window in windows:
        if any(fits(pattern, finding.subject) for pattern in window.subjects):
            return "maintenance"
    return ""


def tags_for(
    routes: Sequence[Route], *, check: str, subject: str, severity: Severity
) -> tuple[str, ...]:
    """The tags of the first route that fits; none when none does."""
    for route in routes:
        if (
            severity >= route.min_severity
            and any(fits(pattern, check) for pattern in route.checks)
            and any(fits(pattern, subject) for pattern in route.subjects)
        ):
            return route.to
    return ()


def sent_lately(sent: Iterable[tuple[datetime, Severity]], now: datetime) -> tuple[Severity, ...]:
    """The severities of the messages of the last hour."""
    return tuple(severity for at, severity in sent if now - at < HOUR)


def fits(pattern: str, text: str) -> bool:
    """Whether `text` as a whole is what `pattern`, with ``*`` and ``?``, stands for."""
    return pattern == "*" or _compiled(pattern).fullmatch(text) is not None


def open_windows(policy: Policy, at: datetime) -> Iterator[Maintenance]:
    """The maintenance that is under way at `at`."""
    for window in policy.maintenance:
        if maintenance_at(window, at, timezone=policy.timezone) is not None:
            yield window


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (_WILD.get(letter) or re.escape(letter) for letter in pattern)
    return re.compile("".join(parts), re.DOTALL)


_WILD = {"*": ".*", "?": "."}


@functools.lru_cache(maxsize=16)
def _times(quiet_hours: str) -> tuple[time, time]:
    first, _, last = quiet_hours.partition("-")
    return time.fromisoformat(first), time.fromisoformat(last)


@functools.lru_cache(maxsize=64)
def _parsed(schedule: str, timezone: str, name: str) -> Cron:
    return parse(schedule, timezone=ZoneInfo(timezone), spread_by=name)


@functools.lru_cache(maxsize=64)
def _last_slot(schedule: str, timezone: str, name: str, minute: datetime) -> datetime:
    """The slot that came last; slots lie on whole minutes, so this is looked up once in one."""
    return _parsed(schedule, timezone, name).previous_slot(minute)
