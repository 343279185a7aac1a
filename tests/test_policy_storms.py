from __future__ import annotations

from datetime import timedelta

import pytest

from opsd.alerts.policy import Policy, Route
from opsd.model import Message, OpenFinding, Severity
from tests.alerting import CRITICAL, DAY, HOUR, MINUTE, SECOND, WARNING, Owner, opened, titles

# Routes


@pytest.mark.parametrize(
    ("check", "subject", "severity", "tags"),
    [
        ("x.y", "node/a", CRITICAL, ("night",)),
        ("x.y", "node/a", WARNING, ("mail",)),
        ("x.z", "node/a", CRITICAL, ("mail",)),
        ("x.y", "share/a", CRITICAL, ()),
    ],
)
def test_the_first_route_that_fits_decides_and_none_means_all(
    check: str, subject: str, severity: Severity, tags: tuple[str, ...]
) -> None:
    routes = (
        Route(checks=("x.y",), subjects=("node/*",), min_severity=CRITICAL, to=("night",)),
        Route(subjects=("node/*", "pod/*"), to=("mail",)),
    )

    (message,) = Owner(Policy(routes=routes)).look(opened(subject, severity, check=check))

    assert message.tags == tags


def test_each_set_of_tags_gets_a_message_the_worst_first() -> None:
    routes = (Route(subjects=("node/*",), to=("mail",)),)

    told = Owner(Policy(routes=routes)).look(opened("node/a", WARNING), opened("s/b", CRITICAL))

    assert [(message.tags, message.title) for message in told] == [
        ((), "Act now: about s/b"),
        (("mail",), "Act within days: about node/a"),
    ]


def test_who_was_told_hears_the_rest() -> None:
    routes = (Route(min_severity=CRITICAL, to=("night",)), Route(to=("mail",)))
    owner = Owner(Policy(routes=routes))

    told = [
        owner.look(opened(severity=severity), after=2 * HOUR)[0].tags
        for severity in (WARNING, CRITICAL, WARNING)
    ]

    assert [*told, owner.look(after=2 * HOUR)[0].tags] == [
        ("mail",),
        ("mail", "night"),
        ("mail", "night"),
        ("mail", "night"),
    ]


# Storms


def test_a_storm_is_capped_and_every_finding_is_counted_at_last() -> None:
    owner = Owner(Policy(max_per_hour=5))
    told: list[Message] = []
    truth: list[OpenFinding] = []
    for number in range(500):
        truth.append(opened(f"s/{number}", WARNING))
        told += owner.look(*truth, after=SECOND)

    assert len(told) == 5
    told = [message for _ in range(12) for message in owner.look(*truth, after=10 * MINUTE)]
    assert titles(told) == ["Since 12:00: 495 need you"]
    assert {one.told for one in owner.alerts.incidents} == {WARNING}


@pytest.mark.parametrize(("first", "second"), [(WARNING, CRITICAL), (CRITICAL, WARNING)])
def test_the_first_of_a_severity_passes_a_storm(first: Severity, second: Severity) -> None:
    owner, truth = Owner(Policy(max_per_hour=2)), []
    for number in range(9):
        truth.append(opened(f"s/{number}", first))
        owner.look(*truth)

    told = owner.look(*truth, opened("s/new", second))

    assert [message.severity for message in told] == [second]
    assert "s/new" in told[0].body
    assert owner.look(*truth, opened("s/new", second), opened("s/next", second)) == ()


@pytest.mark.parametrize(("later", "messages"), [(HOUR - SECOND, 0), (HOUR, 1)])
def test_there_is_room_again_after_an_hour(later: timedelta, messages: int) -> None:
    owner = Owner(Policy(max_per_hour=1))
    owner.look(opened("s/a", WARNING))
    owner.look(opened("s/a", WARNING), opened("s/b", WARNING))

    told = owner.look(opened("s/a", WARNING), opened("s/b", WARNING), after=later)

    assert len(told) == messages


def test_what_came_and_went_in_a_storm_is_told_after_it() -> None:
    owner = Owner(Policy(max_per_hour=1))
    owner.look(opened("s/a", WARNING))
    owner.look(opened("s/a", WARNING), opened("s/b", WARNING), after=MINUTE)
    owner.look(opened("s/a", WARNING), after=10 * MINUTE)

    (message,) = owner.look(opened("s/a", WARNING), after=HOUR)

    assert message.title == "Since 12:01: nothing needs you, 1 cleared itself"
    assert "Came and went:\n- about s/b, Sun 12:00, lasted 11 min" in message.body


# Clocks


@pytest.mark.parametrize("back", [2 * MINUTE, 2 * HOUR, 400 * DAY])
def test_a_clock_that_goes_back_tells_nothing_twice(back: timedelta) -> None:
    owner = Owner(Policy(escalate_to=("boss",)))
    owner.look(opened(), opened("s/b", WARNING))
    owner.look(opened(), opened("s/b", WARNING), after=HOUR)

    assert owner.look(opened(), opened("s/b", WARNING), after=-back) == ()
    assert owner.look(opened(), opened("s/b", WARNING), after=3 * HOUR) == ()


def test_a_clock_that_was_ahead_does_not_silence_reminders() -> None:
    owner = Owner()
    owner.look(opened(), after=400 * DAY)
    owner.look(opened(), after=-400 * DAY)

    assert len(owner.look(opened(), after=4 * HOUR)) == 1


def test_a_clock_that_was_ahead_does_not_keep_the_storm_going() -> None:
    owner = Owner(Policy(max_per_hour=1))
    owner.look(opened("s/a", WARNING), after=400 * DAY)
    owner.look(opened("s/a", WARNING), opened("s/b", WARNING), after=-400 * DAY)

    assert len(owner.look(opened("s/a", WARNING), opened("s/b", WARNING), after=HOUR)) == 1
