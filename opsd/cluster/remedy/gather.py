"""See everything at one moment that counts for acting on a lost node, or for giving one back.

Nodes on which nothing is lost and nothing is under way cost nothing but the list of nodes.

Limits: whether another node can take a pod is told from its selector, taints and cordons, not
from affinities, topology or free memory: the scheduler has the last word. Who works on nodes is
known of drains, of the conditions that Kubernetes has for it, and of kured.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Forbidden
from opsd.clients.kube.objects import (
    DaemonSet,
    Lease,
    Namespace,
    PersistentVolume,
    Pod,
    StatefulSet,
    Taint,
    Toleration,
    VolumeAttachment,
    condition,
)
from opsd.clients.kube.objects import Node as KubeNode
from opsd.cluster.nodeloss.classify import judge_control_plane, judge_node
from opsd.cluster.nodeloss.facts import TRUE, Node, Thresholds
from opsd.cluster.nodeloss.reading import MIRROR, version_of
from opsd.cluster.nodeloss.survey import LEASES, Picture
from opsd.cluster.remedy.case import Case, Held, Workers
from opsd.cluster.remedy.cutting import by_claim, uncut
from opsd.cluster.remedy.devices import fitting
from opsd.cluster.remedy.fences import Device
from opsd.cluster.remedy.nfsfence import OpenFleet
from opsd.cluster.remedy.patches import is_foreign
from opsd.cluster.remedy.record import PLAN, Moved, Plan, Record, read
from opsd.cluster.remedy.settings import RemedySettings

MARK = "opsd.dev/remedy"  # label or annotation of a StatefulSet, a namespace, a node
ALLOWED, DENIED = "allowed", "denied"
EXCLUDED = "remediation.medik8s.io/exclude-from-remediation"  # a label that others use
OWN_NODE = "OPSD_NODE_NAME"  # variable; by the downward API
KURED = ("kube-system", "kured", "weave.works/kured-node-lock")  # DaemonSet and annotation
IN_MAINTENANCE = frozenset({"MaintenanceInProgress", "MaintenancePlanned", "DrainInProgress"})
PROVISIONERS = ("nfs-subdir-external-provisioner", "nfs-client-provisioner", "nfs-provisioner")
DAEMON_SET = "DaemonSet"
_REPLACED_ANYWAY = frozenset({"ReplicaSet", DAEMON_SET, "Job"})  # kinds of owners
_ENDED = frozenset({"Succeeded", "Failed"})
_KEEPS_OUT = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One node: what is decided from, and what is acted on."""

    case: Case
    seen: KubeNode
    lease: str  #: version of its lease
    device: Device | None  #: the fence that fits it


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """How looks are made."""

    kube: Kube
    settings: RemedySettings
    thresholds: Thresholds
    leads: bool
    open_fleet: OpenFleet

    def looks(self, picture: Picture) -> Iterator[Look]:
        """Every node that is lost, or on which something is under way.

        Raises:
            TransientError, PermanentError, DeadlineExceeded: the API server did not answer.
        """
        nodes = {node.name: node for node in self.kube.list(KubeNode)}
        lost = {node.name for node in picture.lost}
        for name, seen in nodes.items():
            record = read(seen)
            is_ours = record.plan is not None or bool(record.unreadable)
            if name in picture.nodes and (name in lost or is_ours):
                yield self._look(seen, record, picture, nodes)

    def _look(
        self, seen: KubeNode, record: Record, picture: Picture, nodes: Mapping[str, KubeNode]
    ) -> Look:
        node, now = picture.nodes[seen.name], picture.at
        lease = self.kube.find(Lease, seen.name, namespace=LEASES)
        version = version_of(lease) if lease else ""
        device = fitting(seen, self.settings.fences, self.open_fleet)
        pods = tuple(self.kube.list(Pod, fields=f"spec.nodeName={seen.name}"))
        verdict = judge_node(
            node, picture.sightings.get(seen.name, ()), thresholds=self.thresholds
        )
        others = tuple(one for name, one in nodes.items() if name != seen.name)
        confirmed = record.confirmation
        holds = confirmed is not None and confirmed.holds(node=seen, lease=version, now=now)
        plan = record.plan
        case = Case(
            now=now,
            node=node,
            verdict=verdict,
            degraded=judge_control_plane(picture.control_plane, thresholds=self.thresholds),
            record=record,
            confirmed_by=confirmed.by if confirmed and holds else "",
            fence=device.fence if device else None,
            held=self._held(pods, node, plan, others, device),
            workers=self._workers(picture, seen.name, nodes),
            old_left=tuple(self._old_left(plan)),
            not_running=tuple(self._not_running(plan, seen.name)),
            protected=self._protected(seen, pods),
            excluded=_is_excluded(seen),
            foreign_taint=any(is_foreign(taint) for taint in seen.spec.taints),
            maintenance=self._maintenance(picture, verdict.during if verdict else "", seen.name),
            leads=self.leads,
        )
        return Look(case=case, seen=seen, lease=version, device=device)

    def _held(
        self,
        pods: Sequence[Pod],
        node: Node,
        plan: Plan | None,
        others: Sequence[KubeNode],
        device: Device | None,
    ) -> Held:
        sets = {
            (pod.namespace, pod.controller.name): self._stateful_set(pod)
            for pod in pods
            if pod.controller and pod.controller.kind == "StatefulSet"
        }
        wishes = {place: self._wish(*place, found) for place, found in sets.items()}
        allowed = [pod for pod in pods if wishes.get(_owner(pod)) == ALLOWED]
        writing = self._writing(pods, device)
        attached: tuple[str, ...] = ()
        if plan is not None and node.ready == TRUE:
            volumes = self.kube.list(VolumeAttachment)
            attached = tuple(one.name for one in volumes if one.spec.node_name == node.name)
        return Held(
            pods=tuple(_moved(pod) for pod in allowed),
            bystanders=tuple(
                _place(pod) for pod in pods if _is_bystander(pod, wishes, writing.keys())
            ),
            denied=tuple("/".join(place) for place, wish in wishes.items() if wish == DENIED),
            uncut=tuple(
                f"{_place(pod)} to {writing[pod.uid]}" for pod in allowed if pod.uid in writing
            ),
            homeless=tuple(
                _place(pod) for pod in allowed if not any(_takes(one, pod) for one in others)
            ),
            last_replicas=tuple(
                "/".join(place)
                for place, found in sets.items()
                if found and found.spec.replicas > 1 and not found.status.ready_replicas
            ),
            ending=tuple(_place(pod) for pod in pods if pod.metadata.deletion_timestamp),
            attached=attached,
        )

    def _writing(self, pods: Sequence[Pod], device: Device | None) -> Mapping[str, str]:
        """Where pods write that the fence does not cut, by their UIDs."""
        servers = device.servers if device else None
        if servers is None:
            return {}
        claims = by_claim(self.kube.list(PersistentVolume))
        places = {pod.uid: ", ".join(uncut(pod, claims, servers)) for pod in pods}
        return {uid: place for uid, place in places.items() if place}

    def _stateful_set(self, pod: Pod) -> StatefulSet | None:
        name = pod.controller.name if pod.controller else ""
        return self.kube.find(StatefulSet, name, namespace=pod.namespace)

    def _wish(self, namespace: str, name: str, found: StatefulSet | None) -> str:
        """What the owner of a StatefulSet wants: the nearest word counts."""
        own = _mark(found) if found else ""
        if own in (ALLOWED, DENIED):
            return own
        around = _mark(self.kube.find(Namespace, namespace))
        if around in (ALLOWED, DENIED):
            return around
        listed = {namespace, f"{namespace}/{name}"} & set(self.settings.allow)
        return ALLOWED if listed else ""

    def _workers(self, picture: Picture, name: str, nodes: Mapping[str, KubeNode]) -> Workers:
        workers = [one for one in picture.nodes.values() if not one.is_control_plane]
        watched, cool_down = picture.control_plane.watched_for, self.settings.cool_down
        return Workers(
            count=len(workers),
            lost=tuple(one.name for one in workers if one.ready != TRUE),
            back_lately=tuple(
                one.name
                for one in workers
                if one.ready == TRUE and one.same_for < min(watched, cool_down)
            ),
            in_remedy=tuple(
                other for other, one in nodes.items() if other != name and PLAN in one.annotations
            ),
        )

    def _old_left(self, plan: Plan | None) -> Iterator[Moved]:
        for pod in plan.pods if plan else ():
            found = self.kube.find(Pod, pod.name, namespace=pod.namespace)
            if found is not None and found.uid == pod.uid:
                yield pod

    def _not_running(self, plan: Plan | None, name: str) -> Iterator[str]:
        for pod in plan.pods if plan else ():
            found = self.kube.find(Pod, pod.name, namespace=pod.namespace)
            if found is None:
                yield f"{pod.place}: there is none"
            elif found.uid == pod.uid:
                yield f"{pod.place}: the old one is still there"
            elif found.spec.node_name == name or not _is_ready(found):
                yield f"{pod.place}: {_why_not_ready(found)}"

    def _protected(self, seen: KubeNode, pods: Sequence[Pod]) -> str:
        name = seen.name
        for pattern in self.settings.protected:
            if fnmatchcase(name, pattern):
                return f"the configuration says so ({pattern})"
        if name in (socket.gethostname(), os.environ.get(OWN_NODE, "")):
            return "opsd runs on it"
        for pod in pods:
            if any(word in one.image for one in pod.spec.containers for word in PROVISIONERS):
                return f"{_place(pod)} on it makes and removes volumes"
        addresses = {one.address for one in seen.status.addresses} | {name}
        for volume in self.kube.list(PersistentVolume):
            if _server_of(volume) in addresses:
                return f"it is the file server of {volume.name}"
        return ""

    def _maintenance(self, picture: Picture, during: str, name: str) -> str:
        if during:
            return f"{name} is being emptied on purpose"
        for one in picture.nodes.values():
            if found := sorted(one.conditions & IN_MAINTENANCE):
                return f"{one.name} has the condition {found[0]}"
        namespace, daemon_set, lock = KURED
        try:
            kured = self.kube.find(DaemonSet, daemon_set, namespace=namespace)
        except Forbidden:
            return ""
        return "kured holds its lock" if kured and kured.annotations.get(lock) else ""


