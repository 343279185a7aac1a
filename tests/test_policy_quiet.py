from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from opsd.alerts.gates import Quiet, quiet_at
from opsd.alerts.look import EVENTS_KEPT
from opsd.alerts.policy import Policy, Route, acknowledge, advance, silence
from opsd.incidents import AlertState, Silence
from opsd.model import Finding, Message, OpenFinding, Severity

BERLIN = ZoneInfo("Europe/Berlin")
EVENING = datetime(2026, 11, 22, 23, 0, tzinfo=BERLIN).astimezone(UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING


def opened(
    subject: str = "s/a",
    severity: Severity = WARNING,
    *,
    at: datetime = EVENING,
    steady_for: timedelta = timedelta(0),
) -> OpenFinding:
    finding = Finding(
        check="x.y",
        subject=subject,
        severity=severity,
        summary=f"about {subject}",
        remedy=f"mend {subject}",
        steady_for=steady_for,
    )
    return OpenFinding(finding=finding, job="j", opened_at=at)


class Sleeper:
    """Somebody in Berlin who sleeps from ten to seven."""

    def __init__(self, *, at: datetime = EVENING, **policy: object) -> None:
        self.policy = Policy(
            timezone="Europe/Berlin",
            quiet_hours="22:00-07:00",
            **policy,  # type: ignore[arg-type]
        )
        self.alerts = AlertState()
        self.now = at

    def look(self, *truth: OpenFinding, after: timedelta = timedelta(0)) -> tuple[Message, ...]:
        self.now += after
        self.alerts, messages = advance(self.alerts, truth, self.now, policy=self.policy)
        return messages

    def wake_up(self, *truth: OpenFinding) -> tuple[Message, ...]:
        """The look at seven in the morning."""
        local = self.now.astimezone(BERLIN)
        days = 1 if local.hour >= 7 else 0
        morning = (local + timedelta(days=days)).replace(hour=7, minute=0, second=0)
        return self.look(*truth, after=morning.astimezone(UTC) - self.now)


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


# When it is quiet


@pytest.mark.parametrize(
    ("hours", "at", "is_quiet"),
    [
        ("22:00-07:00", "2026-11-22T21:59:59", False),
        ("22:00-07:00", "2026-11-22T22:00:00", True),
        ("22:00-07:00", "2026-11-23T06:59:59", True),
        ("22:00-07:00", "2026-11-23T07:00:00", False),
        ("12:30-14:00", "2026-11-22T12:29:59", False),
        ("12:30-14:00", "2026-11-22T12:30:00", True),
        ("12:30-14:00", "2026-11-22T13:59:59", True),
        ("12:30-14:00", "2026-11-22T14:00:00", False),
        ("07:00-07:00", "2026-11-22T07:00:00", False),
        ("", "2026-11-22T03:00:00", False),
    ],
)
def test_quiet_hours_follow_the_local_clock(
    hours: str,
    at: str,
    is_quiet: bool,  # noqa: FBT001 - a table
) -> None:
    policy = Policy(timezone="Europe/Berlin", quiet_hours=hours)

    assert (quiet_at(policy, local(at)) is not None) is is_quiet


@pytest.mark.parametrize(
    ("evening", "hours"),
    [("2026-11-21", 9), ("2026-10-24", 10), ("2026-03-28", 8)],
)
def test_a_night_in_which_the_clock_is_changed_is_one_night(evening: str, hours: int) -> None:
    policy = Policy(timezone="Europe/Berlin", quiet_hours="22:00-07:00")
    start = local(f"{evening}T22:00:00")
    night = Quiet(start=start, end=start + hours * HOUR, is_night=True)

    looks = [quiet_at(policy, start + minute * MINUTE) for minute in range(hours * 60)]

    assert set(looks) == {night}
    assert quiet_at(policy, night.end) is None


@pytest.mark.parametrize("day", ["2026-10-25", "2026-03-29"])
def test_quiet_hours_that_begin_in_the_changed_hour_come_once(day: str) -> None:
    policy = Policy(timezone="Europe/Berlin", quiet_hours="02:30-07:00")
    midnight = local(f"{day}T00:00:00")

    looks = [quiet_at(policy, midnight + minute * MINUTE) is not None for minute in range(600)]

    changes = sum(one is not other for one, other in itertools.pairwise(looks))
    assert changes == 2


# What passes


def test_a_warning_waits_for_the_morning() -> None:
    owner = Sleeper()

    assert owner.look(opened()) == ()
    assert owner.look(opened(), after=8 * HOUR - SECOND) == ()
    assert [one.title for one in owner.look(opened(), after=SECOND)] == ["Last night: 1 needs you"]
    assert owner.look(opened(), after=HOUR) == ()


def test_what_is_critical_passes_and_so_does_its_end() -> None:
    owner = Sleeper()

    told = [*owner.look(opened(severity=CRITICAL)), *owner.look(after=HOUR)]

    assert [one.title for one in told] == ["Act now: about s/a", "Resolved: about s/a"]


def test_the_end_of_what_was_told_before_the_night_waits() -> None:
    owner = Sleeper(at=local("2026-11-22T21:59:59"))
    owner.look(opened(severity=CRITICAL))

    assert owner.look(after=HOUR) == ()
    (message,) = owner.wake_up()
    assert message.title == "Last night: nothing needs you, 1 cleared itself"
    assert "You were told, and it is over:\n- about s/a" in message.body


def test_a_warning_that_worsens_at_night_wakes() -> None:
    owner = Sleeper()
    owner.look(opened())

    (message,) = owner.look(opened(severity=CRITICAL), after=HOUR)

    assert message.title == "Act now: about s/a"


def test_only_what_is_critical_is_repeated_at_night() -> None:
    owner = Sleeper(at=local("2026-11-22T21:00:00"), remind_warning=HOUR, remind_critical=HOUR)
    both = (opened("s/warning", at=owner.now), opened("s/critical", CRITICAL, at=owner.now))
    owner.look(*both)

    (message,) = owner.look(*both, after=2 * HOUR)

    assert message.title == "Still open: about s/critical, for 2 h"
    assert "s/warning" not in message.body


def test_escalation_does_not_sleep() -> None:
    owner = Sleeper(escalate_to=("boss",))
    owner.look(opened(severity=CRITICAL))

    (message,) = owner.look(opened(severity=CRITICAL), after=30 * MINUTE)

    assert message.tags == ("boss",)


# The morning


def test_a_night_without_events_has_no_digest() -> None:
    owner = Sleeper()
    owner.look()

    assert owner.wake_up() == ()


def test_the_morning_tells_the_whole_night_in_one_message() -> None:
    owner = Sleeper(at=local("2026-11-22T20:00:00"))
    owner.look(opened("s/old", at=owner.now))
    owner.now = EVENING
    woke = opened("s/woke", CRITICAL)
    brief = opened("s/brief")
    new, worse = opened("s/new"), opened("s/worse", CRITICAL)
    owner.look(opened("s/old"), woke, brief, new)
    owner.look(woke, new, worse, after=12 * MINUTE)
    owner.look(new, worse, after=HOUR)

    (message,) = owner.wake_up(new, worse)

    assert message.title == "Last night: 2 need you, 3 cleared themselves"
    assert message.severity is CRITICAL
    assert message.body == (
        "Act now: about s/worse\n"
        "s/worse, since Sun 22 Nov 23:00 CET, for 8 h\n"
        "Next: mend s/worse\n"
        "See docs/findings.md#x-y\n"
        "\n"
        "Act within days: about s/new\n"
        "s/new, since Sun 22 Nov 23:00 CET\n"
        "Next: mend s/new\n"
        "See docs/findings.md#x-y\n"
        "\n"
        "You were told, and it is over:\n"
        "- about s/woke, Sun 23:00, lasted 1 h 12 min\n"
        "- about s/old, Sun 20:00, lasted 3 h 12 min\n"
        "\n"
        "Came and went:\n"
        "- about s/brief, Sun 23:00, lasted 12 min"
    )
    assert owner.look(new, worse) == ()


def test_a_digest_of_what_is_over_begins_with_that_there_is_nothing_to_do() -> None:
    owner = Sleeper()
    owner.look(opened())
    owner.look(after=HOUR)

    (message,) = owner.wake_up()

    assert message.body.startswith("Nothing to do: what happened is over.")


def test_what_came_and_went_again_and_again_is_one_line() -> None:
    owner = Sleeper()
    for _ in range(40):
        owner.look(opened(at=owner.now), after=MINUTE)
        owner.look(after=MINUTE)

    (message,) = owner.wake_up()

    assert message.title == "Last night: nothing needs you, 1 cleared itself"
    assert message.body.count("about s/a") == 1


def test_what_did_not_last_at_night_is_no_news_in_the_morning() -> None:
    owner = Sleeper()
    owner.look(opened(steady_for=10 * MINUTE))
    owner.look(after=9 * MINUTE)

    assert owner.wake_up() == ()


def test_what_is_due_again_in_the_morning_joins_the_digest() -> None:
    owner = Sleeper(at=local("2026-11-21T12:00:00"))
    old, new = opened("s/old", at=owner.now), opened("s/new")
    owner.look(old)
    owner.now = EVENING
    owner.look(old, new)

    (message,) = owner.wake_up(old, new)

    assert message.title == "Last night: 2 need you"
    assert owner.look(old, new, after=12 * HOUR) == ()


def test_what_is_acknowledged_at_night_is_told_and_not_repeated() -> None:
    owner = Sleeper()
    owner.look(opened())
    owner.alerts = acknowledge(owner.alerts, [opened()], at=owner.now)

    assert len(owner.wake_up(opened())) == 1
    assert owner.look(opened(), after=40 * HOUR) == ()


def test_what_is_silenced_at_night_stands_in_no_digest() -> None:
    owner = Sleeper()
    owner.look(opened())
    until = EVENING + 24 * HOUR
    added = Silence(id="1", check="*", subject="s/a", since=EVENING, until=until, reason="r")
    owner.alerts = silence(owner.alerts, added)

    assert owner.wake_up(opened()) == ()
    owner.now = until + 9 * HOUR
    assert [one.title for one in owner.look(opened())] == ["Silence over, still open: about s/a"]


def test_who_was_woken_and_silenced_it_reads_nothing_of_it_in_the_morning() -> None:
    owner = Sleeper()
    owner.look(opened(severity=CRITICAL))
    until = EVENING + 24 * HOUR
    added = Silence(id="1", check="*", subject="s/a", since=EVENING, until=until, reason="r")
    owner.alerts = silence(owner.alerts, added)

    assert owner.wake_up(opened(severity=CRITICAL)) == ()


def test_what_is_silenced_at_night_and_gone_by_the_morning_is_not_told() -> None:
    owner = Sleeper()
    owner.look(opened())
    until = EVENING + 3 * HOUR
    added = Silence(id="1", check="*", subject="s/a", since=EVENING, until=until, reason="r")
    owner.alerts = silence(owner.alerts, added)
    owner.look(opened(), after=HOUR)
    owner.look(after=HOUR)

    assert owner.wake_up() == ()
    assert owner.look(after=MINUTE) == ()


def test_each_set_of_tags_has_a_digest_of_its_own() -> None:
    owner = Sleeper(routes=(Route(subjects=("node/*",), to=("mail",)),))
    both = (opened("node/a"), opened("s/b"))
    owner.look(*both)

    told = owner.wake_up(*both)

    assert {one.tags: one.title for one in told} == {
        (): "Last night: 1 needs you",
        ("mail",): "Last night: 1 needs you",
    }


def test_a_night_with_more_than_fits_names_some_and_counts_the_rest() -> None:
    owner = Sleeper()
    many = [opened(f"s/{number:03}") for number in range(EVENTS_KEPT + 50)]
    owner.look(*many)
    assert len(owner.alerts.events) == EVENTS_KEPT
    owner.look(*many[:100], after=HOUR)
    assert len(owner.alerts.events) == EVENTS_KEPT

    (message,) = owner.wake_up(*many[:100])

    assert message.title == "Last night: 100 need you, 150 cleared themselves"
    assert len(message.body) < 3500
    assert "more: opsd findings" in message.body
    assert "more: opsd history" in message.body
    assert owner.alerts.events == ()
    assert owner.look(*many[:100]) == ()


def test_critical_news_over_the_cap_come_at_night_when_there_is_room() -> None:
    owner = Sleeper(max_per_hour=1)
    both = (opened("s/a", CRITICAL), opened("s/b", CRITICAL))
    owner.look(both[0])
    assert owner.look(*both, after=MINUTE) == ()

    (message,) = owner.look(*both, after=HOUR)

    assert message.title == "Act now: about s/b"


def test_quiet_hours_by_day_are_not_called_a_night() -> None:
    noon = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    policy = Policy(quiet_hours="12:00-14:00")
    alerts, _ = advance(AlertState(), [opened(at=noon)], noon, policy=policy)

    _, (message,) = advance(alerts, [opened(at=noon)], noon + 2 * HOUR, policy=policy)

    assert message.title == "In quiet hours: 1 needs you"
