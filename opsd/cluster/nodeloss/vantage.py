"""Who has seen a node lately, other than the API server?

Limits: a port that answers, or refuses, proves that something with that address lives. That
nothing answers proves nothing: a firewall looks the same.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from opsd.cluster.nodeloss.facts import Means, Node, Sighting

SSH_PORT, KUBELET_PORT = 22, 10250
CONNECT_S = 2.0
MOST_AT_ONCE = 8  # looks


class Vantage(Protocol):
    """A place from which nodes can be looked at."""

    def look(self, node: Node) -> Iterable[Sighting]:
        """What it sees of a node now; ends within a few seconds and never raises."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """TCP connections from where opsd runs."""

    name: str = "opsd"
    ports: Sequence[int] = (SSH_PORT, KUBELET_PORT)
    within_s: float = CONNECT_S

    def look(self, node: Node) -> Iterator[Sighting]:
        """Knock at one port after the other, until one answers."""
        said: list[str] = []
        alive = False
        if not node.address:
            return
        for port in self.ports:
            alive, answer = _knock(node.address, port, self.within_s)
            said.append(f"{port} {answer}")
            if alive:
                break
        if said:
            yield Sighting(vantage=self.name, means=Means.TCP, alive=alive, detail=", ".join(said))


def look_from(
    vantages: Sequence[Vantage], nodes: Sequence[Node]
) -> dict[str, tuple[Sighting, ...]]:
    """What is seen of each node, by its name; several looks at once."""
    pairs = [(vantage, node) for node in nodes for vantage in vantages]
    seen: dict[str, tuple[Sighting, ...]] = {node.name: () for node in nodes}
    if pairs:
        with ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="vantage") as pool:
            found = pool.map(lambda pair: (pair[1].name, tuple(pair[0].look(pair[1]))), pairs)
            for name, sightings in found:
                seen[name] += sightings
    return seen


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
