"""Watches that break in every way, and what is still told of the cluster."""

from __future__ import annotations

import itertools
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from opsd.clients.kube import watching
from opsd.clients.kube.calls import Selection
from opsd.clients.kube.client import Kube
from opsd.clients.kube.cluster import Cluster
from opsd.clients.kube.errors import Expired, Forbidden
from opsd.clients.kube.objects import Pod
from opsd.clients.kube.transport import Transport
from opsd.clients.kube.watching import follow, watch
from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded
from tests.rig.rawhttp import chunked, speaking
from tests.rig.sink import Answer, Request, Sink

pytestmark = pytest.mark.real


class Anyone:
    def authorization(self) -> str:
        return ""

    def renew(self) -> bool:
        return False


@dataclass
class Desk:
    """A client; its pauses are noted and not waited for."""

    url: str
    pauses: list[float] = field(default_factory=list)
    within_s: float = 20

    @property
    def kube(self) -> Kube:
        found = Cluster(url=self.url, credentials=Anyone(), tls=ssl.create_default_context)
        transport = Transport(lambda: found, pause=self.pauses.append)
        return Kube(transport, deadline=Deadline.after(self.within_s, SystemClock()))

    def watched(self, count: int) -> list[str]:
        changes = watch(self.kube, Pod, Selection(), since="1")
        return [shown(change) for change in itertools.islice(changes, count)]

    def followed(self, count: int) -> list[str]:
        return [shown(change) for change in itertools.islice(follow(self.kube, Pod), count)]


def versions(sink: Sink) -> list[str]:
    """From which version each watch was to go on; empty for a list."""
    queries = [parse_qs(urlsplit(request.path).query) for request in sink.requests]
    return [query.get("resourceVersion", [""])[0] for query in queries]


def shown(change: watching.Change[Pod]) -> str:
    return f"{change.type.name} {change.object.uid}"


def line(kind: str, uid: str, version: int) -> bytes:
    item = {"metadata": {"uid": uid, "name": uid, "resourceVersion": str(version)}}
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def pods(version: int, *items: tuple[str, int]) -> bytes:
    metadata = [{"metadata": {"uid": uid, "resourceVersion": str(at)}} for uid, at in items]
    return json.dumps({"metadata": {"resourceVersion": str(version)}, "items": metadata}).encode()


