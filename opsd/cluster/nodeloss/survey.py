"""Look at a cluster often and cheaply, and closely only at what is suspect.

Every look reads the leases of the nodes, one small list. Nodes and the controller manager's own
lease are read once in a while, and at once when a lease is silent; pods only of nodes that are
lost. All pods are listed every few minutes, for those that hang on nodes that are well.

Limits: a pod that hangs on a node that is well is found minutes later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Forbidden, NotFound
from opsd.clients.kube.objects import (
    Lease,
    PersistentVolume,
    PersistentVolumeClaim,
    PodOutline,
)
from opsd.clients.kube.objects import Node as KubeNode
from opsd.clients.kube.objects import Pod as KubePod
from opsd.cluster.nodeloss.classify import Absent, judge_node, silent_nodes
from opsd.cluster.nodeloss.facts import STANDARD, ControlPlane, Node, Pod, Sighting, Thresholds
from opsd.cluster.nodeloss.incident import Volume
from opsd.cluster.nodeloss.memory import Memory, Uptime, looking
from opsd.cluster.nodeloss.reading import node_of, pod_of, ready_of, version_of
from opsd.cluster.nodeloss.vantage import Vantage, look_from

LEASES = "kube-node-lease"  # namespace
LEADER = ("kube-system", "kube-controller-manager")
NO_LEASE = "none"  # in the place of its version
MOST_CLAIMS = 10  # of one lost node that are looked up


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often what is looked at. The defaults make nine requests a minute when all is well."""

    look: timedelta = timedelta(seconds=10)
    suspicious: timedelta = timedelta(seconds=4)  #: while something is not clear yet
    close: timedelta = timedelta(seconds=60)  #: nodes and controller manager, at the latest
    sweep: timedelta = timedelta(minutes=5)  #: all pods
    sweep_again: timedelta = timedelta(seconds=50)  #: likewise, while some hang


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a close look saw."""

    at: datetime  #: by the API server's clock
    control_plane: ControlPlane
    nodes: Mapping[str, Node]
    lost: tuple[Node, ...] = ()  #: by the API's word, and by our own clock
    sightings: Mapping[str, tuple[Sighting, ...]] = field(default_factory=dict)  #: of the lost
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=dict)  #: all pods of the lost
    hanging: tuple[Pod, ...] = ()  #: pods elsewhere that were being deleted at `hung_at`
    hung_at: datetime
    absent: Mapping[str, Absent] = field(default_factory=dict)  #: nodes that are gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Looks at one cluster; what it has to remember is handed in and out."""

    uptime: Uptime
    thresholds: Thresholds = STANDARD
    pace: Pace = Pace()
    vantages: Sequence[Vantage] = ()

    def look(
        self, kube: Kube, memory: Memory, *, closely: bool = False
    ) -> tuple[Memory, Picture | None]:
        """Look once; None when nothing asked for a closer look.

        Args:
            kube: for as long as one look may take.
            memory: of the looks before.
            closely: whatever the leases say.

        Raises:
            TransientError, PermanentError, DeadlineExceeded: the API server did not answer.
        """
        at_s = self.uptime.seconds()
        leases = {one.name: version_of(one) for one in kube.list(Lease, namespace=LEASES)}
        without = dict.fromkeys(memory.names("ready"), NO_LEASE)
        memory = memory.noted("lease", without | leases, self.uptime.seconds())
        if not (closely or self.is_suspicious(memory)):
            return memory, None
        return self._look_closely(kube, memory, at_s)

    def begin(self, memory: Memory | None) -> Memory:
        """The memory for a look; call it before each."""
        return looking(memory, self.uptime, longest_gap=self.thresholds.hold)

    def is_suspicious(self, memory: Memory) -> bool:
        """Whether a lease has just fallen silent, or one that was given up speaks again."""
        at_s = self.uptime.seconds()
        lost, suspects = set(memory.names("lost")), set()
        for name in memory.names("ready"):
            silent_for = memory.age(f"lease/{name}", at_s)
            if silent_for < self.thresholds.suspect:
                suspects |= {name} & lost
            elif silent_for < self.thresholds.recovering:
                suspects |= {name} - lost
        return bool(suspects)

    def _look_closely(self, kube: Kube, memory: Memory, at_s: float) -> tuple[Memory, Picture]:
        memory, leader = self._look_at_leader(kube, memory)
        seen = {one.name: one for one in kube.list(KubeNode)}
        memory = _with_nodes(memory, seen, self.uptime.seconds())
        nodes = {name: node_of(one, memory, at_s) for name, one in seen.items()}
        control_plane = ControlPlane(
            watched_for=memory.watched_for(at_s),
            error=memory.error,
            error_age=_since(memory.error_s, at_s),
            leader=leader or "",
            leader_silent=None if leader is None else memory.age("leader/leader", at_s),
            nodes=len(nodes),
            silent=silent_nodes(nodes.values(), thresholds=self.thresholds),
        )
        lost = [node for node in nodes.values() if self._is_lost(node)]
        memory = memory.noted("lost", {node.name: "" for node in lost}, self.uptime.seconds())
        memory = self._sweep_if_due(kube, memory, at_s)
        names = {node.name for node in lost}
        hanging = tuple(pod for pod in memory.hanging if pod.node not in names)
        gone = {pod.node: "" for pod in hanging if pod.node and pod.node not in nodes}
        memory = memory.noted("gone", gone, self.uptime.seconds())
        return memory, Picture(
            at=kube.server_time(),
            control_plane=control_plane,
            nodes=nodes,
            lost=tuple(lost),
            sightings=look_from(self.vantages, lost),
            pods={node.name: _pods_on(kube, node) for node in lost},
            hanging=hanging,
            hung_at=memory.swept_at or kube.server_time(),
            absent={
                name: Absent(name=name, gone_s=memory.age(f"gone/{name}", at_s).total_seconds())
                for name in ("", *gone)
            },
        )

    def _is_lost(self, node: Node) -> bool:
        verdict = judge_node(node, thresholds=self.thresholds)
        return verdict is not None and verdict.kind.is_lost

    def _look_at_leader(self, kube: Kube, memory: Memory) -> tuple[Memory, str | None]:
        """Who leads; None when the controller manager holds no election here."""
        lease = kube.find(Lease, LEADER[1], namespace=LEADER[0])
        if lease is None:
            return memory.noted("leader", {}, 0.0), None
        seen = {"leader": version_of(lease)}
        memory = memory.noted("leader", seen, self.uptime.seconds())
        return memory, lease.spec.holder_identity

    def _sweep_if_due(self, kube: Kube, memory: Memory, at_s: float) -> Memory:
        """Look for pods that are being deleted, wherever they are."""
        now = kube.server_time()
        age = None if memory.swept_s is None else timedelta(seconds=at_s - memory.swept_s)
        is_due = age is None or age >= self.pace.sweep or memory.swept_at is None
        if age is not None and memory.swept_at is not None:
            latest = age >= self.pace.sweep_again
            is_due = is_due or any(
                self._is_overdue(pod, now)
                and (latest or not self._is_overdue(pod, memory.swept_at))
                for pod in memory.hanging
            )
        if not is_due:
            return memory
        hanging = tuple(_leaving(kube))
        return replace(memory, swept_s=at_s, swept_at=kube.server_time(), hanging=hanging)

    def _is_overdue(self, pod: Pod, now: datetime) -> bool:
        return pod.delete_at is not None and now > pod.delete_at + self.thresholds.slack


