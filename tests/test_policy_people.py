from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from opsd.alerts.policy import Maintenance, Policy, Route, end_silence, silence
from opsd.incidents import Silence
from opsd.model import Severity
from tests.alerting import (
    CRITICAL,
    DAY,
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    WARNING,
    Owner,
    opened,
    titles,
)

# Reminders, acknowledgement, escalation


@pytest.mark.parametrize(
    ("severity", "later", "messages"),
    [
        (CRITICAL, 4 * HOUR - SECOND, 0),
        (CRITICAL, 4 * HOUR, 1),
        (WARNING, DAY - SECOND, 0),
        (WARNING, DAY, 1),
    ],
)
def test_what_stays_open_is_told_again(
    severity: Severity, later: timedelta, messages: int
) -> None:
    owner, finding = Owner(), opened(severity=severity)
    owner.look(finding)

    assert len(owner.look(finding, after=later)) == messages
    assert owner.look(finding) == ()


def test_no_reminder_when_none_is_wanted() -> None:
    owner = Owner(Policy(remind_critical=None, remind_warning=None))
    owner.look(opened(), opened("s/b", WARNING))

    assert owner.look(opened(), opened("s/b", WARNING), after=30 * DAY) == ()


def test_all_that_is_due_comes_in_one_message_that_names_the_oldest() -> None:
    owner = Owner()
    old, new = opened("s/old", WARNING, at=NOON - 27 * HOUR), opened("s/new")
    owner.look(old, new)

    (message,) = owner.look(old, new, after=25 * HOUR)

    assert message.title == "Still open: about s/old, for 2 d 4 h (and 1 more)"
    assert message.severity is CRITICAL


def test_what_is_acknowledged_is_neither_repeated_nor_escalated() -> None:
    owner = Owner(Policy(escalate_to=("boss",)))
    owner.look(opened())
    owner.acknowledge(opened())

    assert owner.look(opened(), after=30 * DAY) == ()


def test_only_what_fits_is_acknowledged() -> None:
    owner = Owner()
    both = (opened("s/a"), opened("s/b"))
    owner.look(*both)
    owner.acknowledge(*both, subject="*/a")

    assert titles(owner.look(*both, after=4 * HOUR)) == ["Still open: about s/b, for 4 h"]


def test_what_nobody_was_told_of_yet_can_be_acknowledged() -> None:
    owner = Owner()
    owner.acknowledge(opened())
    owner.look(opened())

    assert owner.look(opened(), after=DAY) == ()


@pytest.mark.parametrize("anew", ["worse", "again"])
def test_an_acknowledgement_ends_when_it_worsens_or_is_over(anew: str) -> None:
    owner = Owner()
    owner.look(opened(severity=WARNING))
    owner.acknowledge(opened(severity=WARNING))
    if anew == "again":
        owner.look(after=HOUR)
    owner.look(opened(severity=CRITICAL), after=HOUR)

    assert len(owner.look(opened(severity=CRITICAL), after=4 * HOUR)) == 1


@pytest.mark.parametrize(
    ("later", "messages"), [(30 * MINUTE - SECOND, []), (30 * MINUTE, [("boss",)])]
)
def test_what_nobody_acknowledges_is_told_somebody_else_once(
    later: timedelta, messages: list[tuple[str, ...]]
) -> None:
    owner = Owner(Policy(escalate_to=("boss",)))
    owner.look(opened(), opened("s/b", WARNING))

    told = owner.look(opened(), opened("s/b", WARNING), after=later)

    assert [message.tags for message in told] == messages
    assert owner.look(opened(), opened("s/b", WARNING)) == ()


def test_an_escalation_says_for_how_long_nobody_acknowledged() -> None:
    owner = Owner(Policy(escalate_to=("boss",)))
    owner.look(opened())

    (message,) = owner.look(opened(), after=30 * MINUTE)

    assert message.title == "Nobody has acknowledged for 30 min: about s/a"


def test_whom_it_was_escalated_to_hears_the_end() -> None:
    route = Route(to=("me",))
    owner = Owner(Policy(escalate_to=("boss",), routes=(route,)))
    owner.look(opened())
    owner.look(opened(), after=HOUR)

    (message,) = owner.look(after=HOUR)

    assert message.tags == ("boss", "me")


