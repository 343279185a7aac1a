"""Can every node be drained, and what stops while it is?

An upgrade drains one node after another. A budget that allows no eviction holds it for ever, a
pod without a controller does not come back, and what does not fit elsewhere waits.

Limits: whether pods fit elsewhere is counted by their requests for processor and memory, and by
nodeSelector; affinity, taints that only some bear, and ports are not looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opsd.clients.kube.objects import (
    Node,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    StatefulSet,
)
from opsd.upgrade import quantity
from opsd.upgrade.check import Check, Hop, Note, failed, passed, skipped, warned
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable

MIRROR = "kubernetes.io/config.mirror"
_ENDED = ("Succeeded", "Failed")
_RESOURCES = ("cpu", "memory")
NAMES_SHOWN = 5


def _budgets(facts: Facts, _: Hop) -> Iterator[Note]:
    budgets = facts.budgets.value
    if not budgets:
        yield skipped("poddisruptionbudgets", "there is none")
        return
    pods = [pod for pod in facts.pods.value if _is_evicted(pod)]
    held: dict[str, list[str]] = defaultdict(list)
    for budget in budgets:
        matching = [pod for pod in pods if _covers(budget, pod)]
        for pod in matching:
            held[str(pod)].append(budget.name)
        if matching and budget.status.disruptions_allowed == 0:
            yield failed(str(budget), _why(budget, matching))
        else:
            yield passed(str(budget), f"allows {budget.status.disruptions_allowed}")
    for pod_name, names in sorted(held.items()):
        if len(names) > 1:
            told = ", ".join(sorted(names))
            yield failed(pod_name, f"is in {len(names)} budgets ({told}): no eviction works then")


def _why(budget: PodDisruptionBudget, pods: Sequence[Pod]) -> str:
    status = budget.status
    told = f"allows no eviction: {status.current_healthy} of {status.desired_healthy} wanted pods "
    ill = "are well" if status.current_healthy < status.desired_healthy else "are there, no spare"
    stuck = status.current_healthy < status.desired_healthy and (
        budget.spec.unhealthy_pod_eviction_policy != "AlwaysAllow"
    )
    more = "; set unhealthyPodEvictionPolicy: AlwaysAllow" if stuck else ""
    return f"{told}{ill} ({_names(pods)}){more}"


def _covers(budget: PodDisruptionBudget, pod: Pod) -> bool:
    selector = budget.spec.selector
    is_meant = selector is not None and selector.selects(pod.labels)
    return is_meant and budget.namespace == pod.namespace


def _bare(facts: Facts, _: Hop) -> Iterator[Note]:
    pods = [pod for pod in facts.pods.value if _is_evicted(pod)]
    bare = [pod for pod in pods if pod.controller is None]
    for pod in bare:
        yield failed(str(pod), f"on {pod.spec.node_name}: nobody makes it again after the drain")
    yield passed("pods", f"{len(pods) - len(bare)} have a controller")


def _outages(facts: Facts, _: Hop) -> Iterator[Note]:
    replicas = _replicas(facts)
    pods = [pod for pod in facts.pods.value if _is_evicted(pod) and pod.controller]
    single = [pod for pod in pods if replicas.get(_owner(pod)) == 1]
    if single:
        yield warned(f"{len(single)} pods", f"the only one of their kind: {_names(single)}")
    tied = [pod for pod in pods if _is_tied(pod, facts)]
    if tied:
        yield warned(
            f"{len(tied)} pods",
            f"their volume lies on one node, they wait until it is back: {_names(tied)}",
        )
    losing = [
        pod
        for pod in pods
        if any(one.empty_dir and one.empty_dir.medium != "Memory" for one in pod.spec.volumes)
    ]
    if losing:
        yield warned(f"{len(losing)} pods", f"lose what is in their emptyDir: {_names(losing)}")
    yield passed("pods", f"{len(pods)} looked at")


def _replicas(facts: Facts) -> Mapping[tuple[str, str, str], int]:
    """How many pods each controller wants, by namespace, kind and name."""
    sets: list[ReplicaSet | StatefulSet] = [*facts.replica_sets.value]
    sets.extend(facts.stateful_sets.value)
    return {(one.namespace, one.resource.kind, one.name): one.spec.replicas for one in sets}


def _owner(pod: Pod) -> tuple[str, str, str]:
    owner = pod.controller
    return (pod.namespace, owner.kind, owner.name) if owner else ("", "", "")


def _is_tied(pod: Pod, facts: Facts) -> bool:
    """Whether its data lies on the node that is drained."""
    claims = {
        one.persistent_volume_claim.claim_name
        for one in pod.spec.volumes
        if one.persistent_volume_claim
    }
    names = {
        claim.spec.volume_name
        for claim in facts.claims.value
        if claim.namespace == pod.namespace and claim.name in claims
    }
    return any(
        volume.name in names and (volume.spec.local or volume.spec.host_path)
        for volume in facts.volumes.value
    )


def _capacity(facts: Facts, _: Hop) -> Iterator[Note]:
    nodes = facts.nodes.value
    if len(nodes) < 2:  # noqa: PLR2004 - there is no other
        yield warned("nodes", "there is only one: everything stops while it is drained")
        return
    wanted = _wanted(facts.pods.value)
    for node in nodes:
        others = [one for one in nodes if one is not node and _takes_pods(one)]
        moving = [
            pod for pod in facts.pods.value if pod.spec.node_name == node.name and _moves(pod)
        ]
        homeless = [pod for pod in moving if not any(_may_run(pod, one) for one in others)]
        if moving and not others:
            yield warned(str(node), f"no other node takes pods: {_names(moving)}")
        elif homeless:
            yield warned(str(node), f"no other node has their nodeSelector: {_names(homeless)}")
        yield from _room(node, others, moving, wanted)


def _room(
    node: Node,
    others: Sequence[Node],
    moving: Sequence[Pod],
    wanted: Mapping[str, Mapping[str, float]],
) -> Iterator[Note]:
    for resource in _RESOURCES:
        free = sum(
            max(0.0, _amount(one.status.allocatable, resource) - wanted[one.name][resource])
            for one in others
        )
        need = sum(_request(pod, resource) for pod in moving)
        told = f"{resource}: its pods ask for {need:.4g}, the others have {free:.4g} free"
        if need > free:
            yield warned(str(node), f"{told}: some will wait")
        else:
            yield passed(str(node), told)


def _wanted(pods: Iterable[Pod]) -> Mapping[str, Mapping[str, float]]:
    """What is asked for on each node."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(_RESOURCES, 0.0))
    for pod in pods:
        if pod.status.phase not in _ENDED:
            for resource in _RESOURCES:
                found[pod.spec.node_name][resource] += _request(pod, resource)
    return found