def error_line(code: int) -> bytes:
    status = {"kind": "Status", "code": code, "reason": "Why", "message": "too old"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def in_turn(*answers: Any) -> Callable[[Request], Answer]:
    """Each answer once, the last for ever."""
    left = [one if isinstance(one, Answer) else Answer(body=one) for one in answers]
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


def test_a_watch_goes_on_where_the_connection_ended(sink: Sink) -> None:
    desk = Desk(sink.url)
    sink.answer_by(
        in_turn(
            line("ADDED", "a", 2) + line("BOOKMARK", "", 7),
            line("MODIFIED", "a", 9),
            line("DELETED", "a", 12),
        )
    )

    seen = desk.watched(3)

    assert seen == ["ADDED a", "MODIFIED a", "DELETED a"]
    assert versions(sink) == ["1", "7", "9"]


def test_a_server_that_closes_after_each_event_is_asked_ever_more_slowly(sink: Sink) -> None:
    desk = Desk(sink.url, within_s=1000)
    sink.answer_by(lambda _request: Answer(body=line("MODIFIED", "a", len(sink.requests) + 1)))

    desk.watched(8)

    assert desk.pauses == [1, 2, 4, 8, 16, 30, 30]


def test_pauses_begin_small_again_after_a_connection_that_held(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(sink.url)
    sink.answer(200, line("MODIFIED", "a", 2))
    monkeypatch.setattr(watching, "LONGEST_PAUSE_S", 0.0)

    desk.watched(4)

    assert desk.pauses == [1, 1, 1]


@pytest.mark.parametrize(
    "broken",
    [
        b"\n\n",
        line("ADDED", "half", 3)[:20],
        b"<html>\n",
        b"null\n",
        b'{"type": "MOVED", "object": {}}\n',
        b'{"type": "ADDED", "object": 3}\n',
        error_line(500),
        Answer(status=503),
    ],
    ids=["blank", "truncated", "html", "null", "unknown", "no object", "error line", "503"],
)
def test_a_line_that_is_none_is_skipped_with_its_connection(broken: Any, sink: Sink) -> None:
    desk = Desk(sink.url)
    good = line("ADDED", "a", 5)
    first = Answer(body=good) if isinstance(broken, Answer) else Answer(body=good + broken)
    rest = [broken] if isinstance(broken, Answer) else []
    sink.answer_by(in_turn(first, *rest, line("ADDED", "b", 6)))

    seen = desk.watched(2)

    assert seen == ["ADDED a", "ADDED b"]
    assert versions(sink) == ["1", *["5"] * (1 + len(rest))]


@pytest.mark.parametrize("answer", [Answer(status=410), Answer(body=error_line(410))])
def test_a_forgotten_version_is_told_to_who_watches(answer: Answer, sink: Sink) -> None:
    sink.answer_by(lambda _request: answer)

    with pytest.raises(Expired, match=r"^watch pods: 410"):
        Desk(sink.url).watched(1)

    assert len(sink.requests) == 1


def test_a_watch_that_is_not_allowed_ends(sink: Sink) -> None:
    sink.answer(403)

    with pytest.raises(Forbidden, match=r"^watch pods: 403"):
        Desk(sink.url).watched(1)
    with pytest.raises(Forbidden, match=r"^list pods: 403"):
        Desk(sink.url).followed(1)


def test_a_silent_connection_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENCE_S", 0.2)

    with speaking(chunked(line("ADDED", "a", 2))) as (url, connections):
        seen = Desk(url).watched(3)

    assert seen == ["ADDED a"] * 3
    assert len(connections) == 3


def test_a_connection_without_even_a_bookmark_makes_the_version_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "SILENCE_S", 0.2)

    with (
        speaking(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") as (url, _),
        pytest.raises(Expired, match=r"^watch pods: .*its version may be lost"),
    ):
        Desk(url).watched(1)


def test_a_watch_ends_with_its_deadline(sink: Sink) -> None:
    sink.answer(200, b"")
    desk = Desk(sink.url, within_s=0.3)

    with pytest.raises(DeadlineExceeded):
        desk.watched(1)

    assert all(pause <= 0.3 for pause in desk.pauses)


def test_following_begins_with_what_is_there(sink: Sink) -> None:
    desk = Desk(sink.url)
    sink.answer_by(in_turn(pods(10, ("a", 3), ("b", 4)), line("DELETED", "a", 11)))

    seen = desk.followed(3)

    assert seen == ["ADDED a", "ADDED b", "DELETED a"]
    assert versions(sink) == ["", "10"]


def test_what_was_deleted_while_nobody_watched_is_told(sink: Sink) -> None:
    desk = Desk(sink.url)
    sink.answer_by(
        in_turn(
            pods(10, ("gone", 3), ("same", 4), ("changed", 5)),
            line("ADDED", "late", 11) + line("DELETED", "same2", 12) + error_line(410),
            pods(30, ("same", 4), ("changed", 25), ("new", 26)),
            line("MODIFIED", "same", 31),
        )
    )

    seen = desk.followed(10)

    assert seen[:5] == ["ADDED gone", "ADDED same", "ADDED changed", "ADDED late", "DELETED same2"]
    assert sorted(seen[5:7]) == ["DELETED gone", "DELETED late"]
    assert seen[7:] == ["MODIFIED changed", "ADDED new", "MODIFIED same"]
    assert versions(sink) == ["", "10", "", "30"]


def test_following_outlasts_an_api_that_is_down_and_stays_slow(sink: Sink) -> None:
    desk = Desk(sink.url)
    down = [Answer(status=503)] * 8  # four tries of a list, twice
    sink.answer_by(in_turn(*down, pods(10, ("a", 3)), line("DELETED", "a", 11)))

    seen = desk.followed(2)

    assert seen == ["ADDED a", "DELETED a"]
    assert [pause for pause in desk.pauses if pause in (1, 2)] == [1, 2]


def test_a_list_that_is_forgotten_at_once_every_time_makes_no_hot_loop(sink: Sink) -> None:
    desk = Desk(sink.url)
    answers = itertools.cycle([Answer(body=pods(10, ("a", 3))), Answer(status=410)])
    sink.answer_by(lambda _request: next(answers))
    changes = follow(desk.kube, Pod)

    next(changes)
    for answered in range(1, 5):
        answers = itertools.cycle(
            [Answer(status=410), Answer(body=pods(10 + answered, (str(answered), 3)))]
        )
        next(changes)

    assert desk.pauses == sorted(desk.pauses)
    assert len(desk.pauses) >= 2
