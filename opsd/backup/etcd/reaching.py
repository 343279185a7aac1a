"""The way to each control plane: over SSH to its own loopback, or straight to given addresses.

Over SSH nothing needs to be installed or opened on the node: opsd reads what the API server uses
to reach etcd, and asks etcd through the login. That key leaves the node, in memory only; the
backup has all keys of the cluster in it anyway.

Limits: over SSH only an etcd that runs on the control plane itself, as kubeadm sets it up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from opsd.backup.etcd import files as nodefiles
from opsd.backup.etcd.bundle import File
from opsd.backup.etcd.health import View, unfit
from opsd.backup.etcd.plane import (
    DEFAULT_PORT,
    LOOPBACK,
    Plane,
    identity_of,
    missing,
    not_yet,
    plane_of,
)
from opsd.backup.etcd.settings import Settings
from opsd.backup.etcd.taking import Control
from opsd.clients.etcd.exchange import Endpoint, Identity
from opsd.clients.etcd.member import Etcd
from opsd.clock import Deadline
from opsd.errors import ConfigError, OpsdError, PermanentError, TransientError
from opsd.hosts.fleet import Fleet
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Script


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One control plane: it can be taken, or why not."""

    name: str  #: of its machine, or its address
    control: Control | None = None
    problem: OpsdError | None = None
    cause: str = ""  #: subject of what the problem follows from


def over_ssh(
    fleet: Fleet, settings: Settings, *, deadline: Deadline, stack: contextlib.ExitStack
) -> Iterator[Reached]:
    """Every control plane of the fleet, by name.

    Args:
        fleet: the machines.
        settings: of the job.
        deadline: of all questions.
        stack: keeps the ways open until they are not needed any more.

    Raises:
        ConfigError: no way to log in is configured, or no machine is a control plane.
        TransientError: the cluster does not tell which machines are.
        DeadlineExceeded: the run's time is over.
    """
    machines = _control_planes(fleet)
    script = Script.of([nodefiles.probe()])
    visits = {visit.machine.name: visit for visit in fleet.visit(machines, script)}
    for machine in machines:
        visit = visits[machine.name]
        try:
            section = visit.sections.get(nodefiles.NAME)
            if section is None and visit.problem:
                raise visit.problem
            found = nodefiles.received(section, machine=machine.name)
            found += _more(fleet, machine, found)
            control = _through(fleet, machine, found, settings, deadline=deadline, stack=stack)
        except (ConfigError, TransientError, PermanentError) as exc:
            yield Reached(name=machine.name, problem=exc, cause=machine.subject)
        else:
            yield Reached(name=machine.name, control=control)


def directly(settings: Settings, *, deadline: Deadline) -> Iterator[Reached]:
    """Every configured endpoint, in its order.

    Raises:
        ConfigError: the certificate cannot be read.
        PermanentError: the files below ``host_root`` cannot be read.
    """
    found: tuple[File, ...] = ()
    if settings.host_root:
        found = nodefiles.below(settings.host_root)
        found += nodefiles.at(settings.host_root, not_yet(plane_of(found), found))
    identity = _identity(settings)
    for url in settings.endpoints:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        name = host if port == DEFAULT_PORT else f"{host}:{port}"
        endpoint = Endpoint(
            name=f"etcd on {name}",
            host=host,
            port=port,
            identity=identity if parts.scheme == "https" else None,
        )
        try:
            control = _control(Etcd(endpoint, deadline=deadline), found, settings)
        except (ConfigError, TransientError, PermanentError) as exc:
            yield Reached(name=name, problem=exc)
        else:
            yield Reached(name=name, control=control)


def _control_planes(fleet: Fleet) -> tuple[Machine, ...]:
    roster = fleet.roster()
    found = [one for one in roster.machines if Role.CONTROL_PLANE in one.roles]
    if not found and roster.unknown:
        raise TransientError(
            f"which machines are control planes is not known: {roster.unknown}; written down as"
            ' [[machines]] with roles = ["control-plane"] they are known always'
        )
    if not found:
        raise ConfigError(
            "no machine has the role control-plane: add [[machines]] with roles ="
            ' ["control-plane"], or set endpoints'
        )
    return tuple(sorted(found, key=lambda one: one.name))


def _more(fleet: Fleet, machine: Machine, found: tuple[File, ...]) -> tuple[File, ...]:
    """What flags name besides; what is not there is told by who looks for it."""
    wanted = not_yet(plane_of(found), found)
    if not wanted:
        return ()
    script = Script.of([nodefiles.probe_for(wanted)])
    for visit in fleet.visit([machine], script):
        section = visit.sections.get(nodefiles.NAME)
        with contextlib.suppress(PermanentError):  # none of them is there
            return nodefiles.received(section, machine=machine.name)
    return ()


def _through(
    fleet: Fleet,
    machine: Machine,
    found: tuple[File, ...],
    settings: Settings,
    *,
    deadline: Deadline,
    stack: contextlib.ExitStack,
) -> Control:
    plane = plane_of(found)
    identity = identity_of(plane, found)
    port = _local_port(plane, machine)
    if identity is None:
        raise PermanentError(
            f"reach etcd on {machine.name}: /etc/kubernetes/manifests/kube-apiserver.yaml there"
            " names no certificate for it that can be read"
        )
    way = stack.enter_context(fleet.way(machine))
    endpoint = Endpoint(name=f"etcd on {machine.name}", port=port, identity=identity, dial=way)
    return _control(Etcd(endpoint, deadline=deadline), found, settings)


def _local_port(plane: Plane, machine: Machine) -> int:
    for url in plane.etcd_servers:
        parts = urlsplit(url)
        if parts.hostname in (*LOOPBACK, plane.address):
            return parts.port or DEFAULT_PORT
    servers = ", ".join(plane.etcd_servers) or "none"
    raise PermanentError(
        f"reach etcd on {machine.name}: its API server uses another machine's ({servers}); set"
        " endpoints, ca, certificate and key"
    )


def _control(etcd: Etcd, found: tuple[File, ...], settings: Settings) -> Control:
    plane = plane_of(found)
    status = etcd.status()
    if reason := unfit(status):
        raise TransientError(f"{etcd.name}: {reason}")
    view = View(
        status=status,
        members=etcd.members(),
        alarms=etcd.alarms(),
        quota_bytes=status.db_size_quota or plane.quota_bytes,
    )
    lacking = missing(plane, found, accepted=settings.absent)
    return Control(etcd=etcd, view=view, plane=plane, files=found, missing=lacking)


def _identity(settings: Settings) -> Identity | None:
    if settings.ca is None or settings.certificate is None or settings.key is None:
        return None
    return Identity(
        authority=settings.ca.reveal(),
        certificate=settings.certificate.reveal(),
        key=settings.key.reveal(),
    )