def _request(pod: Pod, resource: str) -> float:
    """As the scheduler counts: the containers together, or one init container if it is more."""
    sidecars = [one for one in pod.spec.init_containers if one.restart_policy == "Always"]
    lasting = (*pod.spec.containers, *sidecars)
    together = sum(_amount(one.resources.requests, resource) for one in lasting)
    first = (_amount(one.resources.requests, resource) for one in pod.spec.init_containers)
    return max(together, *first, 0.0)


def _amount(amounts: Mapping[str, str], resource: str) -> float:
    if resource not in amounts:
        return 0.0
    try:
        return quantity.number(amounts[resource])
    except ValueError as exc:
        raise Unreadable(resource, str(exc)) from exc


def _may_run(pod: Pod, node: Node) -> bool:
    return all(node.labels.get(key) == value for key, value in pod.spec.node_selector.items())


def _takes_pods(node: Node) -> bool:
    has_taint = any(taint.effect in ("NoSchedule", "NoExecute") for taint in node.spec.taints)
    return not node.spec.unschedulable and not has_taint


def _moves(pod: Pod) -> bool:
    return _is_evicted(pod) and pod.controller is not None


def _is_evicted(pod: Pod) -> bool:
    """Whether a drain takes it away: not what has ended, DaemonSets and static pods."""
    owner = pod.controller
    stays = owner is not None and owner.kind in ("DaemonSet", "Node")
    return not (
        stays
        or MIRROR in pod.annotations
        or pod.status.phase in _ENDED
        or pod.metadata.deletion_timestamp
        or not pod.spec.node_name
    )


def _names(pods: Sequence[Pod]) -> str:
    shown = [f"{pod.namespace}/{pod.name}" for pod in pods[:NAMES_SHOWN]]
    more = [f"and {len(pods) - NAMES_SHOWN} more"] if len(pods) > NAMES_SHOWN else []
    return ", ".join([*shown, *more])


CHECKS = (
    Check(
        id="disruption-budgets",
        title="Every PodDisruptionBudget allows an eviction",
        row=34,
        judge=_budgets,
        fix="add a replica or mend the pods that are not well; or delete the budget for the time "
        "of the upgrade",
        source="kubernetes.io, Specifying a Disruption Budget",
    ),
    Check(
        id="bare-pods",
        title="Every pod that a drain takes away is made again",
        row=35,
        judge=_bare,
        fix="give it a Deployment, or delete it before; kubectl drain refuses without --force",
        source="kubectl drain, filters",
    ),
    Check(
        id="outages",
        title="Nothing stops while a node is drained",
        row=35,
        judge=_outages,
        fix="tell its users, or give it a second replica first",
        source="kubectl drain, filters",
    ),
    Check(
        id="capacity",
        title="The pods of any one node fit on the others",
        row=36,
        judge=_capacity,
        fix="scale something down for the time of the upgrade, or let it wait",
        source="requests of pods against allocatable of nodes",
    ),
)
