"""When the regular report is due: once for each slot of `Policy.report`, whoever asks.

Limits: a report covers the time since the slot before its own, also when it comes late. For
the slots that passed before opsd was first started there is none.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from opsd.alerts.marks import marks
from opsd.alerts.policy import Policy
from opsd.alerts.report import Summary, compose
from opsd.cron import Cron, parse
from opsd.incidents import AlertState
from opsd.model import Message, OpenFinding
from opsd.state import State

FURTHEST_SLOT = timedelta(days=1)  # a report that far in the future was a wrong clock


class Reports:
    """Has the report sent when it is due. Cheap to ask every few seconds."""

    def __init__(self, state: State, *, policy: Policy, jobs: Mapping[str, Cron]) -> None:
        """Prepare; without `Policy.report` nothing is ever due."""
        self._state = state
        self._timezone = ZoneInfo(policy.timezone)
        self._jobs = jobs
        self._cron = (
            parse(policy.report, timezone=self._timezone, spread_by="report")
            if policy.report
            else None
        )
        self._idle: tuple[datetime, datetime] | None = None  # nothing is due from, until

    def send_if_due(self, now: datetime) -> bool:
        """Put the report into the outbox if its time has come; whether it was put there.

        Raises:
            TransientError, PermanentError: the state refused.
        """
        if self._cron is None or (self._idle and self._idle[0] <= now < self._idle[1]):
            return False
        slot = self._cron.previous_slot(now)
        last = self._state.alerts().report_slot
        is_known = last is not None and last <= now + FURTHEST_SLOT
        is_due = is_known and last is not None and last < slot
        if is_due:
            summary = self._summary(now, since=self._cron.previous_slot(_before(slot)))
            message = compose(summary, slot=slot, timezone=self._timezone)
            self._state.tell(functools.partial(_told, slot=slot, messages=(message,)))
        elif not is_known:
            self._state.tell(functools.partial(_told, slot=slot, messages=()))
        self._idle = (now, self._cron.next_slot(now))
        return is_due

    def _summary(self, now: datetime, *, since: datetime) -> Summary:
        alerts = self._state.alerts()
        findings = self._state.open_findings()
        return Summary(
            since=since,
            now=now,
            tally=self._state.tally(since),
            findings=findings,
            marks=marks(alerts, findings, now=now),
            pauses=[pause for pause in self._state.pauses() if pause.until > now],
            undelivered=len(self._state.undelivered()),
            jobs=self._jobs,
        )


def _before(slot: datetime) -> datetime:
    return slot - timedelta(seconds=1)


def _told(
    alerts: AlertState,
    _open_findings: Sequence[OpenFinding],
    _now: datetime,
    *,
    slot: datetime,
    messages: tuple[Message, ...],
) -> tuple[AlertState, tuple[Message, ...]]:
    """A `Tell` that sends a report once, whoever is first."""
    last = alerts.report_slot
    if last is not None and slot <= last <= slot + FURTHEST_SLOT:
        return alerts, ()
    return replace(alerts, report_slot=slot), messages
