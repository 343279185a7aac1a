from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opsd.alerts.policy import Policy, advance
from opsd.incidents import AlertState
from opsd.model import Finding, Message, OpenFinding, Severity

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
JOB = "postgres-backup"


def opened(
    subject: str = "s/a", severity: Severity = Severity.CRITICAL, **about: object
) -> OpenFinding:
    finding = Finding(
        check="x.y",
        subject=subject,
        severity=severity,
        summary=f"about {subject}",
        **about,  # type: ignore[arg-type]
    )
    return OpenFinding(finding=finding, job=JOB, opened_at=NOON)


class Owner:
    """Somebody with a phone: reads every message at once."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.alerts = AlertState()
        self.now = NOON

    def look(self, *truth: OpenFinding, after: timedelta = timedelta(0)) -> tuple[Message, ...]:
        self.now += after
        self.alerts, messages = advance(self.alerts, truth, self.now, policy=self.policy)
        return messages


def test_nothing_new_is_silent() -> None:
    assert Owner().look() == ()


def test_what_opened_is_told_once() -> None:
    owner = Owner()

    (message,) = owner.look(opened())

    assert message.title == "Act now: about s/a"
    assert owner.look(opened()) == ()


def test_one_look_makes_one_message_however_much_changed() -> None:
    (message,) = Owner().look(*(opened(f"s/{number}") for number in range(30)))

    assert message.title == "Act now: about s/0 (and 29 more)"


@pytest.mark.parametrize("severity", [Severity.WARNING, Severity.CRITICAL])
def test_the_end_is_told_with_how_long_it_lasted(severity: Severity) -> None:
    owner = Owner()
    owner.look(opened(severity=severity))

    (message,) = owner.look(after=timedelta(hours=2))

    assert message.title == "Resolved: about s/a"
    assert "lasted 2 h" in message.body


def test_what_is_only_information_is_never_pushed() -> None:
    owner = Owner()

    assert owner.look(opened(severity=Severity.INFO)) == ()
    assert owner.look() == ()