def _owner(pod: Pod) -> tuple[str, str]:
    """The StatefulSet that it is of; two empty strings when it is of none."""
    owner = pod.controller
    is_of_set = owner is not None and owner.kind == "StatefulSet"
    return (pod.namespace, owner.name) if owner and is_of_set else ("", "")


def _is_bystander(
    pod: Pod, wishes: Mapping[tuple[str, str], str], writing: Collection[str]
) -> bool:
    """Whether the taint would end it for good, or start it elsewhere, and nobody wants that.

    Kubernetes replaces pods of Deployments anyway, but the taint takes their disks from a node
    at once that may still write to them.
    """
    if MIRROR in pod.annotations or pod.status.phase in _ENDED:
        return False
    if wishes.get(_owner(pod)) == ALLOWED:
        return False
    kind = pod.controller.kind if pod.controller else ""
    return kind not in _REPLACED_ANYWAY or (kind != DAEMON_SET and pod.uid in writing)


def _mark(item: StatefulSet | Namespace | None) -> str:
    return (item.annotations.get(MARK) or item.labels.get(MARK, "")) if item else ""


def _is_excluded(seen: KubeNode) -> bool:
    marks = (seen.labels.get(MARK), seen.annotations.get(MARK))
    return DENIED in marks or seen.labels.get(EXCLUDED) == "true"