def _leaving(kube: Kube) -> Iterator[Pod]:
    """All pods that are being deleted; only where there are some, pods are read in full."""
    outlines = kube.list(PodOutline)
    leaving = {one.uid: one.namespace for one in outlines if one.metadata.deletion_timestamp}
    for namespace in sorted(set(leaving.values())):
        for pod in kube.list(KubePod, namespace=namespace):
            if pod.uid in leaving:
                yield pod_of(pod)


def volumes_of(kube: Kube, pods: Sequence[Pod]) -> Iterator[Volume]:
    """Where the data of these pods lies, as far as opsd may know.

    Raises:
        as `Survey.look`.
    """
    claims = dict.fromkeys((pod.namespace, claim) for pod in pods for claim in pod.claims)
    for namespace, name in list(claims)[:MOST_CLAIMS]:
        try:
            claim = kube.get(PersistentVolumeClaim, name, namespace=namespace)
            volume = kube.get(PersistentVolume, claim.spec.volume_name)
        except (NotFound, Forbidden):
            yield Volume(claim=f"{namespace}/{name}", where="")
        else:
            yield Volume(claim=f"{namespace}/{name}", where=where_is(volume))


def where_is(volume: PersistentVolume) -> str:
    """``nfs 10.0.0.5:/export/db-data-pg-0``; empty when it is not known."""
    spec = volume.spec
    if spec.nfs:
        return f"nfs {spec.nfs.server}:{spec.nfs.path}"
    if spec.csi:
        attributes = spec.csi.volume_attributes
        if "server" in attributes and "share" in attributes:
            parts = (attributes["share"], attributes.get("subdir", ""))
            path = "/".join(part.strip("/") for part in parts if part)
            return f"nfs {attributes['server']}:/{path}"
        return f"{spec.csi.driver} {spec.csi.volume_handle}"
    own = spec.local or spec.host_path
    return f"{own.path} of the node" if own else ""


def _with_nodes(memory: Memory, seen: Mapping[str, KubeNode], at_s: float) -> Memory:
    """With the state of all nodes; one without a lease has been silent since we know it."""
    leases = {
        name: mark.value
        for name in seen
        if (mark := memory.marks.get(f"lease/{name}")) is not None
    }
    ready = {name: ready_of(one) for name, one in seen.items()}
    memory = memory.noted("ready", ready, at_s)
    return memory.noted("lease", dict.fromkeys(seen, NO_LEASE) | leases, at_s)


def _pods_on(kube: Kube, node: Node) -> tuple[Pod, ...]:
    return tuple(pod_of(one) for one in kube.list(KubePod, fields=f"spec.nodeName={node.name}"))


def _since(moment_s: float | None, at_s: float) -> timedelta | None:
    return None if moment_s is None else timedelta(seconds=max(0.0, at_s - moment_s))
