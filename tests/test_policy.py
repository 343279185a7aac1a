from __future__ import annotations

from datetime import timedelta

import pytest

from opsd.incidents import AlertState
from opsd.model import Message, Severity
from tests.alerting import (
    CRITICAL,
    DAY,
    HOUR,
    INFO,
    MINUTE,
    NOON,
    SECOND,
    WARNING,
    Owner,
    opened,
    titles,
)

# The difference


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


@pytest.mark.parametrize("severity", [WARNING, CRITICAL])
def test_the_end_is_told_with_how_long_it_lasted(severity: Severity) -> None:
    owner = Owner()
    owner.look(opened(severity=severity))

    (message,) = owner.look(after=HOUR * 2)

    assert message.title == "Resolved: about s/a"
    assert "lasted 2 h" in message.body


@pytest.mark.parametrize(
    ("before", "after", "title", "reach"),
    [
        (WARNING, CRITICAL, "Act now: about s/a", CRITICAL),
        (CRITICAL, WARNING, "Less urgent: about s/a", CRITICAL),
        (CRITICAL, INFO, "No longer urgent: about s/a", CRITICAL),
        (WARNING, INFO, "No longer urgent: about s/a", WARNING),
        (INFO, WARNING, "Act within days: about s/a", WARNING),
    ],
)
def test_who_heard_the_worse_news_hears_the_better(
    before: Severity, after: Severity, title: str, reach: Severity
) -> None:
    owner = Owner()
    owner.look(opened(severity=before))

    (message,) = owner.look(opened(severity=after), after=HOUR)

    assert (message.title, message.severity) == (title, reach)


def test_what_is_only_information_is_never_pushed() -> None:
    owner = Owner()

    assert owner.look(opened(severity=INFO)) == ()
    assert owner.look() == ()
    assert owner.alerts == AlertState()


def test_each_message_has_a_key_of_its_own() -> None:
    owner = Owner()

    keys = [message.key for looked in (owner.look(opened()), owner.look()) for message in looked]

    assert keys == ["alert/1", "alert/2"]


def test_what_is_over_is_forgotten_when_it_cannot_come_back_soon_any_more() -> None:
    owner = Owner()
    owner.look(opened())
    owner.look()

    owner.look(after=HOUR - SECOND)
    assert owner.alerts.incidents
    owner.look(after=SECOND)
    assert not owner.alerts.incidents


# Steadiness and flapping


@pytest.mark.parametrize(("age", "messages"), [(5 * MINUTE - SECOND, 0), (5 * MINUTE, 1)])
def test_an_opening_is_told_once_it_has_lasted(age: timedelta, messages: int) -> None:
    owner = Owner()
    patient = opened(steady_for=5 * MINUTE)
    assert owner.look(patient) == ()

    assert len(owner.look(patient, after=age)) == messages


@pytest.mark.parametrize(("age", "messages"), [(5 * MINUTE - SECOND, 0), (5 * MINUTE, 1)])
def test_an_end_is_told_once_it_has_lasted(age: timedelta, messages: int) -> None:
    owner = Owner()
    owner.look(opened(at=NOON - HOUR, steady_for=5 * MINUTE))
    assert owner.look() == ()

    assert len(owner.look(after=age)) == messages


@pytest.mark.parametrize(("age", "messages"), [(HOUR - SECOND, 0), (HOUR, 1)])
def test_an_end_is_kept_back_for_an_hour_at_most(age: timedelta, messages: int) -> None:
    owner = Owner()
    owner.look(opened(at=NOON - DAY, steady_for=6 * HOUR))
    assert owner.look() == ()

    assert len(owner.look(after=age)) == messages


def test_what_was_never_told_leaves_silently() -> None:
    owner = Owner()
    owner.look(opened(steady_for=5 * MINUTE))

    assert owner.look(after=4 * MINUTE) == ()
    assert owner.alerts.incidents == ()


def test_a_severity_that_changes_does_not_begin_the_wait_anew() -> None:
    owner = Owner()
    owner.look(opened(severity=WARNING, steady_for=5 * MINUTE))
    owner.look(opened(severity=CRITICAL, steady_for=5 * MINUTE), after=3 * MINUTE)

    told = owner.look(opened(severity=CRITICAL, steady_for=5 * MINUTE), after=2 * MINUTE)

    assert titles(told) == ["Act now: about s/a"]


def test_what_comes_back_soon_is_told_with_how_soon() -> None:
    owner = Owner()
    owner.look(opened())
    owner.look()

    (message,) = owner.look(opened(at=NOON + 3 * MINUTE), after=3 * MINUTE)

    assert "came back after 3 min" in message.body


