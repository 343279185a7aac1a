"""The heartbeat beats while everything essential works, and stops when any of it does not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.alerts import outbox
from opsd.alerts.channels import CHANNEL_DOWN, NOBODY_REACHED
from opsd.alerts.heartbeat import (
    LOOK_AGAIN,
    MUTE_AFTER,
    OLDEST_TICK,
    Heartbeat,
    Vitals,
    complaint,
)
from opsd.clients.pings import Endpoint
from opsd.clock import Deadline
from opsd.errors import TransientError
from opsd.model import Finding, Message, OpenFinding, Severity
from opsd.secrets import Secret
from opsd.state import OutboxEntry
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, tell_nobody
from opsd.triage import OWN
from tests.rig.sink import Sink

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
EVERY = timedelta(minutes=5)
TICK = timedelta(seconds=10)
SOON = timedelta(microseconds=1)


def waits(*, since: timedelta) -> OutboxEntry:
    message = Message(key="k", severity=Severity.CRITICAL, title="t", body="b")
    return OutboxEntry(
        id=1,
        message=message,
        created_at=NOON - timedelta(days=3),
        attempts=1,
        next_try_at=NOON - since,
        last_error="",
    )


def found(check: str, *, since: timedelta) -> OpenFinding:
    finding = Finding(check=check, subject="s", severity=Severity.CRITICAL, summary="")
    return OpenFinding(finding=finding, job=OWN, opened_at=NOON - since)


@pytest.mark.parametrize(
    ("vitals", "word"),
    [
        pytest.param(Vitals(tick_age=OLDEST_TICK + SOON), "scheduler", id="it does not tick"),
        pytest.param(Vitals(tick_age=TICK, overdue=("nfs-backup",)), "nfs-backup", id="it hangs"),
        pytest.param(
            Vitals(tick_age=TICK, waiting=(waits(since=MUTE_AFTER + SOON),)),
            "nobody tried",
            id="nothing is sent",
        ),
        pytest.param(
            Vitals(tick_age=TICK, own_findings=(found(NOBODY_REACHED, since=MUTE_AFTER + SOON),)),
            "no target",
            id="nobody is reached",
        ),
    ],
)
def test_it_says_what_is_not_well(vitals: Vitals, word: str) -> None:
    assert word in complaint(vitals, now=NOON)


@pytest.mark.parametrize(
    "vitals",
    [
        pytest.param(Vitals(tick_age=OLDEST_TICK), id="it just ticked"),
        pytest.param(Vitals(tick_age=TICK, waiting=(waits(since=MUTE_AFTER),)), id="just tried"),
        pytest.param(
            Vitals(tick_age=TICK, waiting=(waits(since=-MUTE_AFTER),)), id="tried again later"
        ),
        pytest.param(
            Vitals(tick_age=TICK, own_findings=(found(NOBODY_REACHED, since=MUTE_AFTER),)),
            id="nobody is reached for a moment",
        ),
        pytest.param(
            Vitals(tick_age=TICK, own_findings=(found(CHANNEL_DOWN, since=timedelta(days=2)),)),
            id="one channel of several is down for days",
        ),
    ],
)
def test_it_is_well(vitals: Vitals) -> None:
    assert complaint(vitals, now=NOON) == ""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def state(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SqliteState]:
    monkeypatch.setattr("opsd.state.database.BUSY_TIMEOUT", timedelta(seconds=0.01))
    store = SqliteState(tmp_path / "state.db", clock=clock)
    yield store
    store.close()


class Life:
    """A daemon's supervising loop: it looks every ten seconds, and ticks while it can."""

    def __init__(self, state: SqliteState, clock: FakeClock, heartbeat: Heartbeat) -> None:
        self.state = state
        self.clock = clock
        self.heartbeat = heartbeat
        self.ticks = True
        self.overdue: Sequence[str] = ()
        self.delivers: Callable[[], object] = lambda: None
        self._ticked_at = clock.monotonic()

    def goes_on(self, duration: timedelta) -> None:
        for _ in range(int(duration / TICK)):
            self.clock.advance(TICK)
            if self.ticks:
                self._ticked_at = self.clock.monotonic()
                self.delivers()
            self.heartbeat.beat_if_due(ticked_at=self._ticked_at, overdue=self.overdue)
            self.heartbeat.wait(10)


