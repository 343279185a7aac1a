from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.alerts.outbox import LEASE, Delivery, deliver, retry_after
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded, TransientError
from opsd.model import Message, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock

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

    def targets(self, message: Message) -> Sequence[str]:
        return [
            name
            for name in self.behaviour
            if message.severity is Severity.CRITICAL or not name.startswith("critical")
        ]

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
    return deliver(state, phones, clock=clock, deadline=Deadline.after(seconds, clock))


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

    assert phones.accepted == [("phone", "light"), ("critical_only", "heavy"), ("phone", "heavy")]
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
