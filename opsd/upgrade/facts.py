"""Everything that the checks look at, gathered once: frozen, and each part read or unreadable.

What a test does not hand in was not read, and the checks over it are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from opsd.clients.kube.objects import (
    APIService,
    ConfigMap,
    CustomResourceDefinition,
    DaemonSet,
    Deployment,
    EndpointSlice,
    HelmRelease,
    Kustomization,
    MutatingWebhookConfiguration,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    Service,
    StatefulSet,
    ValidatingWebhookConfiguration,
)
from opsd.hosts.certificates import Certificate
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Section
from opsd.upgrade import helm
from opsd.upgrade.reading import Reading, Unreadable
from opsd.upgrade.version import Minor, Version

T = TypeVar("T")

WebhookConfiguration = ValidatingWebhookConfiguration | MutatingWebhookConfiguration

KILLED = 137  # exit status of a probe that took too long


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What one node of the cluster answered to the probes of all checks."""

    machine: Machine
    sections: Mapping[str, Section] = field(default_factory=dict)
    problem: str = ""  #: why not all of them arrived
    clock_offset_s: float | None = None  #: its clock minus opsd's, exact to a second

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
            why = self.problem or "the answer was cut off"
            raise Unreadable(where, why, fix=f"opsd nodes check {self.name}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeprecatedUse:
    """Somebody asked for an API that will go, since the API server started."""

    group: str  #: empty for the core group
    version: str
    resource: str  #: with its subresource
    removed_in: Minor | None  #: None: no end is announced

    def __str__(self) -> str:
        return f"{self.resource}.{self.version}.{self.group}".rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerMetrics:
    """What the API server counted since it started."""

    started_at: datetime | None  #: aware UTC
    deprecated: tuple[DeprecatedUse, ...] = ()
    requests: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """By group, version and resource, for those in `deprecated`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletMetrics:
    """What a kubelet says of itself."""

    cgroup: int | None = None  #: 1 or 2
    losing_support: Minor | None = None  #: the release that will not take its container runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Objects that are stored in a version of the API that a release removes."""

    group_version: str
    resource: str
    names: tuple[str, ...]  #: some of them


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
    webhooks: Reading[tuple[WebhookConfiguration, ...]] = field(default_factory=_unread)
    slices: Reading[tuple[EndpointSlice, ...]] = field(default_factory=_unread)
    api_services: Reading[tuple[APIService, ...]] = field(default_factory=_unread)
    kustomizations: Reading[tuple[Kustomization, ...]] = field(default_factory=_unread)
    flux_releases: Reading[tuple[HelmRelease, ...]] = field(default_factory=_unread)
    helm_releases: Reading[tuple[helm.Release, ...]] = field(default_factory=_unread)
    ready: Reading[str] = field(default_factory=_unread)  #: ``/readyz?verbose``
    live: Reading[str] = field(default_factory=_unread)  #: ``/livez?verbose``
    served: Reading[frozenset[str]] = field(default_factory=_unread)  #: group/versions
    leftovers: Reading[tuple[Leftover, ...]] = field(default_factory=_unread)
    metrics: Reading[ServerMetrics] = field(default_factory=_unread)
    kubelets: Mapping[str, Reading[KubeletMetrics]] = field(default_factory=dict)  #: by node
    #: ConfigMaps of kube-system by name: kubeadm-config, kubelet-config, kube-proxy, coredns;
    #: one that is not there is None.
    config_maps: Reading[Mapping[str, ConfigMap | None]] = field(default_factory=_unread)

    # From the machines: nodes of the cluster only.
    machines: Reading[tuple[MachineFacts, ...]] = field(default_factory=_unread)

    #: Certificates that programs show, by node and port; see `opsd.upgrade.handshakes`.
    shown: Mapping[tuple[str, int], Reading[Certificate]] = field(default_factory=dict)

    # From opsd itself: subject -> when its newest good backup was made, aware UTC.
    backups: Reading[Mapping[str, datetime]] = field(default_factory=_unread)
    own_pod: str = ""  #: UID of the pod that opsd is; empty: it is none of this cluster

    @property
    def own_node(self) -> str:
        """On which opsd runs; empty: on none of this cluster."""
        pods = () if self.pods.problem is not None else self.pods.value
        return next((pod.spec.node_name for pod in pods if pod.uid == self.own_pod), "")

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
