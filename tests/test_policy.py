from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from opsd.alerts.policy import (
    Maintenance,
    Policy,
    Route,
    acknowledge,
    advance,
    end_silence,
    silence,
)
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
