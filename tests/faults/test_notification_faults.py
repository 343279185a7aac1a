"""The service that brings messages refuses, hangs or is down while a run has something to say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.alerts.channels import CHANNEL_DOWN, NOBODY_REACHED
from opsd.alerts.outbox import Delivery, deliver
from opsd.cli.calling import STATE_FILE
from opsd.clients.notify import Notifier
from opsd.clock import Deadline, SystemClock
from opsd.config import AlertTarget
from opsd.model import Message, Severity
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock, tell_at_once
from opsd.triage import OWN
from tests.rig import scratch
from tests.rig import sink as http_sink
from tests.rig.home import Home
from tests.rig.sink import Sink

pytestmark = pytest.mark.real

FAULTS: dict[str, Callable[[Sink], None]] = {
    "refuses connections": Sink.refuse,
    "takes the message and never answers": Sink.hang,
}


@pytest.fixture
def sink() -> Iterator[Sink]:
    with http_sink.running() as running:
        yield running


@pytest.fixture
def home(sink: Sink) -> Iterator[Home]:
    """An installation with an empty share: a run has something to say."""
    with scratch.directory("notification") as place:
        home = Home(place=place)
        home.share.mkdir()
        home.write(home.shares("rsync"), alerts=sink.url.replace("http", "json"))
        yield home


def wait_until_due(home: Home) -> None:
    """Until the outbox wants to try again, as it decided itself."""
    state = SqliteState(home.place / "state" / STATE_FILE, clock=SystemClock())
    try:
        while not state.due_messages(datetime.now(UTC)):
            assert state.undelivered(), "nothing waits"
            time.sleep(0.1)
    finally:
        state.close()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_run_ends_as_it_would_and_the_message_waits_is_shown_and_comes_once(
    home: Home, sink: Sink, fault: Callable[[Sink], None]
) -> None:
    fault(sink)

    ran = home.opsd("run-job", "nfs-backup", "-o", "json")
    status = home.opsd("status")
    hung = len(sink.requests)
    sink.answer(200)
    if fault is Sink.refuse:
        sink.listen()
    wait_until_due(home)
    delivered = [home.opsd("deliver", "-o", "json").json["delivered"] for _ in range(2)]
    titles = [json.loads(request.body)["title"] for request in sink.requests[hung:]]

    [run] = ran.json["runs"]
    assert (ran.status, run["outcome"]) == (1, "failed")
    assert [one["check"] for one in run["findings"]] == ["nfs.empty"]
    assert status.status == 3
    assert "1 message not delivered" in status.out
    assert delivered == [1, 0]
    assert len(titles) == 1
    assert titles[0].startswith("Act now: ")


@pytest.fixture
def chat() -> Iterator[Sink]:
    """A second service, which does not share its fate with the first."""
    with http_sink.running() as running:
        yield running


class Outbox:
    """An outbox with two real services, on a clock that moves only when told to."""

    def __init__(self, place: Path, sinks: dict[str, Sink]) -> None:
        self.clock = FakeClock()
        self.state = SqliteState(place / "state.db", clock=self.clock)
        self.notifier = Notifier([_target(place, name, sink) for name, sink in sinks.items()])

    def put(self, *keys: str) -> None:
        messages = [
            Message(key=key, severity=Severity.CRITICAL, title=key, body=key) for key in keys
        ]
        self.state.tell(lambda alerts, _open, _at: (alerts, messages))

    def deliver(self) -> Delivery:
        return deliver(
            self.state,
            self.notifier,
            tell=tell_at_once,
            clock=self.clock,
            deadline=Deadline.after(60, self.clock),
        )

    def goes_on(self, duration: timedelta, *, step: timedelta = timedelta(minutes=10)) -> None:
        """What the daemon does all day: look what people must be told, and send it."""
        for _ in range(int(duration / step)):
            self.state.tell(tell_at_once)
            self.deliver()
            self.clock.advance(step)

    def open_checks(self) -> set[str]:
        return {entry.finding.check for entry in self.state.open_findings(job=OWN)}


def _target(place: Path, name: str, sink: Sink) -> AlertTarget:
    (place / name).write_text(sink.url.replace("http", "json"))
    return AlertTarget.model_validate({"name": name, "url": f"file:{place / name}"})


@pytest.fixture
def outbox(tmp_path: Path, sink: Sink, chat: Sink) -> Iterator[Outbox]:
    one = Outbox(tmp_path, {"phone": sink, "chat": chat})
    yield one
    one.state.close()


def titles(sink: Sink) -> list[str]:
    return [json.loads(request.body)["title"] for request in sink.requests]


def test_after_six_hours_without_any_channel_everything_arrives_once(
    outbox: Outbox, sink: Sink, chat: Sink
) -> None:
    for service in (sink, chat):
        service.refuse()
    outbox.put("first")
    outbox.goes_on(timedelta(hours=3))
    outbox.put("second")
    outbox.goes_on(timedelta(hours=3))
    while_down = outbox.open_checks()

    for service in (sink, chat):
        service.listen()
    outbox.goes_on(timedelta(hours=1))

    assert while_down == {CHANNEL_DOWN, NOBODY_REACHED}
    assert outbox.open_checks() == set()
    assert outbox.state.undelivered() == ()
    for service in (sink, chat):
        arrived = titles(service)
        assert {"first", "second"} <= set(arrived)
        assert len(arrived) == len(set(arrived))


def test_a_dead_channel_is_told_through_the_other_and_so_is_its_return(
    outbox: Outbox, sink: Sink, chat: Sink
) -> None:
    sink.refuse()
    outbox.put("first")

    outbox.goes_on(timedelta(hours=1))
    told = titles(chat)
    sink.listen()
    outbox.goes_on(timedelta(hours=1))

    assert told[0] == "first"
    assert any("phone takes no messages" in title for title in told[1:])
    assert any(title.startswith("Resolved: ") for title in titles(chat)[len(told) :])


def test_a_dead_channel_is_given_one_message_for_what_it_missed_for_days(
    outbox: Outbox, sink: Sink, chat: Sink
) -> None:
    sink.refuse()
    for day in range(3):
        outbox.put(*(f"day {day} message {number}" for number in range(4)))
        outbox.goes_on(timedelta(days=1), step=timedelta(hours=2))
    outbox.goes_on(timedelta(hours=2))

    sink.listen()
    outbox.goes_on(timedelta(hours=1))

    [missed] = [title for title in titles(sink) if title.startswith("While phone")]
    [body] = [
        json.loads(request.body)["message"]
        for request in sink.requests
        if b"While phone" in request.body
    ]
    assert "could not be reached" in missed
    assert all(f"day {day} message {number}" in body for day in range(3) for number in range(4))
    assert {f"day 2 message {number}" for number in range(4)} <= set(titles(chat))
    assert outbox.state.undelivered() == ()


def test_a_service_that_hangs_holds_up_no_other(home: Home, sink: Sink, chat: Sink) -> None:
    second = f'[[alerts.targets]]\nname = "chat"\nurl = "file:{home.place}/chat"\n'
    (home.place / "chat").write_text(chat.url.replace("http", "json"))
    home.write(home.shares("rsync"), second, alerts=sink.url.replace("http", "json"))
    sink.hang()

    with home.running("run-job", "nfs-backup", "-o", "json") as running:
        arrived = chat.wait_for(1, timeout=60)
        is_waiting_for_the_other = running.poll() is None
        running.communicate()
    status = home.opsd("status", "-o", "json").json

    assert len(arrived) == 1
    assert is_waiting_for_the_other
    assert [one["attempts"] for one in status["undelivered"]] == [1]
    assert {one["check"] for one in status["findings"]} >= {CHANNEL_DOWN}
