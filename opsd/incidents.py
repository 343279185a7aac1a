"""What people were told, and what they asked for: the memory of the alerts.

An incident is a finding together with what people believe about it. Messages follow from the
difference between belief and truth (`opsd.alerts.policy`), so a message that could not be sent
at once is not lost, and what was told is not told again after a restart.

Values only, standard library only: the state stores them, the policy turns them over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from opsd.model import Change, Finding, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Somebody has seen it and takes care: no reminders and no escalation until it worsens."""

    at: datetime  #: aware UTC
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One finding, open or lately closed, and what people were told about it."""

    job: str
    finding: Finding  #: as last seen
    opened_at: datetime  #: aware UTC
    closed_at: datetime | None = None  #: gone since; None while it is open
    told: Severity | None = None  #: what people believe it is; None: that there is nothing
    first_told_at: datetime | None = None  #: when they were first told
    told_at: datetime | None = None  #: when they were last told or reminded
    comebacks: int = 0  #: how often it opened again soon after it had closed
    acknowledged: Acknowledgement | None = None
    escalated_at: datetime | None = None  #: when others were told because nobody acknowledged

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity: a job's check of a subject."""
        return (self.job, *self.finding.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Somebody does not want to hear of these findings for a while, and says why."""

    id: str  #: six lower-case hex digits
    check: str  #: pattern with ``*`` and ``?``
    subject: str  #: likewise
    since: datetime  #: aware UTC
    until: datetime  #: aware UTC
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened while nobody was to be disturbed: a line of the digest."""

    at: datetime  #: aware UTC
    change: Change
    severity: Severity
    job: str
    check: str
    subject: str
    summary: str
    was_told: bool  #: a message of its own went out at once


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertState:
    """Everything that the alert policy remembers between two looks."""

    incidents: tuple[Incident, ...] = ()  #: in the order of their keys
    silences: tuple[Silence, ...] = ()
    events: tuple[Event, ...] = ()  #: for the next digest, oldest first
    events_dropped: int = 0  #: older ones that found no room
    sent: tuple[tuple[datetime, Severity], ...] = ()  #: messages of the last hour, oldest first
    generation: int = 0  #: messages made so far: the number in their keys
    report_slot: datetime | None = None  #: slot of the last regular report, aware UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A job that is not started for a while, and why."""

    job: str
    since: datetime  #: aware UTC
    until: datetime  #: aware UTC
    reason: str
