"""How the owner wants to be told: plain values, so that they travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from opsd.model import Severity


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
    """What is told when, and to whom."""

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