def test_what_comes_anew_is_escalated_anew() -> None:
    owner = Owner(Policy(escalate_to=("boss",)))
    owner.look(opened())
    owner.look(opened(), after=HOUR)
    owner.look(after=HOUR)
    owner.look(opened(), after=2 * HOUR)

    assert [message.tags for message in owner.look(opened(), after=HOUR)] == [("boss",)]


def test_an_escalation_does_not_wait_for_room() -> None:
    owner = Owner(Policy(escalate_to=("boss",), max_per_hour=1, escalate_after=MINUTE))
    owner.look(opened())

    assert [message.tags for message in owner.look(opened(), after=MINUTE)] == [("boss",)]


# Silences and maintenance


def test_what_is_silenced_is_told_when_the_silence_is_over() -> None:
    owner = Owner()
    owner.silence("s/*", until=NOON + HOUR)

    assert owner.look(opened()) == ()
    assert owner.look(opened(), after=HOUR - SECOND) == ()
    assert titles(owner.look(opened(), after=SECOND)) == ["Silence over, still open: about s/a"]
    assert owner.alerts.silences == ()


def test_a_silence_can_be_ended() -> None:
    owner = Owner()
    owner.silence("s/*", until=NOON + DAY)
    owner.look(opened())
    owner.alerts = end_silence(owner.alerts, "5e1f00")

    assert titles(owner.look(opened())) == ["Silence over, still open: about s/a"]


def test_what_was_told_and_ended_in_a_silence_is_resolved_after_it() -> None:
    owner = Owner()
    owner.look(opened())
    owner.silence("s/a", until=NOON + 2 * HOUR)

    assert owner.look(after=HOUR) == ()
    (message,) = owner.look(after=5 * HOUR)
    assert message.title == "Resolved: about s/a"
    assert "lasted 1 h" in message.body


def test_what_came_and_went_in_a_silence_is_not_told() -> None:
    owner = Owner()
    owner.silence("s/a", until=NOON + 2 * HOUR)
    owner.look(opened())
    owner.look(after=HOUR)

    assert owner.look(after=5 * HOUR) == ()


@pytest.mark.parametrize(
    ("check", "subject", "is_silenced"),
    [
        ("*", "s/?", True),
        ("x.*", "s/a", True),
        ("x.z", "s/a", False),
        ("*", "s", False),
        ("*", "[s]/a", False),
    ],
)
def test_a_silence_is_for_what_fits_both_patterns(
    check: str,
    subject: str,
    is_silenced: bool,  # noqa: FBT001 - a table
) -> None:
    owner = Owner()
    until = NOON + HOUR
    added = Silence(id="1", check=check, subject=subject, since=NOON, until=until, reason="r")
    owner.alerts = silence(owner.alerts, added)

    assert (owner.look(opened()) == ()) is is_silenced


def test_nobody_is_reminded_of_what_is_silenced() -> None:
    owner = Owner()
    owner.look(opened())
    owner.silence("s/a", until=NOON + DAY)

    assert owner.look(opened(), after=5 * HOUR) == ()


@pytest.mark.parametrize(
    ("local", "is_told"), [("03:59", True), ("04:00", False), ("05:59", False), ("06:00", True)]
)
def test_maintenance_keeps_its_subjects_quiet(
    local: str,
    is_told: bool,  # noqa: FBT001 - a table
) -> None:
    window = Maintenance(
        name="updates", schedule="0 4 * * *", duration=2 * HOUR, subjects=("node/*",)
    )
    at = datetime.fromisoformat(f"2026-11-22T{local}:00+01:00")
    owner = Owner(Policy(timezone="Europe/Berlin", maintenance=(window,)), now=at)

    assert bool(owner.look(opened("node/a", at=at))) is is_told
    assert len(owner.look(opened("node/a", at=at), opened("s/b", at=at))) == 1


def test_what_maintenance_left_broken_is_told_after_it() -> None:
    window = Maintenance(name="u", schedule="0 12 * * *", duration=HOUR, subjects=("*",))
    owner = Owner(Policy(maintenance=(window,)))
    owner.look(opened())

    assert titles(owner.look(opened(), after=HOUR)) == ["Maintenance over, still open: about s/a"]
