"""Everything that the checks look at, gathered once: frozen, and each part read or unreadable.

What a test does not hand in was not read, and the checks over it are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from opsd.clients.kube.objects import (
    ConfigMap,
    CustomResourceDefinition,
    DaemonSet,
    Deployment,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    Service,
    StatefulSet,
)
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Section
from opsd.upgrade.reading import Reading, Unreadable
from opsd.upgrade.version import Version

T = TypeVar("T")

KILLED = 137  # exit status of a probe that took too long


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What one node of the cluster answered to the probes of all checks."""

    machine: Machine
    sections: Mapping[str, Section] = field(default_factory=dict)
    problem: str = ""  #: why not all of them arrived

    @property
    def name(self) -> str:
        """Of its node."""
        return self.machine.name

    @property
    def is_control_plane(self) -> bool:
        """Whether the API server or etcd run there."""
        return Role.CONTROL_PLANE in self.machine.roles

    def section(self, probe: str) -> Section:
        """A whole answer, whatever its exit status: for probes that say something with it.

        Raises:
            Unreadable: it did not arrive, took too long, or sudo refused.
        """
        where = f"{self.name}: {probe}"
        section = self.sections.get(probe)
        if section is None:
            raise Unreadable(where, self.problem or "the answer was cut off")
        if section.is_refused:
            fix = "give the user the sudoers lines of docs/nodes.md"
            raise Unreadable(where, f"sudo refused: {section.complaint()}", fix=fix)
        if section.status == KILLED:
            raise Unreadable(where, "it did not answer in time and was ended")
        return section

    def text(self, probe: str) -> str:
        """What a probe that succeeded printed.

        Raises:
            Unreadable: as `section`; and when the command failed.
        """
        section = self.section(probe)
        if not section.is_ok:
            raise Unreadable(f"{self.name}: {probe}", section.complaint())
        return section.stdout


def _unread() -> Reading[T]:
    return Reading.failed("facts", "not read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One cluster at one time."""

    at: datetime  #: now, aware UTC
    server: Version  #: of the API server that answered

    # From the API.
    nodes: Reading[tuple[Node, ...]] = field(default_factory=_unread)
    pods: Reading[tuple[Pod, ...]] = field(default_factory=_unread)
    replica_sets: Reading[tuple[ReplicaSet, ...]] = field(default_factory=_unread)
    deployments: Reading[tuple[Deployment, ...]] = field(default_factory=_unread)
    daemon_sets: Reading[tuple[DaemonSet, ...]] = field(default_factory=_unread)
    stateful_sets: Reading[tuple[StatefulSet, ...]] = field(default_factory=_unread)
    services: Reading[tuple[Service, ...]] = field(default_factory=_unread)
    budgets: Reading[tuple[PodDisruptionBudget, ...]] = field(default_factory=_unread)
    volumes: Reading[tuple[PersistentVolume, ...]] = field(default_factory=_unread)
    claims: Reading[tuple[PersistentVolumeClaim, ...]] = field(default_factory=_unread)
    crds: Reading[tuple[CustomResourceDefinition, ...]] = field(default_factory=_unread)
    #: ConfigMaps of kube-system by name: kubeadm-config, kubelet-config, kube-proxy, coredns;
    #: one that is not there is None.
    config_maps: Reading[Mapping[str, ConfigMap | None]] = field(default_factory=_unread)

    # From the machines: nodes of the cluster only.
    machines: Reading[tuple[MachineFacts, ...]] = field(default_factory=_unread)

    # From opsd's own repositories: subject -> when its newest verified backup was made.
    backups: Reading[Mapping[str, datetime]] = field(default_factory=_unread)

    @property
    def control_plane(self) -> tuple[MachineFacts, ...]:
        """The machines on which the API server or etcd run.

        Raises:
            Unreadable: nobody could be visited, or none of them is one.
        """
        found = tuple(one for one in self.machines.value if one.is_control_plane)
        if not found:
            raise Unreadable("machines", "none of them is known to be of the control plane")
        return found
