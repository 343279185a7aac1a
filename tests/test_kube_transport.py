"""One request in bounded time, with servers that refuse, fall silent, drip and talk nonsense."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from opsd.clients.kube import transport as module
from opsd.clients.kube.calls import Request
from opsd.clients.kube.client import Kube
from opsd.clients.kube.cluster import Cluster, Credentials
from opsd.clients.kube.errors import Forbidden, NotFound, Refused, Unreachable
from opsd.clients.kube.objects import Node, Pod
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded
from tests.faults import proxy as faults
from tests.faults.proxy import Fault, Kind, Way
from tests.rig.rawhttp import chunked, http, speaking
from tests.rig.server import HOST
from tests.rig.sink import Answer, Sink
from tests.rig.sink import Request as Received

pytestmark = pytest.mark.real

LIST = Request(what="list pods", path="/api/v1/pods")
DELETE = Request(what="delete pod db/pg-0", method="DELETE", path="/p", body=b"{}")
CLOCK = SystemClock()


@dataclass
class Tokens:
    """Credentials that are renewed from a list."""

    left: list[str] = field(default_factory=list)
    now: str = "first"

    def authorization(self) -> str:
        return f"Bearer {self.now}"

    def renew(self) -> bool:
        if not self.left:
            return False
        self.now = self.left.pop(0)
        return True


def cluster(url: str, *, credentials: Credentials | None = None, proxy: str = "") -> Cluster:
    return Cluster(
        url=url,
        credentials=credentials or Tokens(),
        tls=ssl.create_default_context,
        proxy=proxy,
    )


@dataclass
class Access:
    """A transport whose pauses are noted and not waited for."""

    url: str
    credentials: Tokens = field(default_factory=Tokens)
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        found = cluster(self.url, credentials=self.credentials)
        self.transport = Transport(lambda: found, pause=self.pauses.append)

    def read(self, request: Request = LIST, *, within_s: float = 20) -> bytes:
        return self.transport.read(request, Deadline.after(within_s, CLOCK))

    def send(self, request: Request = DELETE, *, within_s: float = 20) -> bytes:
        return self.transport.send(request, Deadline.after(within_s, CLOCK))


def in_turn(*answers: Answer) -> Callable[[Received], Answer]:
    """Each answer once, the last for ever."""
    left = list(answers)
    return lambda _request: left.pop(0) if len(left) > 1 else left[0]


def test_a_request_carries_who_asks_and_what(sink: Sink) -> None:
    sink.answer(200, b"done")
    access = Access(sink.url)

    access.read()
    access.send(Request(what="x", method="PATCH", path="/q?a=b", body=b"{}", content_type="a/b"))

    first, second = sink.wait_for(2)
    assert (first.method, first.path, first.headers["authorization"]) == (
        "GET",
        "/api/v1/pods",
        "Bearer first",
    )
    assert first.headers["accept"] == "application/json"
    assert first.headers["accept-encoding"] == "gzip"
    assert (second.method, second.path, second.body) == ("PATCH", "/q?a=b", b"{}")
    assert second.headers["content-type"] == "a/b"


def test_a_path_of_the_server_itself_stays_in_front(sink: Sink) -> None:
    sink.answer(200, b"done")

    Access(f"{sink.url}/k8s/clusters/c-1/").read()

    assert sink.wait_for(1)[0].path == "/k8s/clusters/c-1/api/v1/pods"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_reading_survives_what_passes_and_waits_longer_each_time(status: int, sink: Sink) -> None:
    sink.answer_by(in_turn(*[Answer(status=status)] * 3, Answer(body=b"done")))
    access = Access(sink.url)

    body = access.read()

    assert body == b"done"
    assert len(sink.requests) == 4
    assert [0.1 <= access.pauses[0] <= 0.2, 0.5 <= access.pauses[1] <= 1, len(access.pauses)] == [
        True,
        True,
        3,
    ]


def test_reading_gives_up_after_four_tries(sink: Sink) -> None:
    sink.answer(500, b"etcd is slow")

    with pytest.raises(Unreachable, match=r"^list pods: 500: etcd is slow"):
        Access(sink.url).read()

    assert len(sink.requests) == 4


def test_a_busy_server_is_left_alone_as_long_as_it_asks(sink: Sink) -> None:
    sink.answer_by(in_turn(Answer(status=429, headers={"Retry-After": "7"}), Answer()))
    access = Access(sink.url)

    access.read()

    assert access.pauses == [7.0]


def test_a_wait_that_would_outlast_the_deadline_is_not_begun(sink: Sink) -> None:
    sink.answer_by(lambda _request: Answer(status=429, headers={"Retry-After": "15"}))
    access = Access(sink.url)

    with pytest.raises(Unreachable):
        access.read(within_s=14)

    assert (access.pauses, len(sink.requests)) == ([], 1)


@pytest.mark.parametrize(
    ("status", "error"), [(400, Refused), (403, Forbidden), (404, NotFound), (422, Refused)]
)
def test_a_refusal_is_not_asked_for_twice(status: int, error: type[Exception], sink: Sink) -> None:
    sink.answer(status)

    with pytest.raises(error):
        Access(sink.url).read()

    assert len(sink.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_change_is_sent_once_whatever_comes_back(status: int, sink: Sink) -> None:
    sink.answer(status)

    with pytest.raises(Unreachable, match=rf"^delete pod db/pg-0: {status}"):
        Access(sink.url).send()

    assert len(sink.requests) == 1


@pytest.mark.parametrize("lose", [b"DELETE"])
def test_a_change_whose_answer_was_lost_is_not_sent_again(lose: bytes, sink: Sink) -> None:
    with faults.in_front_of(sink.port) as front:
        front.set(Fault(kind=Kind.LOSE_REPLY, pattern=lose, times=1))

        with pytest.raises(Unreachable, match="delete pod db/pg-0: http://127"):
            Access(f"http://{HOST}:{front.port}").send()

    assert len(sink.requests) == 1


def test_refused_credentials_are_renewed_once_also_for_a_change(sink: Sink) -> None:
    def judge(request: Received) -> Answer:
        return Answer(status=200 if request.headers["authorization"] == "Bearer second" else 401)

    sink.answer_by(judge)

    Access(sink.url, Tokens(left=["second"])).send()
    with pytest.raises(Forbidden, match=r"^delete pod db/pg-0: 401"):
        Access(sink.url, Tokens(left=["third", "second"])).send()
    with pytest.raises(Forbidden):
        Access(sink.url).send()

    asked = [request.headers["authorization"] for request in sink.requests]
    assert [one.removeprefix("Bearer ") for one in asked] == [
        *("first", "second"),
        *("first", "third"),
        "first",
    ]


def test_a_port_that_is_closed_is_told_with_its_address(sink: Sink) -> None:
    sink.refuse()

    with pytest.raises(Unreachable, match=rf"^list pods: {sink.url}: Connection refused$"):
        Access(sink.url).read()


def test_a_connection_that_is_reset_is_tried_again(sink: Sink) -> None:
    sink.answer(200, b"done")
    with faults.in_front_of(sink.port) as front:
        front.set(Fault(kind=Kind.RESET, way=Way.TO_CLIENT, after_bytes=10, times=2))

        body = Access(f"http://{HOST}:{front.port}").read()

    assert body == b"done"


def test_a_server_that_never_answers_is_given_up_at_the_deadline(sink: Sink) -> None:
    sink.hang()

    with pytest.raises(DeadlineExceeded, match=r"^list pods: no answer before the deadline$"):
        Access(sink.url).read(within_s=0.3)


def test_a_server_that_never_answers_is_not_waited_for_until_a_far_deadline(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_S", 0.1)
    sink.hang()

    with pytest.raises(Unreachable, match=rf"^list pods: {sink.url}: no answer in time$"):
        Access(sink.url).read(within_s=3600)


def test_an_answer_that_drips_ends_at_the_deadline(sink: Sink) -> None:
    sink.answer_by(lambda _request: Answer(body=b"x" * 1000, drip_s=0.02))

    with pytest.raises(DeadlineExceeded):
        Access(sink.url).read(within_s=0.5)  # the head alone takes longer


def test_an_answer_that_drips_is_not_waited_for_until_a_far_deadline(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_S", 0.3)
    sink.answer_by(lambda _request: Answer(body=b"x" * 1000, drip_s=0.02))

    with pytest.raises(Unreachable, match="no answer in time"):
        Access(sink.url).read(within_s=3600)


def test_an_answer_that_drips_is_read_while_there_is_time(sink: Sink) -> None:
    sink.answer_by(lambda _request: Answer(body=b"done", drip_s=0.001))

    assert Access(sink.url).read() == b"done"


def test_nothing_is_asked_when_no_time_is_left(sink: Sink) -> None:
    with pytest.raises(DeadlineExceeded, match=r"^list pods: no answer before the deadline$"):
        Access(sink.url).read(within_s=-1)

    assert sink.requests == []


def test_an_answer_that_is_cut_is_an_error_and_tried_again(sink: Sink) -> None:
    sink.answer(200, b"x" * 5000)
    with faults.in_front_of(sink.port) as front:
        front.set(Fault(kind=Kind.CUT, way=Way.TO_CLIENT, after_bytes=2000))
        access = Access(f"http://{HOST}:{front.port}")

        with pytest.raises(Unreachable, match="cut short"):
            access.read()
        front.set(Fault(kind=Kind.CUT, way=Way.TO_CLIENT, after_bytes=2000, times=1))
        body = access.read()

    assert len(body) == 5000


def test_an_answer_longer_than_any_is_not_kept(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    sink.answer(200, b"x" * 1000)
    access = Access(sink.url)

    whole = access.read()
    sink.answer(200, b"x" * 1001)
    with pytest.raises(Unreachable, match="too long"):
        access.read()

    assert len(whole) == 1000


GZIP = "Content-Encoding: gzip"


def test_a_compressed_answer_is_unpacked() -> None:
    with speaking(http(gzip.compress(b"x" * 5000), GZIP)) as (url, _):
        assert Access(url).read() == b"x" * 5000


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"x" * 5000)[:-1], gzip.compress(b"x" * 5001), b"x", b""],
    ids=["without its end", "larger than any", "not gzip", "nothing"],
)
def test_what_cannot_be_unpacked_whole_is_an_error(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 5000)
    with (
        speaking(http(body, GZIP)) as (url, _),
        pytest.raises(Unreachable, match="cut short or is too long"),
    ):
        Access(url).send(LIST)


def test_a_connection_is_used_again() -> None:
    with speaking(http(b"one"), chunked(b"t", b"wo", b""), http(b"three")) as (url, connections):
        access = Access(url)

        bodies = [access.read(), access.read(), access.read()]

    assert bodies == [b"one", b"two", b"three"]
    assert len(connections) == 1


def test_a_connection_that_the_server_closed_or_spoke_on_is_not_used_again() -> None:
    with speaking(http(b"one") + b"HTTP/1.1 200 OK\r\n") as (url, connections):
        access = Access(url)

        access.read()
        access.read()
    with speaking(http(b"one", "Connection: close")) as (url, others):
        access = Access(url)

        access.read()
        access.read()

    assert (len(connections), len(others)) == (2, 2)


def test_an_idle_connection_that_grew_old_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with speaking(http(b"one"), http(b"two")) as (url, connections):
        access = Access(url)
        access.read()

        monkeypatch.setattr(module, "FRESH_S", 0.0)
        access.read()

    assert len(connections) == 2


def test_an_answer_in_pieces_that_breaks_off_is_an_error() -> None:
    with speaking(chunked(b"one")) as (url, _), pytest.raises(DeadlineExceeded):
        Access(url).read(within_s=0.3)
    with (
        speaking(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n") as (url, _),
        pytest.raises(Unreachable, match="broken off, or not HTTP"),
    ):
        Access(url).read()


@pytest.mark.parametrize("reply", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 xyz\r\n\r\n"])
def test_what_is_not_http_is_told(reply: bytes) -> None:
    with (
        speaking(reply) as (url, _),
        pytest.raises(Unreachable, match=r"^list pods: http://127.* not HTTP"),
    ):
        Access(url).read()


def test_the_clock_of_the_server_is_known_from_its_answers() -> None:
    date = "Date: Tue, 01 Jan 2030 10:00:00 GMT"

    with speaking(http(b'{"gitVersion": "v1"}', date)) as (url, _):
        seen = kube_at(url).server_time()

    assert seen.isoformat()[:18] == "2030-01-01T10:00:0"


@pytest.mark.parametrize("headers", [(), ("Date: yesterday",)])
def test_a_server_that_tells_no_time_is_an_error(headers: tuple[str, ...]) -> None:
    with (
        speaking(http(b'{"gitVersion": "v1"}', *headers)) as (url, _),
        pytest.raises(Unreachable, match="sends no Date"),
    ):
        kube_at(url).server_time()


def kube_at(url: str, *, proxy: str = "") -> Kube:
    found = cluster(url, proxy=proxy)
    transport = Transport(lambda: found, pause=lambda _seconds: None)
    return Kube(transport, deadline=Deadline.after(20, CLOCK))


def page(*uids: str, token: str = "") -> Answer:
    metadata = {"resourceVersion": "1", **({"continue": token} if token else {})}
    items = [{"metadata": {"uid": uid, "name": uid}} for uid in uids]
    return Answer(body=json.dumps({"metadata": metadata, "items": items}).encode())


EXPIRED = Answer(status=410, body=b'{"reason": "Expired", "message": "continue is too old"}')


def test_a_list_goes_through_all_pages(sink: Sink) -> None:
    sink.answer_by(in_turn(page("a", "b", token="t1"), page("c", token="t2"), page("d")))

    names = [pod.name for pod in kube_at(sink.url).list(Pod)]

    assert names == ["a", "b", "c", "d"]
    assert [request.path.partition("continue=")[2] for request in sink.requests] == [
        "",
        "t1",
        "t2",
    ]


def test_a_list_that_was_forgotten_half_way_begins_anew_and_tells_nothing_twice(
    sink: Sink,
) -> None:
    sink.answer_by(
        in_turn(page("a", "b", token="t1"), EXPIRED, page("a", "c", token="t2"), page("d"))
    )

    names = [pod.name for pod in kube_at(sink.url).list(Pod)]

    assert names == ["a", "b", "c", "d"]


def test_a_list_that_is_forgotten_twice_is_an_error(sink: Sink) -> None:
    sink.answer_by(in_turn(page("a", token="t1"), EXPIRED, page("a", token="t1"), EXPIRED))

    with pytest.raises(Exception, match=r"^list pods: 410 Expired: continue is too old"):
        list(kube_at(sink.url).list(Pod))


def test_a_page_is_tried_again_without_asking_for_the_earlier_ones(sink: Sink) -> None:
    sink.answer_by(in_turn(page("a", token="t1"), Answer(status=503), page("b")))

    names = [node.name for node in kube_at(sink.url).list(Node)]

    assert (names, len(sink.requests)) == (["a", "b"], 3)


@contextlib.contextmanager
def connecting_proxy() -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that knows CONNECT and nothing else."""
    heads: list[bytes] = []
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                client, _ = server.accept()
                heads.append(client.recv(65536))
                host, _, port = heads[0].split()[1].decode().partition(":")
                with client, socket.create_connection((host, int(port))) as target:
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    target.sendall(client.recv(65536))
                    while piece := target.recv(65536):
                        client.sendall(piece)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heads
        server.close()
        thread.join(5)


