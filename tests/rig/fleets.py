"""The fleet as opsd sees it, over machines of the rig or over the sshd on loopback."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from opsd.clients.kube.client import Kube
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError
from opsd.hosts.fleet import Visit
from opsd.hosts.roster import Access, Entry
from opsd.hosts.script import Probe, Script
from opsd.hosts.visiting import SshFleet
from opsd.secrets import Secret
from tests.rig.machines import RealMachine
from tests.rig.sshd import SshServer

WITHIN_S = 60.0


class Reachable(Protocol):
    """A proxy or a server of a test."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


def access_to(real: Sequence[RealMachine], **changes: Any) -> Access:
    """How opsd logs in to machines of one network, whose keys are known; `changes` in it."""
    home = real[0].network.home
    known = home / f"known_hosts-{secrets.token_hex(4)}"
    known.write_text("".join(f"{one.name} {one.host_key}\n" for one in real))
    made = _access(
        user=real[0].user,
        key=real[0].identity_file,
        known_hosts=known,
        machines=tuple(Entry(name=one.name, address=one.address) for one in real),
    )
    return replace(made, **changes)


def loopback_access(server: SshServer, *names: str, **changes: Any) -> Access:
    """How opsd logs in to the sshd on loopback, under each of several names."""
    made = _access(
        user=server.user,
        key=server.identity_file,
        known_hosts=server.known_hosts,
        machines=tuple(
            Entry(name=name, address=server.host, port=server.port) for name in names or ("here",)
        ),
    )
    return replace(made, **changes)


def behind(access: Access, place: Reachable, server: SshServer) -> Access:
    """The same machines at another place, still with the keys of the server."""
    known = access.known_hosts.with_name(f"known_hosts-{secrets.token_hex(4)}")
    key = " ".join(server.known_hosts.read_text().split()[1:3])
    known.write_text("".join(f"{one.name} {key}\n" for one in access.machines))
    moved = tuple(replace(one, address=place.host, port=place.port) for one in access.machines)
    return replace(access, machines=moved, known_hosts=known)


def fleet_with(access: Access, *, within_s: float = WITHIN_S) -> SshFleet:
    """The fleet, without a cluster."""
    return SshFleet(access, open_kube=_no_cluster, deadline=within(within_s))


def fleet_of(
    real: Sequence[RealMachine], *, within_s: float = WITHIN_S, **changes: Any
) -> SshFleet:
    """The fleet of real machines."""
    return fleet_with(access_to(real, **changes), within_s=within_s)


def within(seconds: float) -> Deadline:
    """So much time from now, on the real clock."""
    return Deadline.after(seconds, SystemClock())


def asked(fleet: SshFleet, *commands: str, within_s: float = 10.0) -> dict[str, Visit]:
    """One visit to each machine, by its name; the probes are called ``q0``, ``q1`` and so on."""
    probes = [
        Probe(name=f"q{number}", command=command, within_s=within_s)
        for number, command in enumerate(commands)
    ]
    visits = fleet.visit(fleet.roster().machines, Script.of(probes))
    return {visit.machine.name: visit for visit in visits}


def outputs(visit: Visit) -> list[str]:
    """What a visit brought home, in the order of the questions."""
    return [visit.sections[name].stdout for name in sorted(visit.sections)]


def _access(*, user: str, key: Path, known_hosts: Path, machines: Iterable[Entry]) -> Access:
    return Access(
        user=user,
        key=Secret(f"file:{key}"),
        passphrase=None,
        known_hosts=known_hosts,
        known_hosts_configmap="",
        jump="",
        connect_timeout_s=10.0,
        at_once=8,
        nodes=False,
        exclude=(),
        machines=tuple(machines),
        remembered=known_hosts.with_name("nodes.json"),
    )


def _no_cluster(_deadline: Deadline) -> Kube:
    raise ConfigError("this test has no cluster")
