"""What a knock at a node proves, on real sockets, and who is asked besides."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from opsd.clock import Deadline, SystemClock
from opsd.cluster.nodeloss.around import KNOCKS
from opsd.cluster.nodeloss.facts import Inside, Means, Node, Sighting
from opsd.cluster.nodeloss.vantage import Here, Lately, Machines, look_from
from opsd.cluster.nodeloss.within import BOOT, IDENTITY, KUBELET, PODS
from opsd.errors import ConfigError, DeadlineExceeded, TransientError
from opsd.hosts.fleet import Roster, Visit, Way
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Script
from opsd.testing import FakeClock, MemoryFleet

HOST = "127.0.0.1"
SSH, NODE = Means.SSH, frozenset({Role.NODE})


def node(address: str = HOST, name: str = "rpi3") -> Node:
    return Node(
        name=name,
        uid="1",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        address=address,
        machine_id="m3",
        lease_silent=timedelta(seconds=60),
    )


def machine(name: str, *roles: Role) -> Machine:
    return Machine(name=name, address=f"{name}.lan", roles=frozenset(roles))


#: A cluster with its lost node, its router and its file server.
FLEET = (
    machine("rpi1", Role.NODE, Role.CONTROL_PLANE),
    machine("rpi2", Role.NODE),
    machine("rpi3", Role.NODE),
    machine("rpi4", Role.NODE),
    machine("nas", Role.NFS_SERVER),
    machine("gate", Role.ROUTER),
)
SELF = {
    IDENTITY: f"machine-id m3\nhost rpi3\naddress {HOST}/8\n",
    BOOT: "boot-1\n",
    KUBELET: "LoadState=loaded\nActiveState=failed\n",
    PODS: "tree\nwalked\n",
}


@dataclass
class Timed:
    """A fleet that stops to answer, or cannot begin to."""

    machines: Sequence[Machine]
    visits: Sequence[Visit] = ()
    then: Exception = field(default_factory=lambda: DeadlineExceeded("the time is over"))

    def roster(self) -> Roster:
        return Roster(machines=tuple(self.machines))

    def visit(self, machines: Iterable[Machine], script: Script) -> Iterator[Visit]:
        assert machines
        assert script.probes
        yield from self.visits
        raise self.then

    def way(self, machine: Machine) -> contextlib.AbstractContextManager[Way]:
        raise AssertionError(f"nobody is called from {machine.name} here")


def vantage(fleet: MemoryFleet | Timed) -> Machines:
    return Machines(open_fleet=lambda _deadline: fleet, clock=SystemClock(), ports=(22,))


def sightings(found: Iterable[tuple[str, Sighting]]) -> list[Sighting]:
    return [sighting for _, sighting in found]


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
    assert list(Here(ports=(open_port,)).look([node()])) == [
        ("rpi3", Sighting(vantage="opsd", means=Means.TCP, alive=True, detail=f"{open_port} open"))
    ]


def test_a_refusal_is_life(closed_port: int) -> None:
    [(_, seen)] = Here(ports=(closed_port,)).look([node()])

    assert (seen.alive, seen.detail) == (True, f"{closed_port} refused")


def test_silence_is_nothing(mute_port: int) -> None:
    [(_, seen)] = Here(ports=(mute_port,), within_s=0.2).look([node()])

    assert (seen.alive, seen.detail) == (False, f"{mute_port} no answer in 0.2 s")


def test_one_port_that_answers_suffices(mute_port: int, open_port: int) -> None:
    [(_, seen)] = Here(ports=(mute_port, open_port), within_s=0.2).look([node()])

    assert (seen.alive, seen.detail) == (
        True,
        f"{mute_port} no answer in 0.2 s, {open_port} open",
    )


@pytest.mark.parametrize("address", ["", "no-such-name.invalid"])
def test_a_node_without_an_address_that_works_is_not_seen_alive(address: str) -> None:
    looks = Here(ports=(22,), within_s=0.2).look([node(address)])

    assert not any(one.alive for one in sightings(looks))


def test_nowhere_to_knock_is_no_look() -> None:
    assert list(Here(ports=()).look([node()])) == []


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


def test_the_node_its_neighbours_the_router_and_the_file_server_are_asked() -> None:
    heard = {KNOCKS: f"ping {HOST} 1\ntcp {HOST} 22 0\n"}
    fleet = MemoryFleet(FLEET, {one.name: heard for one in FLEET} | {"rpi3": SELF})

    seen = sightings(vantage(fleet).look([node()]))

    assert [(one.vantage, one.means, one.alive) for one in seen] == [
        ("nas", Means.TCP, True),
        ("gate", Means.TCP, True),
        ("rpi1", Means.TCP, True),
        ("rpi2", Means.TCP, True),
        ("opsd", SSH, True),
    ]
    inside = seen[-1]
    assert isinstance(inside, Inside)
    assert (inside.boot_id, inside.kubelet, inside.running) == ("boot-1", "failed", frozenset())


def test_a_lost_node_is_no_neighbour_of_another() -> None:
    answers = {one.name: TransientError("no route") for one in FLEET}
    fleet = MemoryFleet(FLEET, answers)

    seen = list(vantage(fleet).look([node(name="rpi1"), node(name="rpi3")]))

    assert [(name, one.vantage, one.detail) for name, one in seen] == [
        ("rpi1", "opsd", "no route"),
        ("rpi3", "opsd", "no route"),
    ]


def test_without_a_way_to_log_in_the_others_look_alone() -> None:
    fleet = Timed(FLEET)
    fleet.roster = lambda: (_ for _ in ()).throw(ConfigError("there is no table [ssh]"))  # type: ignore[method-assign]

    assert list(vantage(fleet).look([node()])) == []


def test_a_login_that_is_not_answered_in_time_is_told_as_silence() -> None:
    neighbour = Visit(machine=FLEET[1], problem=TransientError("no route"))

    seen = sightings(vantage(Timed(FLEET, (neighbour,))).look([node()]))

    assert [(one.means, one.alive, one.detail) for one in seen] == [
        (SSH, False, "no answer to a login in 6 s")
    ]


def test_a_key_that_cannot_be_read_is_told() -> None:
    fleet = Timed(FLEET, then=ConfigError("read /etc/opsd/ssh_key: Permission denied"))

    [seen] = sightings(vantage(fleet).look([node()]))

    assert (seen.alive, seen.detail) == (False, "read /etc/opsd/ssh_key: Permission denied")


def test_a_node_that_is_no_machine_of_the_fleet_is_only_asked_for() -> None:
    fleet = MemoryFleet(FLEET[:2], {"rpi1": {KNOCKS: f"ping {HOST} 0\n"}, "rpi2": {}})

    seen = sightings(vantage(fleet).look([node()]))

    assert [(one.vantage, one.alive) for one in seen] == [("rpi1", True)]


def test_the_time_for_all_machines_is_bounded() -> None:
    deadlines: list[Deadline] = []

    def opened(deadline: Deadline) -> MemoryFleet:
        deadlines.append(deadline)
        return MemoryFleet((), {})

    list(Machines(open_fleet=opened, clock=SystemClock()).look([node()]))

    [deadline] = deadlines
    assert 5 < deadline.remaining() <= 6


def test_a_slow_look_counts_for_a_while_for_the_same_nodes() -> None:
    fleet = MemoryFleet(FLEET[:1], {"rpi1": {KNOCKS: f"ping {HOST} 0\n"}})
    clock = FakeClock()
    lately = Lately(vantage(fleet), clock=clock, for_s=20)

    counts = []
    for seconds, names in ((0, "a"), (19.9, "a"), (0.1, "a"), (0, "ab"), (0, "ab")):
        clock.advance(timedelta(seconds=seconds))
        seen = list(lately.look([node(name=name) for name in names]))
        counts.append((len(fleet.scripts), len(seen)))

    assert counts == [(1, 1), (1, 1), (2, 1), (3, 2), (3, 2)]
