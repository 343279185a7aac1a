from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.alerts.channels import CHANNEL_DOWN, NOBODY_REACHED
from opsd.alerts.outbox import LEASE, LEAST_ATTEMPTS, MAX_AGE, Delivery, deliver, retry_after
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, TransientError
from opsd.model import Message, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, tell_nobody
from opsd.triage import OWN

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def state(tmp_path: Path, clock: FakeClock) -> Iterator[SqliteState]:
    store = SqliteState(tmp_path / "state.db", clock=clock)
    yield store
    store.close()


class Phones:
    """Targets that do what they are told; they remember what they accepted."""

    def __init__(self, **behaviour: Callable[[Message], None]) -> None:
        self.behaviour = behaviour
        self.accepted: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str]] = []

    @property
    def known(self) -> Mapping[str, Severity]:
        return {
            name: Severity.CRITICAL if name.startswith("critical") else Severity.WARNING
            for name in self.behaviour
        }

    def targets(self, message: Message) -> Sequence[str]:
        wanting = [name for name, least in self.known.items() if message.severity >= least]
        return [name for name in wanting if name in message.tags] or wanting

    def keys(self, target: str) -> list[str]:
        """What `target` accepted, in order."""
        return [key for name, key in self.accepted if name == target]

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        deadline.remaining()
        self.asked.append((target, message.key))
        self.behaviour[target](message)
        self.accepted.append((target, message.key))


def takes(_message: Message) -> None:
    pass


def refuses(_message: Message) -> None:
    raise TransientError("410 gone")


def crashes(_message: Message) -> None:
    raise ZeroDivisionError


def is_silent(_message: Message) -> None:
    raise DeadlineExceeded("no answer")


def tell(state: SqliteState, *keys: str, severity: Severity = Severity.CRITICAL) -> None:
    for key in keys:
        message = Message(key=key, severity=severity, title=key, body="")
        run = Run(
            job="j",
            run_id=key,
            slot=NOON,
            started_at=NOON,
            duration=timedelta(0),
            outcome=Outcome.COMPLETED,
        )
        state.record(run, tell=lambda alerts, _open, _at, one=message: (alerts, (one,)))  # type: ignore[misc]


def send(state: SqliteState, phones: Phones, clock: FakeClock, *, seconds: float = 60) -> Delivery:
    return deliver(
        state, phones, tell=tell_nobody, clock=clock, deadline=Deadline.after(seconds, clock)
    )


def test_what_is_due_is_sent_once_in_order(state: SqliteState, clock: FakeClock) -> None:
    tell(state, "a", "b")
    phones = Phones(phone=takes)

    first, second = send(state, phones, clock), send(state, phones, clock)

    assert phones.accepted == [("phone", "a"), ("phone", "b")]
    assert first == Delivery(delivered=2)
    assert second == Delivery()
    assert state.undelivered() == ()


