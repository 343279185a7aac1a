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
    changed_at: datetime | None = None  #: its level is what it is since then; None: `opened_at`
    fell_at: datetime | None = None  #: when its level last went down
    comebacks: int = 0  #: how often it went up again soon after it had gone down
    told: Severity | None = None  #: what people believe it is; None: that there is nothing
    noted: Severity | None = None  #: what they will believe when all that is held back is told
    told_to: tuple[str, ...] | None = None  #: tags of those who know of it; None: nobody does
    first_told_at: datetime | None = None  #: when they were told that it opened or worsened
    told_at: datetime | None = None  #: when they were last told or reminded
    acknowledged: Acknowledgement | None = None
    escalated_at: datetime | None = None  #: when others were told because nobody acknowledged
    follows: str = ""  #: subject of the open finding that it follows from; told with that one
    freed_at: datetime | None = None  #: when what it followed from had gone before it
    muted_by: str = ""  #: ``silence`` or ``maintenance``: kept the last change from being told

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity: a job's check of a subject."""
        return (self.job, *self.finding.key)

    @property
    def level(self) -> Severity | None:
        """How bad it is; None when it is gone, or a mere information."""
        is_news = self.closed_at is None and self.finding.severity > Severity.INFO
        return self.finding.severity if is_news else None


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
    """Something that was held back, or happened at night: a line of the next digest."""

    at: datetime  #: aware UTC
    change: Change
    severity: Severity  #: of the worse side of the change: who must hear of it
    job: str
    check: str
    subject: str
    summary: str
    was_told: bool  #: a message of its own went out
    opened_at: datetime | None = None  #: aware UTC
    tags: tuple[str, ...] = ()  #: whose digest it belongs to; none: everybody's

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity of the incident."""
        return (self.job, self.check, self.subject)


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