def test_a_proxy_is_asked_to_connect_with_its_login(sink: Sink) -> None:
    sink.answer(200, b'{"gitVersion": "v1.37.2"}')
    with connecting_proxy() as (port, heads):
        version = kube_at(sink.url, proxy=f"http://me:se%20cret@{HOST}:{port}").version()

    assert version == "v1.37.2"
    assert heads[0].startswith(f"CONNECT {HOST}:{sink.port} HTTP/1".encode())
    assert b"Proxy-Authorization: Basic bWU6c2UgY3JldA==" in heads[0]
    assert "proxy-authorization" not in sink.requests[0].headers


@pytest.mark.parametrize("body", [b"{}", b'{"status": null}'])
def test_a_right_that_nobody_answered_for_is_not_denied_but_unknown(
    body: bytes, sink: Sink
) -> None:
    sink.answer(201, body)

    with pytest.raises(Unreachable, match="no answer of a Kubernetes API"):
        kube_at(sink.url).can("list", Pod)


def test_the_earlier_of_two_deadlines_holds(sink: Sink) -> None:
    kube = kube_at(sink.url)

    nearer = kube.until(Deadline.after(1, CLOCK))
    farther = kube.until(Deadline.after(3600, CLOCK))

    assert nearer.deadline.remaining() <= 1
    assert farther.deadline == kube.deadline
    assert nearer.transport is kube.transport
