"""Who belongs to the fleet: the nodes of the cluster, and what is configured besides.

A configured machine that has the name of a node says how this node is reached. Pure.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.errors import ConfigError
from opsd.hosts.machine import SSH_PORT, Machine, Role
from opsd.secrets import Secret

if TYPE_CHECKING:
    from opsd.clients.kube.objects import Node

_CONTROL_PLANE_LABELS = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
)
_ADDRESSES = ("InternalIP", "ExternalIP", "Hostname")  # the first that a node has counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is configured about one machine; None: not said."""

    name: str
    address: str | None = None
    port: int = SSH_PORT
    user: str | None = None
    roles: frozenset[Role] = frozenset()
    jump: str | None = None  #: empty: directly, whatever holds for the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How opsd logs in."""

    user: str
    key: Secret
    passphrase: Secret | None
    known_hosts: Path
    known_hosts_configmap: str  #: ``namespace/name``, or empty
    jump: str  #: name of a machine, or empty
    connect_timeout_s: float
    at_once: int
    nodes: bool  #: also to the nodes of the cluster
    exclude: tuple[str, ...]  #: patterns of names of nodes
    machines: tuple[Entry, ...]
    remembered: Path  #: file with the nodes that the cluster had when it last answered


def nodes_of(nodes: Iterable[Node]) -> tuple[Machine, ...]:
    """The machines that nodes are, as the cluster says, by name."""
    return tuple(
        Machine(name=node.name, address=_address(node), roles=_roles(node))
        for node in sorted(nodes, key=lambda one: one.name)
    )


def written(nodes: Iterable[Machine]) -> str:
    """Nodes as text, for `read`."""
    return json.dumps([[one.name, one.address, sorted(one.roles)] for one in nodes])


def read(text: str) -> tuple[Machine, ...]:
    """Nodes from text; none when it makes no sense."""
    try:
        return tuple(
            Machine(name=name, address=address, roles=frozenset(map(Role, roles)))
            for name, address, roles in json.loads(text)
        )
    except (ValueError, TypeError):
        return ()


def machines_of(access: Access, nodes: Iterable[Machine]) -> tuple[Machine, ...]:
    """Nodes that are not excluded, then what is configured besides, both in their order.

    Raises:
        ConfigError: a machine is to be reached through one that there is not, or through itself.
    """
    entries = {entry.name: entry for entry in access.machines}
    found = {
        machine.name: _merged(machine, entries.get(machine.name), access)
        for machine in nodes
        if not any(fnmatch.fnmatchcase(machine.name, pattern) for pattern in access.exclude)
    }
    for name, entry in entries.items():
        if name not in found:
            found[name] = _merged(Machine(name=name, address=name), entry, access)
    return tuple(_without_detour(machine, found) for machine in found.values())


def _address(node: Node) -> str:
    by_type = {one.type: one.address for one in reversed(node.status.addresses)}
    return next((by_type[one] for one in _ADDRESSES if one in by_type), node.name)


def _roles(node: Node) -> frozenset[Role]:
    is_control_plane = any(label in node.labels for label in _CONTROL_PLANE_LABELS)
    return frozenset({Role.NODE, Role.CONTROL_PLANE} if is_control_plane else {Role.NODE})


def _merged(machine: Machine, entry: Entry | None, access: Access) -> Machine:
    """What is configured counts before what the cluster says, and before what holds for all."""
    said = entry or Entry(name=machine.name)
    return replace(
        machine,
        address=said.address or machine.address,
        port=said.port,
        user=said.user or access.user,
        roles=machine.roles | said.roles,
        jump=access.jump if said.jump is None else said.jump,
    )


def _without_detour(machine: Machine, all_: Mapping[str, Machine]) -> Machine:
    """`machine`; the one through which all others are reached is reached directly itself."""
    if not machine.jump:
        return machine
    if machine.jump not in all_:
        known = ", ".join(all_) or "none"
        raise ConfigError(
            f"ssh: {machine.name} is to be reached through {machine.jump}, and there is no such "
            f"machine; add it as [[machines]] (known: {known})"
        )
    if machine.jump == machine.name:
        return replace(machine, jump="")
    if all_[machine.jump].jump not in ("", machine.jump):
        raise ConfigError(
            f"ssh: {machine.name} is to be reached through {machine.jump}, and that one through "
            f'{all_[machine.jump].jump}: only one may be between; set jump = "" there'
        )
    return machine
