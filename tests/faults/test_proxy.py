"""The fault proxy causes what it says, seen from a client and from the server behind it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.proxy import (
    BLACKHOLE,
    MUTE,
    PASS,
    REFUSE,
    Fault,
    Kind,
    Proxy,
    Way,
    in_front_of,
)
from tests.rig.server import HOST

SHORT_S = 0.2  # long enough for loopback, on which everything that comes, comes at once


class EchoServer:
    """Sends back what it gets, and keeps it."""

    def __init__(self) -> None:
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.got = bytearray()
        self.endings: list[str] = []
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(
                    target=self._echo, args=(self.listener.accept()[0],), daemon=True
                ).start()

    def _echo(self, client: socket.socket) -> None:
        ending = "closed"
        with client:
            try:
                while chunk := client.recv(65536):
                    self.got += chunk
                    client.sendall(chunk)
            except ConnectionError:
                ending = "reset"
        self.endings.append(ending)
        self.ended.release()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def ending(self) -> str:
        assert self.ended.acquire(timeout=10)
        return self.endings[-1]


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[Proxy]:
    with in_front_of(echo.port) as running:
        yield running


@contextlib.contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection((proxy.host, proxy.port), timeout=10) as client:
        yield client


def receive(client: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count and (chunk := client.recv(65536)):
        got += chunk
    return bytes(got)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(SHORT_S)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    return False


def test_without_a_fault_it_is_a_wire(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 4096

    with connected(proxy) as client:
        threading.Thread(target=client.sendall, args=(sent,)).start()
        got = receive(client, len(sent))

    assert got == sent
    assert (proxy.connections, proxy.struck) == (1, 0)


def test_a_half_closed_connection_still_brings_the_reply(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)

        assert receive(client, 100) == b"question"


def test_refuse_refuses_and_pass_listens_again_on_the_same_port(proxy: Proxy) -> None:
    proxy.set(REFUSE)
    with pytest.raises(ConnectionRefusedError), connected(proxy):
        pass

    proxy.set(PASS)

    with connected(proxy) as client:
        client.sendall(b"x")
        assert receive(client, 1) == b"x"


def test_refuse_resets_what_is_connected(proxy: Proxy) -> None:
    with connected(proxy) as client:
        client.sendall(b"x")
        receive(client, 1)

        proxy.set(REFUSE)

        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_black_hole_takes_everything_and_reaches_nobody(proxy: Proxy, echo: EchoServer) -> None:
    proxy.set(BLACKHOLE)

    with connected(proxy) as client:
        client.sendall(b"x" * 100_000)

        assert is_silent(client)
    assert not echo.got


def test_a_mute_server_gets_the_request_and_the_client_no_reply(
    proxy: Proxy, echo: EchoServer
) -> None:
    with connected(proxy) as client:
        client.sendall(b"a")
        receive(client, 1)

        proxy.set(MUTE)
        client.sendall(b"b")

        assert is_silent(client)
    assert echo.ending() == "closed"
    assert echo.got == b"ab"


@pytest.mark.parametrize("way", Way)
def test_reset_comes_after_exactly_so_many_bytes(proxy: Proxy, echo: EchoServer, way: Way) -> None:
    proxy.set(Fault(kind=Kind.RESET, way=way, after_bytes=1000))

    with connected(proxy) as client:
        client.sendall(b"x" * 1500)
        with pytest.raises(ConnectionResetError):
            receive(client, 10_000)

    assert echo.ending() == "reset"
    assert len(echo.got) == {Way.TO_SERVER: 1000, Way.TO_CLIENT: 1500}[way]


@pytest.mark.parametrize(("way", "reaches"), [(Way.TO_SERVER, 1000), (Way.TO_CLIENT, 1500)])
def test_cut_ends_in_order_after_exactly_so_many_bytes(
    proxy: Proxy, echo: EchoServer, way: Way, reaches: int
) -> None:
    proxy.set(Fault(kind=Kind.CUT, way=way, after_bytes=1000))

    with connected(proxy) as client:
        client.sendall(b"x" * 1500)
        got = receive(client, 10_000)

    assert echo.ending() == "closed"
    assert len(echo.got) == reaches
    assert len(got) <= 1000


def test_a_connection_shorter_than_the_limit_is_left_alone(proxy: Proxy) -> None:
    proxy.set(Fault(kind=Kind.RESET, after_bytes=1000))

    with connected(proxy) as client:
        client.sendall(b"x" * 1000)

        assert len(receive(client, 1000)) == 1000
    assert proxy.struck == 0


def test_corrupt_flips_one_bit_of_one_byte(proxy: Proxy) -> None:
    proxy.set(Fault(kind=Kind.CORRUPT, after_bytes=3))

    with connected(proxy) as client:
        client.sendall(b"aaa")
        first = receive(client, 3)
        client.sendall(b"aaa")
        second = receive(client, 3)

    assert (first, second) == (b"aaa", b"`aa")


@pytest.mark.parametrize(
    "fault",
    [Fault(kind=Kind.DELAY, seconds=20), Fault(kind=Kind.THROTTLE, bytes_per_s=1)],
    ids=lambda fault: fault.kind.name,
)
def test_delay_and_throttle_hold_bytes_back(proxy: Proxy, fault: Fault) -> None:
    proxy.set(fault)

    with connected(proxy) as client:
        client.sendall(b"x" * 20)

        assert is_silent(client)
    assert proxy.struck == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(kind=Kind.DELAY, seconds=0.01), Fault(kind=Kind.THROTTLE, bytes_per_s=100_000)],
    ids=lambda fault: fault.kind.name,
)
def test_what_was_held_back_arrives_in_the_end(proxy: Proxy, fault: Fault) -> None:
    proxy.set(fault)

    with connected(proxy) as client:
        client.sendall(b"x" * 1000)

        assert len(receive(client, 1000)) == 1000
    assert proxy.struck >= 1


def test_a_lost_reply_leaves_the_request_carried_out(proxy: Proxy, echo: EchoServer) -> None:
    proxy.set(Fault(kind=Kind.LOSE_REPLY, pattern=rb"COMMIT \d+", times=1))

    with connected(proxy) as client:
        client.sendall(b"BEGIN;")
        begun = receive(client, 6)
        client.sendall(b"COM")
        receive(client, 3)
        client.sendall(b"MIT 7")
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    assert begun == b"BEGIN;"
    assert echo.ending() == "reset"
    assert echo.got == b"BEGIN;COMMIT 7"


def test_a_fault_that_is_spent_strikes_no_more(proxy: Proxy) -> None:
    proxy.set(Fault(kind=Kind.RESET, after_bytes=0, times=1))

    with connected(proxy) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connected(proxy) as client:
        client.sendall(b"x")
        again = receive(client, 1)

    assert again == b"x"
    assert (proxy.struck, proxy.fault) == (1, PASS)


def test_a_dead_server_looks_like_a_reset(echo: EchoServer, proxy: Proxy) -> None:
    echo.close()

    with pytest.raises(ConnectionResetError), connected(proxy) as client:
        client.recv(1)