def test_a_message_waits_until_every_target_has_it_and_none_gets_it_twice(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")
    phones = Phones(phone=takes, chat=refuses)

    first = send(state, phones, clock)
    phones.behaviour["chat"] = takes
    clock.advance(timedelta(seconds=5))
    second = send(state, phones, clock)

    assert first == Delivery(failed=1, errors=("chat: TransientError: 410 gone",))
    assert second == Delivery(delivered=1)
    assert phones.accepted == [("phone", "a"), ("chat", "a")]


def test_a_failed_message_is_not_tried_before_its_time(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")
    phones = Phones(phone=refuses)
    send(state, phones, clock)

    clock.advance(timedelta(seconds=5) - timedelta(microseconds=1))
    send(state, phones, clock)
    before = len(phones.asked)
    clock.advance(timedelta(microseconds=1))
    send(state, phones, clock)

    assert (before, len(phones.asked)) == (1, 2)


def test_waiting_doubles_from_five_seconds_to_a_quarter_of_an_hour() -> None:
    waits = [retry_after(attempts).total_seconds() for attempts in range(10)]

    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert retry_after(10_000) == timedelta(minutes=15)


def test_a_service_that_is_down_for_hours_loses_nothing(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a", "b")
    phones = Phones(phone=refuses)

    for _ in range(6 * 60):
        send(state, phones, clock)
        clock.advance(timedelta(minutes=1))
    phones.behaviour["phone"] = takes
    clock.advance(timedelta(minutes=15))
    send(state, phones, clock)

    assert phones.accepted == [("phone", "a"), ("phone", "b")]
    assert len(phones.asked) < 80


def test_one_message_that_a_service_refuses_does_not_hold_up_the_others(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "poison", "b")

    def picky(message: Message) -> None:
        if message.key == "poison":
            raise TransientError("400 bad request")

    phones = Phones(phone=picky)
    result = send(state, phones, clock)

    assert phones.accepted == [("phone", "b")]
    assert (result.delivered, result.failed) == (1, 1)


def test_a_target_that_does_not_answer_is_asked_once_in_a_pass(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a", "b", "c")
    phones = Phones(dead=is_silent, phone=takes)

    result = send(state, phones, clock)

    assert [key for target, key in phones.asked if target == "dead"] == ["a"]
    assert [key for target, key in phones.accepted] == ["a", "b", "c"]
    assert (result.failed, len(result.errors)) == (3, 1)


def test_a_target_that_crashes_stops_nothing(state: SqliteState, clock: FakeClock) -> None:
    tell(state, "a")

    result = send(state, Phones(broken=crashes, phone=takes), clock)

    assert result.errors == ("broken: ZeroDivisionError",)
    assert state.undelivered()[0].accepted_by == {"phone"}
    assert state.undelivered()[0].last_error == "broken: ZeroDivisionError"


def test_a_target_gets_only_what_is_severe_enough_for_it(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "light", severity=Severity.WARNING)
    tell(state, "heavy")
    phones = Phones(critical_only=takes, phone=takes)

    send(state, phones, clock)

    assert phones.keys("phone") == ["heavy", "light"]
    assert phones.keys("critical_only") == ["heavy"]
    assert state.undelivered() == ()


def test_a_message_that_nobody_wants_does_not_wait(state: SqliteState, clock: FakeClock) -> None:
    tell(state, "a")

    send(state, Phones(), clock)

    assert state.undelivered() == ()


def test_the_rest_waits_when_the_deadline_passes(state: SqliteState, clock: FakeClock) -> None:
    tell(state, "a", "b", "c")

    def slow(_message: Message) -> None:
        clock.advance(timedelta(seconds=40))

    phones = Phones(phone=slow)
    result = send(state, phones, clock)

    assert result == Delivery(delivered=2)
    assert [entry.message.key for entry in state.undelivered()] == ["c"]
    assert state.undelivered()[0].attempts == 0


def test_two_never_deliver_at_once(state: SqliteState, clock: FakeClock) -> None:
    tell(state, "a")
    phones = Phones(phone=takes)

    with state.lease(LEASE, "other"):
        result = send(state, phones, clock)

    assert result == Delivery(busy=True)
    assert phones.asked == []


def test_what_a_target_took_before_a_crash_is_not_sent_there_again(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")

    def dies(_message: Message) -> None:
        raise KeyboardInterrupt

    phones = Phones(phone=takes, chat=dies)
    with pytest.raises(KeyboardInterrupt):
        send(state, phones, clock)
    phones.behaviour["chat"] = takes
    send(state, phones, clock)

    assert phones.accepted == [("phone", "a"), ("chat", "a")]


def pass_time(
    state: SqliteState,
    phones: Phones,
    clock: FakeClock,
    *,
    hours: float,
    step: timedelta = timedelta(minutes=20),
) -> None:
    """Let opsd try as it does, with nothing else to do."""
    until = clock.wall + timedelta(hours=hours)
    while clock.wall < until:
        send(state, phones, clock)
        clock.advance(step)


def waiting(state: SqliteState, target: str) -> list[str]:
    return [e.message.key for e in state.undelivered() if target not in e.accepted_by]


def test_the_worst_news_is_sent_first(state: SqliteState, clock: FakeClock) -> None:
    tell(state, "light", severity=Severity.WARNING)
    tell(state, "heavy", "heavier")
    phones = Phones(phone=takes)

    send(state, phones, clock)

    assert phones.keys("phone") == ["heavy", "heavier", "light"]


def test_a_slow_target_holds_up_no_other(state: SqliteState, clock: FakeClock) -> None:
    keys = [f"m{number}" for number in range(20)]
    tell(state, *keys)
    fast_has_all = threading.Event()

    def waits_for_the_others(_message: Message) -> None:
        assert fast_has_all.wait(20)

    def counts(message: Message) -> None:
        if message.key == keys[-1]:
            fast_has_all.set()

    phones = Phones(slow=waits_for_the_others, fast=counts)
    result = send(state, phones, clock)

    assert result == Delivery(delivered=20)
    assert phones.keys("fast") == phones.keys("slow") == keys


def test_five_hundred_messages_reach_everybody_once_over_many_passes(
    state: SqliteState, clock: FakeClock
) -> None:
    keys = [f"m{number}" for number in range(500)]
    storm = [Message(key=key, severity=Severity.WARNING, title=key, body="") for key in keys]
    state.tell(lambda alerts, _open, _at: (alerts, storm))
    fast_has_all = threading.Event()

    def takes_a_second(_message: Message) -> None:
        assert fast_has_all.wait(20)
        clock.advance(timedelta(seconds=1))

    def counts(message: Message) -> None:
        if message.key == keys[-1]:
            fast_has_all.set()

    phones = Phones(slow=takes_a_second, fast=counts)
    passes = [send(state, phones, clock, seconds=120) for _ in range(5)]

    assert [done.delivered for done in passes] == [116, 116, 116, 116, 36]
    assert [done.failed for done in passes] == [0] * 5
    assert phones.keys("slow") == phones.keys("fast") == keys
    assert state.undelivered() == ()


def test_what_was_not_taken_for_a_day_becomes_one_message_for_that_target(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "old")
    tell(state, "older", severity=Severity.WARNING)
    phones = Phones(dead=refuses, phone=takes)

    pass_time(state, phones, clock, hours=24)
    before = waiting(state, "dead")
    tell(state, "young")
    pass_time(state, phones, clock, hours=1)
    after = state.undelivered()
    phones.behaviour["dead"] = takes
    pass_time(state, phones, clock, hours=1)

    assert before == ["old", "older"]
    assert [entry.message.key for entry in after] == ["young", "collapse/dead/2"]
    assert after[1].message.title == "While dead could not be reached: 2 messages"
    assert after[1].message.body.splitlines()[:2] == [
        "2026-11-22 12:00 critical: old",
        "2026-11-22 12:00 warning: older",
    ]
    assert phones.keys("dead") == ["young", "collapse/dead/2"]
    assert phones.keys("phone") == ["old", "older", "young"]
    assert state.undelivered() == ()


def test_a_message_is_given_up_after_a_day_and_not_before(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")
    phones = Phones(dead=refuses)
    pass_time(state, phones, clock, hours=20)

    clock.wall = NOON + MAX_AGE
    send(state, phones, clock)
    before = waiting(state, "dead")
    clock.advance(timedelta(minutes=15))
    send(state, phones, clock)

    assert before == ["a"]
    assert waiting(state, "dead") == ["collapse/dead/1"]


def test_what_is_missed_later_joins_the_earlier_collapse(
    state: SqliteState, clock: FakeClock
) -> None:
    phones = Phones(dead=refuses)
    for day in range(3):
        tell(state, *(f"day{day}-{number}" for number in range(20)))
        pass_time(state, phones, clock, hours=24, step=timedelta(hours=2))
    pass_time(state, phones, clock, hours=26, step=timedelta(hours=2))

    [entry] = state.undelivered()

    lines = entry.message.body.splitlines()
    assert entry.message.title == "While dead could not be reached: 60 messages"
    assert lines[40] == "and 20 more: opsd history"
    assert "collapse" not in entry.message.body
    assert entry.message.tags == ("dead",)


def test_a_target_that_takes_messages_again_is_given_all_of_them_however_old(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")
    phones = Phones(dead=refuses)
    pass_time(state, phones, clock, hours=23)

    clock.advance(timedelta(hours=5))
    phones.behaviour["dead"] = takes
    send(state, phones, clock)

    assert phones.keys("dead") == ["a"]


@pytest.mark.parametrize(
    "step", [timedelta(days=400), timedelta(days=-400), timedelta(hours=1), timedelta(hours=-1)]
)
def test_a_clock_that_jumps_gives_nothing_up_and_delays_nothing(
    step: timedelta, state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a", "b")
    phones = Phones(phone=refuses)
    pass_time(state, phones, clock, hours=0.4, step=timedelta(minutes=5))

    clock.wall += step
    send(state, phones, clock)
    still_waiting = waiting(state, "phone")
    phones.behaviour["phone"] = takes
    clock.advance(timedelta(minutes=15))
    send(state, phones, clock)

    assert still_waiting == ["a", "b"]
    assert phones.keys("phone") == ["a", "b"]


def test_a_message_that_only_a_clock_made_old_is_given_up_after_many_tries(
    state: SqliteState, clock: FakeClock
) -> None:
    clock.wall = datetime(1970, 1, 1, tzinfo=UTC)
    tell(state, "a")
    clock.wall = NOON
    phones = Phones(phone=refuses)

    for _ in range(LEAST_ATTEMPTS - 1):
        send(state, phones, clock)
        clock.advance(timedelta(minutes=15))
    before = waiting(state, "phone")
    send(state, phones, clock)

    assert before == ["a"]
    assert waiting(state, "phone") == ["collapse/phone/1"]


def own_findings(state: SqliteState) -> dict[str, Severity]:
    return {
        entry.finding.subject: entry.finding.severity for entry in state.open_findings(job=OWN)
    }


def test_a_channel_that_takes_nothing_is_a_finding_until_it_takes_something(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a", severity=Severity.WARNING)
    phones = Phones(dead=refuses, phone=takes)

    send(state, phones, clock)
    [entry] = state.open_findings(job=OWN)
    phones.behaviour["dead"] = takes
    clock.advance(timedelta(seconds=5))
    send(state, phones, clock)

    assert entry.finding.check == CHANNEL_DOWN
    assert entry.finding.facts == {"error": "TransientError: 410 gone", "waiting": 1}
    assert own_findings(state) == {}


def test_when_no_channel_is_left_that_is_a_finding_too(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a", severity=Severity.WARNING)
    phones = Phones(one=refuses, two=is_silent)

    send(state, phones, clock)
    checks = {entry.finding.check for entry in state.open_findings(job=OWN)}
    muted = own_findings(state)
    phones.behaviour["two"] = takes
    clock.advance(timedelta(seconds=5))
    send(state, phones, clock)

    assert checks == {CHANNEL_DOWN, NOBODY_REACHED}
    assert muted == {
        "channel/one": Severity.CRITICAL,
        "channel/two": Severity.CRITICAL,
        "channels": Severity.CRITICAL,
    }
    assert own_findings(state) == {"channel/one": Severity.WARNING}


def test_nothing_is_written_about_channels_while_all_are_well(
    state: SqliteState, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(state, "a")
    observed: list[object] = []
    monkeypatch.setattr(state, "observe", lambda *_args, **_kwargs: observed.append(1))

    send(state, Phones(phone=takes), clock)

    assert observed == []


def test_what_is_old_is_not_given_up_while_its_target_takes_messages_again(
    state: SqliteState, clock: FakeClock
) -> None:
    keys = [f"m{number}" for number in range(5)]
    tell(state, *keys)
    phones = Phones(phone=refuses)
    pass_time(state, phones, clock, hours=23)
    clock.advance(timedelta(hours=2))

    def takes_its_time(_message: Message) -> None:
        clock.advance(timedelta(seconds=40))

    phones.behaviour["phone"] = takes_its_time
    for _ in range(3):
        send(state, phones, clock)

    assert phones.keys("phone") == keys


def test_what_is_refused_first_and_taken_later_in_the_same_pass_is_delivered(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")

    def takes_the_second_time(message: Message) -> None:
        if message.key == "a" and phones.asked.count(("phone", "a")) == 1:
            raise TransientError("busy")

    def hears_more_meanwhile(message: Message) -> None:
        if message.key == "a":
            tell(state, "b")
        else:
            clock.advance(timedelta(seconds=20))

    phones = Phones(phone=takes_the_second_time, chat=hears_more_meanwhile)
    result = send(state, phones, clock)

    assert sorted(phones.keys("phone")) == ["a", "b"]
    assert result.delivered == 2
    assert state.undelivered() == ()


def test_a_target_that_there_was_no_time_to_ask_is_not_down(
    state: SqliteState, clock: FakeClock
) -> None:
    tell(state, "a")

    class Late(Phones):
        def targets(self, message: Message) -> Sequence[str]:
            clock.advance(timedelta(minutes=1))
            return super().targets(message)

    late = Late(phone=takes)
    result = send(state, late, clock)

    assert result == Delivery()
    assert late.asked == []
    assert own_findings(state) == {}


def test_a_target_that_keeps_no_deadline_is_left_and_counts_as_refusing(
    state: SqliteState, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.alerts.courier._PATIENCE_S", 2.0)
    tell(state, "a")
    phone_has_it, may_end = threading.Event(), threading.Event()

    def never_ends(_message: Message) -> None:
        phone_has_it.wait(20)
        clock.advance(timedelta(hours=1))
        may_end.wait(20)
        raise TransientError("too late")

    phones = Phones(phone=lambda _message: phone_has_it.set(), stuck=never_ends)
    result = send(state, phones, clock, seconds=6)
    may_end.set()

    assert result.failed == 1
    assert result.errors == ("stuck: it neither answers nor keeps the deadline",)
    assert state.undelivered()[0].accepted_by == {"phone"}
    assert own_findings(state) == {"channel/stuck": Severity.WARNING}
