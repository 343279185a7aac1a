"""The service that brings messages refuses, hangs or is down while a run has something to say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from opsd.cli.calling import STATE_FILE
from opsd.clock import SystemClock
from opsd.state.sqlite import SqliteState
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
