"""The API's objects as the facts that a verdict needs. Pure.

Limits: when a pod was bound to its node is only known of those that the scheduler bound; of
the others it is the time when they were made.
"""

from __future__ import annotations

from datetime import UTC, datetime

from opsd.clients.kube.objects import ContainerStatus, PodTemplate, condition
from opsd.clients.kube.objects import Lease as KubeLease
from opsd.clients.kube.objects import Node as KubeNode
from opsd.clients.kube.objects import Pod as KubePod
from opsd.cluster.nodeloss.facts import Node, Pod, Running
from opsd.cluster.nodeloss.memory import Memory
from opsd.cluster.postgres_images import server_in

MIRROR = "kubernetes.io/config.mirror"
UNREACHABLE = "node.kubernetes.io/unreachable"
CONTROL_PLANE_LABELS = (
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
)
NO_EXECUTE = "NoExecute"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def version_of(lease: KubeLease) -> str:
    """Something that differs after each renewal, whatever the holder's clock says."""
    return lease.metadata.resource_version


def node_of(seen: KubeNode, memory: Memory, at_s: float) -> Node:
    """A node as of now.

    Args:
        seen: as the API server has it.
        memory: in which this look at the nodes and leases is noted already.
        at_s: now, on the clock of the memory.
    """
    status, name = seen.status, seen.name
    ready = condition(status.conditions, "Ready")
    return Node(
        name=name,
        uid=seen.uid,
        created_at=seen.metadata.creation_timestamp or _LONG_AGO,
        ready=ready.status if ready else "",
        reason=ready.reason if ready else "",
        message=ready.message if ready else "",
        ready_since=ready.last_transition_time if ready else None,
        same_for=memory.age(f"ready/{name}", at_s),
        lease_silent=memory.age(f"lease/{name}", at_s),
        unschedulable=seen.spec.unschedulable,
        conditions=frozenset(one.type for one in status.conditions if one.status == "True"),
        taints=tuple(f"{taint.key}:{taint.effect}" for taint in seen.spec.taints),
        boot_id=status.node_info.boot_id,
        machine_id=status.node_info.machine_id,
        address=next((one.address for one in status.addresses if one.type == "InternalIP"), ""),
        is_control_plane=any(label in seen.labels for label in CONTROL_PLANE_LABELS),
    )


def ready_of(seen: KubeNode) -> str:
    """Status of its condition Ready; empty when there is none."""
    ready = condition(seen.status.conditions, "Ready")
    return ready.status if ready else ""


def pod_of(seen: KubePod) -> Pod:
    """A pod."""
    meta, status = seen.metadata, seen.status
    bound = condition(status.conditions, "PodScheduled")
    is_bound = bound is not None and bound.status == "True"
    disruption = condition(status.conditions, "DisruptionTarget")
    owner = seen.controller
    containers = (*status.init_container_statuses, *status.container_statuses)
    return Pod(
        namespace=seen.namespace,
        name=seen.name,
        uid=seen.uid,
        node=seen.spec.node_name,
        delete_at=meta.deletion_timestamp,
        grace_s=meta.deletion_grace_period_seconds,
        finalizers=meta.finalizers,
        bound_at=bound.last_transition_time if bound and is_bound else meta.creation_timestamp,
        phase=status.phase,
        containers=tuple(map(_state, status.container_statuses)),
        has_run=any(map(_has_run, status.container_statuses)),
        waits_for=next(filter(None, map(_waits_for, containers)), ""),
        disruption=disruption.reason if disruption and disruption.status == "True" else "",
        owner=f"{owner.kind}/{owner.name}" if owner else "",
        is_static=MIRROR in seen.annotations,
        tolerates_s=_tolerates_s(seen),
        claims=_claims(seen),
        is_postgres=_serves_postgres(seen),
    )


def _serves_postgres(seen: KubePod) -> bool:
    return (
        server_in(PodTemplate(metadata=seen.metadata, spec=seen.spec), insisted=False) is not None
    )


def _state(seen: ContainerStatus) -> Running:
    if seen.state.running:
        return Running.RUNNING
    return Running.TERMINATED if seen.state.terminated else Running.WAITING


def _has_run(seen: ContainerStatus) -> bool:
    return _state(seen) is not Running.WAITING or seen.restart_count > 0


def _waits_for(seen: ContainerStatus) -> str:
    return seen.state.waiting.reason if seen.state.waiting else ""


def _tolerates_s(seen: KubePod) -> int | None:
    """How long it bears a node that cannot be reached; 0: not at all, None: for ever."""
    spans = [
        one.toleration_seconds
        for one in seen.spec.tolerations
        if (one.key == UNREACHABLE or (not one.key and one.operator == "Exists"))
        and one.effect in ("", NO_EXECUTE)
    ]
    if not spans:
        return 0
    ends = [span for span in spans if span is not None]
    return min(ends) if ends else None  # the shortest counts, as the control plane does it


def _claims(seen: KubePod) -> tuple[str, ...]:
    return tuple(
        one.persistent_volume_claim.claim_name
        if one.persistent_volume_claim
        else f"{seen.name}-{one.name}"
        for one in seen.spec.volumes
        if one.persistent_volume_claim or one.ephemeral is not None
    )