def _moved(pod: Pod) -> Moved:
    return Moved(namespace=pod.namespace, name=pod.name, uid=pod.uid)


def _place(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"


def _takes(node: KubeNode, pod: Pod) -> bool:
    """Whether nothing obvious keeps the pod from the node."""
    ready = condition(node.status.conditions, "Ready")
    if ready is None or ready.status != TRUE or node.spec.unschedulable:
        return False
    if any(node.labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    keeping = (taint for taint in node.spec.taints if taint.effect in _KEEPS_OUT)
    return all(any(_bears(one, taint) for one in pod.spec.tolerations) for taint in keeping)


def _bears(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect not in ("", taint.effect):
        return False
    if toleration.operator == "Exists":
        return toleration.key in ("", taint.key)
    return (toleration.key, toleration.value) == (taint.key, taint.value)


def _server_of(volume: PersistentVolume) -> str:
    spec = volume.spec
    if spec.nfs:
        return spec.nfs.server
    return spec.csi.volume_attributes.get("server", "") if spec.csi else ""


def _is_ready(pod: Pod) -> bool:
    ready = condition(pod.status.conditions, "Ready")
    return ready is not None and ready.status == TRUE


def _why_not_ready(pod: Pod) -> str:
    for status in pod.status.container_statuses:
        if status.state.waiting and status.state.waiting.reason:
            return status.state.waiting.reason
    scheduled = condition(pod.status.conditions, "PodScheduled")
    if scheduled is not None and scheduled.status != TRUE:
        return scheduled.message or scheduled.reason
    return f"{pod.status.phase or 'unknown'}, not ready"
