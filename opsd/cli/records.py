"""What the state says about everything at once, for `opsd status`.

A state that cannot be read is said to be so; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from opsd.alerts.gates import quiet_at
from opsd.alerts.marks import Key, Mark, in_force, marks
from opsd.cli.jobs import maintenance_of
from opsd.cli.pausing import standing
from opsd.errors import OpsdError
from opsd.incidents import AlertState, Pause, Silence
from opsd.model import OpenFinding, Outcome, Run, Severity
from opsd.state import DAEMON, Holder

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring
    from opsd.configfile import JobEntry
    from opsd.state import OutboxEntry, State

OVERDUE_AFTER = timedelta(minutes=10)  # the daemon looks every few seconds
CHANNEL_DOWN = "alerts.channel_down"
_WELL = (Outcome.COMPLETED, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """One configured job."""

    job: str
    enabled: bool
    last: Run | None = None
    running_since: datetime | None = None
    next_slot: datetime | None = None
    overdue_since: datetime | None = None  #: a slot that nothing has answered
    pause: Pause | None = None
    maintenance: tuple[str, datetime] | None = None  #: the window that holds it back, until then

    @property
    def is_well(self) -> bool:
        """Whether nobody has to look at it."""
        ended_well = self.last is None or self.last.outcome in _WELL
        return ended_well and self.overdue_since is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Changes that are told later."""

    count: int
    until: datetime | None  #: the end of the quiet hours; None: too many were sent this hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the state says."""

    jobs: Sequence[JobStatus] = ()
    findings: Sequence[OpenFinding] = ()
    marks: Mapping[Key, Mark] = field(default_factory=dict)
    silences: Sequence[Silence] = ()
    held: Held | None = None
    undelivered: Sequence[OutboxEntry] = ()
    daemon: Holder | None = None  #: None: it is not running
    error: str = ""  #: why it could not be read

    @property
    def news(self) -> tuple[OpenFinding, ...]:
        """The findings that somebody must deal with."""
        return tuple(one for one in self.findings if one.finding.severity > Severity.INFO)

    def down_since(self, target: str) -> datetime | None:
        """Since when a target takes no messages; None when it does, as far as is known."""
        return next(
            (
                entry.opened_at
                for entry in self.findings
                if (entry.finding.check, entry.finding.subject)
                == (CHANNEL_DOWN, f"channel/{target}")
            ),
            None,
        )


def read_records(wiring: Wiring, now: datetime) -> Records:
    """Read everything; an error is part of the answer."""
    try:
        with wiring.state() as state:
            alerts, findings = state.alerts(), state.open_findings()
            return Records(
                jobs=_jobs(wiring, state, now),
                findings=findings,
                marks=marks(alerts, findings, now=now),
                silences=in_force(alerts, now),
                held=_held(wiring, alerts, now),
                undelivered=state.undelivered(),
                daemon=state.holder(DAEMON),
            )
    except OpsdError as exc:
        return Records(error=str(exc))


def _jobs(wiring: Wiring, state: State, now: datetime) -> tuple[JobStatus, ...]:
    running = {job: since for job, _, since in state.running()}
    pauses = {one.job: one for one in standing(state.pauses(), now)}
    return tuple(
        _job(
            wiring,
            entry,
            state,
            now=now,
            running_since=running.get(name),
            pause=pauses.get(name),
        )
        for name, entry in wiring.config.jobs.items()
    )


def _job(
    wiring: Wiring,
    entry: JobEntry,
    state: State,
    *,
    now: datetime,
    running_since: datetime | None,
    pause: Pause | None,
) -> JobStatus:
    name = entry.job.name
    known = JobStatus(
        job=name,
        enabled=entry.enabled,
        last=next(iter(state.runs(job=name, limit=1)), None),
        running_since=running_since,
        pause=pause,
        maintenance=maintenance_of(name, wiring, now),
    )
    if not entry.enabled:
        return known
    cron = wiring.patience(entry).cron
    expected = cron.previous_slot(now - OVERDUE_AFTER - entry.jitter)
    answered = state.last_slot(name, at=now)
    is_held = known.running_since or known.pause or known.maintenance
    if known.last and answered is not None:
        answered = max(answered, known.last.started_at)  # somebody may have asked for it
    is_overdue = not is_held and answered is not None and answered < expected
    return replace(
        known,
        next_slot=cron.next_slot(now),
        overdue_since=expected if is_overdue else None,
    )


def _held(wiring: Wiring, alerts: AlertState, now: datetime) -> Held | None:
    count = sum(not event.was_told for event in alerts.events) + alerts.events_dropped
    if not count:
        return None
    quiet = quiet_at(wiring.policy, now)
    return Held(count=count, until=quiet.end if quiet else None)