@pytest.mark.parametrize(
    ("gap", "closing", "messages"),
    [
        (HOUR - SECOND, timedelta(0), 0),  # it has come back: its end is held
        (HOUR - SECOND, HOUR - SECOND, 0),
        (HOUR - SECOND, HOUR, 1),
        (HOUR, timedelta(0), 1),  # it is something new
    ],
)
def test_the_end_of_what_came_back_is_told_once_it_stayed_away(
    gap: timedelta, closing: timedelta, messages: int
) -> None:
    owner = Owner()
    owner.look(opened())
    owner.look()
    owner.look(opened(), after=gap)
    told = owner.look()

    if closing:
        told = owner.look(after=closing)

    assert len(told) == messages


def test_what_comes_and_goes_every_minute_makes_four_messages() -> None:
    owner = Owner()
    told: list[Message] = []
    for _ in range(57):
        told += owner.look(opened(at=owner.now), after=30 * SECOND)
        told += owner.look(after=30 * SECOND)
    told += owner.look(after=HOUR)

    assert titles(told) == [
        "Act now: about s/a",
        "Resolved: about s/a",
        "Act now: about s/a",
        "Resolved: about s/a",
    ]
    assert "came and went 57 times" in told[-1].body


def test_a_severity_that_goes_up_and_down_makes_four_messages() -> None:
    owner = Owner()
    told = [*owner.look(opened(severity=WARNING))]
    for _ in range(30):
        told += owner.look(opened(severity=CRITICAL), after=MINUTE)
        told += owner.look(opened(severity=WARNING), after=MINUTE)

    assert titles(told) == [
        "Act within days: about s/a",
        "Act now: about s/a",
        "Less urgent: about s/a",
        "Act now: about s/a",
    ]


# Causes


def test_what_follows_is_told_with_its_cause() -> None:
    effects = [opened(f"db/{number}", cause="node/a") for number in range(12)]

    (message,) = Owner().look(opened("node/a"), *effects)

    assert message.title == "Act now: about node/a"
    assert "Follows from it: db/0 and 11 more" in message.body


def test_what_follows_from_what_follows_is_told_with_the_first_cause() -> None:
    (message,) = Owner().look(
        opened("node/a"), opened("pod/b", cause="node/a"), opened("db/c", cause="pod/b")
    )

    assert message.title == "Act now: about node/a"
    assert "Follows from it: pod/b and 1 more" in message.body


def test_causes_in_a_circle_hide_nothing() -> None:
    (message,) = Owner().look(opened("s/a", cause="s/b"), opened("s/b", cause="s/a"))

    assert message.title == "Act now: about s/a (and 1 more)"


@pytest.mark.parametrize(
    ("cause", "effect", "told"),
    [
        (WARNING, WARNING, "Act within days: about s/cause"),
        (WARNING, CRITICAL, "Act now: about s/effect (and 1 more)"),
        (INFO, WARNING, "Act within days: about s/effect"),
    ],
)
def test_an_effect_worse_than_its_cause_speaks_for_itself(
    cause: Severity, effect: Severity, told: str
) -> None:
    (message,) = Owner().look(
        opened("s/cause", cause), opened("s/effect", effect, cause="s/cause")
    )

    assert message.title == told


def test_an_effect_that_ends_with_its_cause_is_not_told() -> None:
    owner = Owner()
    owner.look(opened("s/cause"), opened("s/effect", cause="s/cause"))

    assert titles(owner.look(after=HOUR)) == ["Resolved: about s/cause"]


@pytest.mark.parametrize(("later", "messages"), [(15 * MINUTE - SECOND, 0), (15 * MINUTE, 1)])
def test_an_effect_that_outlives_its_cause_is_told_by_itself(
    later: timedelta, messages: int
) -> None:
    owner, effect = Owner(), opened("s/effect", cause="s/cause")
    owner.look(opened("s/cause"), effect)

    (resolved,) = owner.look(effect, after=HOUR)

    assert "Still open of what followed: s/effect" in resolved.body
    assert len(owner.look(effect, after=later)) == messages


def test_an_effect_whose_cause_comes_back_waits_on() -> None:
    owner, effect = Owner(), opened("s/effect", cause="s/cause")
    owner.look(opened("s/cause"), effect)
    owner.look(effect, after=HOUR)
    owner.look(opened("s/cause"), effect, after=14 * MINUTE)

    assert owner.look(opened("s/cause"), effect, after=14 * MINUTE) == ()


def test_what_was_told_before_its_cause_ends_aloud() -> None:
    owner, effect = Owner(), opened("s/effect", cause="s/cause")
    owner.look(effect)
    owner.look(opened("s/cause"), effect)

    assert titles(owner.look(opened("s/cause"), after=HOUR)) == ["Resolved: about s/effect"]
