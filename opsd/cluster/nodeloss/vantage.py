"""Who has seen a node lately, other than the API server?

From where opsd runs, by TCP; and from other machines, where opsd may log in: the node itself,
its neighbours, routers, file servers. All are asked at once, and none is waited for longer than a
few seconds.

Limits: a port that answers, or refuses, proves that something with that address lives. That
nothing answers proves nothing: a firewall looks the same.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from opsd.clock import Clock, Deadline
from opsd.cluster.nodeloss import around, within
from opsd.cluster.nodeloss.facts import Means, Node, Sighting
from opsd.errors import ConfigError, OpsdError
from opsd.hosts.fleet import Fleet, Visit
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Script

SSH_PORT, KUBELET_PORT = 22, 10250
PORTS = (SSH_PORT, KUBELET_PORT)
CONNECT_S = 2.0
VISIT_S = 6.0  # for all machines together, loading what speaks SSH included
MOST_AT_ONCE = 32  # nodes that are knocked at
NEIGHBOURS = 2  # other nodes that are asked

Seen = tuple[str, Sighting]  # name of the node, and what was seen of it


class Vantage(Protocol):
    """A place from which nodes can be looked at."""

    def look(self, nodes: Sequence[Node]) -> Iterable[Seen]:
        """What it sees of the nodes now; ends within a few seconds and never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """TCP connections from where opsd runs."""

    name: str = "opsd"
    ports: Sequence[int] = PORTS
    within_s: float = CONNECT_S

    def look(self, nodes: Sequence[Node]) -> Iterator[Seen]:
        """Knock at one port after the other, until one answers."""
        asked = [node for node in nodes if node.address and self.ports]
        if asked:
            with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="knock") as pool:
                yield from pool.map(self._knock, asked)

    def _knock(self, node: Node) -> Seen:
        said: list[str] = []
        alive = False
        for port in self.ports:
            alive, answer = _knock(node.address, port, self.within_s)
            said.append(f"{port} {answer}")
            if alive:
                break
        detail = ", ".join(said)
        return node.name, Sighting(vantage=self.name, means=Means.TCP, alive=alive, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What machines say that opsd can log in to; nothing where no way to log in is configured."""

    open_fleet: Callable[[Deadline], Fleet]
    clock: Clock
    ports: Sequence[int] = PORTS  #: at which neighbours knock
    within_s: float = VISIT_S

    def look(self, nodes: Sequence[Node]) -> Iterator[Seen]:
        """Ask the nodes themselves, two other nodes, the routers and the file servers."""
        deadline = Deadline.after(self.within_s, self.clock)
        try:
            fleet = self.open_fleet(deadline)
            machines = fleet.roster().machines
        except OpsdError:  # the other vantages look without
            return
        missing = {one.name: one for one in nodes}
        for visit in self._visits(fleet, _asked(machines, nodes), nodes):
            yield from _heard(visit, nodes)
            missing.pop(visit.machine.name, None)
        known = {machine.name for machine in machines}
        for name in missing.keys() & known:
            yield name, _silent(f"no answer to a login in {self.within_s:g} s")

    def _visits(
        self, fleet: Fleet, machines: Sequence[Machine], nodes: Sequence[Node]
    ) -> Iterator[Visit]:
        script = Script.of(
            (
                *within.PROBES,
                around.CONNECTIONS_PROBE,
                around.CLIENTS_PROBE,
                around.knocks(nodes, self.ports),
            )
        )
        try:
            yield from fleet.visit(machines, script)
        except ConfigError as exc:  # the key to log in with cannot be read
            yield from (Visit(machine=machine, problem=exc) for machine in machines)
        except OpsdError:
            return


class Lately:
    """Another vantage, that is asked again only after a while: for one that is slow.

    Limits: what it saw of other nodes than before is asked for anew, all of it.
    """

    def __init__(self, vantage: Vantage, *, clock: Clock, for_s: float) -> None:
        """Nothing is seen yet."""
        self._vantage, self._clock, self._for_s = vantage, clock, for_s
        self._names: frozenset[str] = frozenset()
        self._seen: tuple[Seen, ...] = ()
        self._until = 0.0

    def look(self, nodes: Sequence[Node]) -> Iterable[Seen]:
        """What it saw of the same nodes a moment ago, or sees now."""
        names = frozenset(node.name for node in nodes)
        if names != self._names or self._clock.monotonic() >= self._until:
            self._seen, self._names = tuple(self._vantage.look(nodes)), names
            self._until = self._clock.monotonic() + self._for_s
        return self._seen


def look_from(
    vantages: Sequence[Vantage], nodes: Sequence[Node]
) -> dict[str, tuple[Sighting, ...]]:
    """What is seen of each node, by its name; all look at once."""
    seen: dict[str, tuple[Sighting, ...]] = {node.name: () for node in nodes}
    if vantages and nodes:
        with ThreadPoolExecutor(len(vantages), thread_name_prefix="vantage") as pool:
            for found in pool.map(lambda vantage: tuple(vantage.look(nodes)), vantages):
                for name, sighting in found:
                    seen[name] += (sighting,)
    return seen


def _asked(machines: Sequence[Machine], nodes: Sequence[Node]) -> tuple[Machine, ...]:
    """Whom to ask; the lost ones last, as they are waited for the longest."""
    lost = {node.name for node in nodes}
    others = [machine for machine in machines if machine.name not in lost]
    plain = [machine for machine in others if not machine.roles & {Role.ROUTER, Role.NFS_SERVER}]
    neighbours = [machine for machine in plain if Role.NODE in machine.roles][:NEIGHBOURS]
    serving = [machine for machine in others if machine not in plain]
    return (*serving, *neighbours, *(one for one in machines if one.name in lost))


def _heard(visit: Visit, nodes: Sequence[Node]) -> Iterator[Seen]:
    """What one machine said of the nodes, or of itself."""
    for node in nodes:
        if visit.machine.name == node.name:
            yield node.name, within.sighting_of(visit, node)
        else:
            for sighting in around.sightings_of(visit, node):
                yield node.name, sighting


def _silent(why: str) -> Sighting:
    return Sighting(vantage=within.VANTAGE, means=Means.SSH, alive=False, detail=why)


def _knock(address: str, port: int, within_s: float) -> tuple[bool, str]:
    """Whether somebody is there, and what he says."""
    try:
        with socket.create_connection((address, port), timeout=within_s):
            return True, "open"
    except ConnectionRefusedError:
        return True, "refused"
    except TimeoutError:
        return False, f"no answer in {within_s:g} s"
    except OSError as exc:
        return False, (exc.strerror or type(exc).__name__).lower()
