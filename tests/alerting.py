"""Somebody with a phone, for tests of what is told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from opsd.alerts.policy import Policy, acknowledge, advance, silence
from opsd.incidents import AlertState, Silence
from opsd.model import Finding, Message, OpenFinding, Severity

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
JOB = "postgres-backup"
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
CRITICAL, WARNING, INFO = Severity.CRITICAL, Severity.WARNING, Severity.INFO


def opened(
    subject: str = "s/a",
    severity: Severity = CRITICAL,
    *,
    at: datetime = NOON,
    check: str = "x.y",
    steady_for: timedelta = timedelta(0),
    cause: str = "",
) -> OpenFinding:
    finding = Finding(
        check=check,
        subject=subject,
        severity=severity,
        summary=f"about {subject}",
        steady_for=steady_for,
        cause=cause,
        remedy=f"mend {subject}",
    )
    return OpenFinding(finding=finding, job=JOB, opened_at=at)


class Owner:
    """Somebody with a phone: reads every message at once."""

    def __init__(self, policy: Policy | None = None, *, now: datetime = NOON) -> None:
        self.policy = policy or Policy()
        self.alerts = AlertState()
        self.now = now

    def look(self, *truth: OpenFinding, after: timedelta = timedelta(0)) -> tuple[Message, ...]:
        self.now += after
        self.alerts, messages = advance(self.alerts, truth, self.now, policy=self.policy)
        return messages

    def silence(self, subject: str, *, until: datetime) -> None:
        added = Silence(
            id="5e1f00", check="*", subject=subject, since=self.now, until=until, reason="work"
        )
        self.alerts = silence(self.alerts, added)

    def acknowledge(self, *truth: OpenFinding, subject: str = "*") -> None:
        self.alerts = acknowledge(self.alerts, truth, subject=subject, at=self.now)


def titles(messages: Sequence[Message]) -> list[str]:
    return [message.title for message in messages]
