"""What a knock at a node proves, on real sockets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from opsd.cluster.nodeloss.facts import Means, Node, Sighting
from opsd.cluster.nodeloss.vantage import Here, look_from

HOST = "127.0.0.1"


def node(address: str = HOST, name: str = "rpi3") -> Node:
    return Node(name=name, uid="1", created_at=datetime(2026, 11, 22, tzinfo=UTC), address=address)


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what asks for more, as a dead machine does."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((HOST, 0))
        server.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(server.getsockname())
        yield server.getsockname()[1]


def test_an_open_port_is_life(open_port: int) -> None:
    assert list(Here(ports=(open_port,)).look(node())) == [
        Sighting(vantage="opsd", means=Means.TCP, alive=True, detail=f"{open_port} open")
    ]


def test_a_refusal_is_life(closed_port: int) -> None:
    [seen] = Here(ports=(closed_port,)).look(node())

    assert (seen.alive, seen.detail) == (True, f"{closed_port} refused")


def test_silence_is_nothing(mute_port: int) -> None:
    [seen] = Here(ports=(mute_port,), within_s=0.2).look(node())

    assert (seen.alive, seen.detail) == (False, f"{mute_port} no answer in 0.2 s")


def test_one_port_that_answers_suffices(mute_port: int, open_port: int) -> None:
    [seen] = Here(ports=(mute_port, open_port), within_s=0.2).look(node())

    assert (seen.alive, seen.detail) == (
        True,
        f"{mute_port} no answer in 0.2 s, {open_port} open",
    )


@pytest.mark.parametrize("address", ["", "no-such-name.invalid"])
def test_a_node_without_an_address_that_works_is_not_seen_alive(address: str) -> None:
    assert not any(one.alive for one in Here(ports=(22,), within_s=0.2).look(node(address)))


def test_nowhere_to_knock_is_no_look() -> None:
    assert list(Here(ports=()).look(node())) == []


def test_each_node_is_looked_at_from_each_place(open_port: int, mute_port: int) -> None:
    vantages = (
        Here(name="opsd", ports=(open_port,)),
        Here(name="router", ports=(mute_port,), within_s=0.2),
    )

    seen = look_from(vantages, [node(name="a"), node(name="b")])

    assert {name: [(one.vantage, one.alive) for one in found] for name, found in seen.items()} == {
        "a": [("opsd", True), ("router", False)],
        "b": [("opsd", True), ("router", False)],
    }
    assert look_from((), [node()]) == {"rpi3": ()}