@pytest.fixture
def life(
    state: SqliteState, clock: FakeClock, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> Life:
    monkeypatch.setenv("OPSD_TEST_HEARTBEAT", f"{sink.url}/c4naryToken42")
    endpoint = Endpoint(name="heartbeat", url=Secret("env:OPSD_TEST_HEARTBEAT"), kind="plain")
    return Life(state, clock, Heartbeat(endpoint, every=EVERY, state=state, clock=clock))


@pytest.mark.real
def test_it_beats_at_once_and_then_as_often_as_it_should(life: Life, sink: Sink) -> None:
    life.goes_on(TICK)
    first = len(sink.requests)
    life.goes_on(timedelta(hours=1))

    assert (first, len(sink.requests)) == (1, 13)
    assert {(request.method, request.path) for request in sink.requests} == {
        ("GET", "/c4naryToken42")
    }


class Dead:
    """A notifier none of whose targets takes anything."""

    known: Mapping[str, Severity] = {"phone": Severity.WARNING, "chat": Severity.WARNING}

    def targets(self, _message: Message) -> Sequence[str]:
        return tuple(self.known)

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        raise TransientError(f"{target} refuses {message.key} at {deadline.at}")


class HalfDead(Dead):
    """One of the two takes everything."""

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        if target == "phone":
            super().send(target, message, deadline=deadline)


def deliver(life: Life, notifier: outbox.Notifier) -> None:
    if life.state.due_messages(life.clock.now(), limit=1):
        deadline = Deadline.after(60, life.clock)
        outbox.deliver(life.state, notifier, tell=tell_nobody, clock=life.clock, deadline=deadline)


def leave_message(life: Life) -> None:
    message = Message(key="k", severity=Severity.CRITICAL, title="t", body="b")
    life.state.tell(lambda alerts, _open, _at: (alerts, (message,)))


def stop_ticking(life: Life) -> None:
    life.ticks = False


def hang_a_run(life: Life) -> None:
    life.overdue = ("nfs-backup",)


def never_deliver(life: Life) -> None:
    leave_message(life)


def reach_nobody(life: Life) -> None:
    leave_message(life)
    life.delivers = lambda: deliver(life, Dead())


@pytest.mark.real
@pytest.mark.parametrize(
    ("trouble", "after"),
    [
        pytest.param(stop_ticking, timedelta(0), id="the scheduler stands still"),
        pytest.param(hang_a_run, timedelta(0), id="a run does not end"),
        pytest.param(never_deliver, MUTE_AFTER, id="messages are not sent"),
        pytest.param(reach_nobody, MUTE_AFTER, id="every channel is down"),
    ],
)
def test_it_stops_within_two_periods_when_something_essential_is_stuck(
    trouble: Callable[[Life], None],
    after: timedelta,
    life: Life,
    sink: Sink,
    capsys: pytest.CaptureFixture[str],
) -> None:
    life.goes_on(timedelta(minutes=30))

    trouble(life)
    life.goes_on(after + 2 * EVERY)
    before = len(sink.requests)
    life.goes_on(timedelta(hours=6))

    assert len(sink.requests) == before
    assert capsys.readouterr().out.count("heartbeat.withheld") == 1


@pytest.mark.real
def test_it_stops_when_the_state_cannot_be_written(life: Life, sink: Sink, tmp_path: Path) -> None:
    life.goes_on(EVERY)
    before = len(sink.requests)

    with closing(sqlite3.connect(tmp_path / "state.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        life.goes_on(2 * EVERY)
        during = len(sink.requests)
        other.execute("ROLLBACK")
    life.goes_on(LOOK_AGAIN)

    assert (before, during, len(sink.requests)) == (1, 1, 2)


@pytest.mark.real
def test_one_dead_channel_of_two_does_not_stop_it(life: Life, sink: Sink) -> None:
    leave_message(life)
    life.delivers = lambda: deliver(life, HalfDead())

    life.goes_on(timedelta(hours=6))

    assert life.state.undelivered() != ()
    assert len(sink.requests) == 72


@pytest.mark.real
def test_it_goes_on_soon_after_everything_works_again(
    life: Life, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    life.overdue = ("nfs-backup",)
    life.goes_on(timedelta(hours=1))
    before = len(sink.requests)

    life.overdue = ()
    life.goes_on(LOOK_AGAIN)

    assert (before, len(sink.requests)) == (0, 1)
    assert "heartbeat.resumed" in capsys.readouterr().out


@pytest.mark.real
def test_a_service_that_is_down_is_called_again_soon_and_its_url_is_not_shown(
    life: Life, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    sink.refuse()
    life.goes_on(timedelta(minutes=1))

    sink.listen()
    life.goes_on(LOOK_AGAIN)

    said = capsys.readouterr().out
    assert len(sink.requests) == 1
    assert "env:OPSD_TEST_HEARTBEAT" in said
    assert "c4naryToken42" not in said


@pytest.mark.real
def test_a_beat_that_hangs_holds_up_nobody_and_no_second_one_is_begun(
    life: Life, sink: Sink
) -> None:
    sink.hang()
    life.heartbeat.beat_if_due(ticked_at=life.clock.monotonic())
    sink.wait_for(1)

    for _ in range(100):
        life.clock.advance(EVERY)
        life.heartbeat.beat_if_due(ticked_at=life.clock.monotonic())
    beating = [thread for thread in threading.enumerate() if thread.name == "heartbeat"]
    sink.answer(200)
    life.heartbeat.wait(10)

    assert len(beating) == 1
    assert len(sink.requests) == 1


@pytest.mark.parametrize("step", [timedelta(days=400), timedelta(days=-400)])
@pytest.mark.real
def test_a_clock_that_jumps_does_not_change_how_often_it_beats(
    step: timedelta, life: Life, sink: Sink
) -> None:
    life.goes_on(timedelta(minutes=30))
    life.clock.wall += step
    life.goes_on(timedelta(minutes=30))

    assert len(sink.requests) == 12
