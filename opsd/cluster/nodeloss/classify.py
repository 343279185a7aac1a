"""Tell from the facts why a pod hangs in Terminating, or what became of a node. Pure.

A list of tests in a fixed order; the first one that holds decides. First of all comes whether
the control plane's word can be believed at all: while it cannot, no node is blamed. Nothing
but a look from within a node proves that a container is dead; silence proves nothing.

Limits: which vantages there are decides how much can be told. With none but the API, a lost
node is silent, and never proven to be dead.

Source: kubernetes/kubernetes, pkg/controller/{nodelifecycle,tainteviction,podgc}.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from opsd.cluster.nodeloss.facts import (
    FALSE,
    STANDARD,
    STOPPED_POSTING,
    TRUE,
    UNKNOWN,
    ControlPlane,
    Inside,
    Node,
    Pod,
    Running,
    Sighting,
    Thresholds,
)
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.model import Fact

SHUTDOWN_MESSAGE = "node is shutting down"
SHUTDOWN_CONDITION = "GracefulNodeShutdownInProgress"
DRAIN_CONDITION = "DrainInProgress"
EVICTED = "EvictionByEvictionAPI"
DRAIN = "drain"
KUBELET_ENDED = ("inactive", "failed")  # states of its unit; others may start containers
_ENDED = ("Succeeded", "Failed")  # phases


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A node that the API server does not know."""

    name: str
    gone_s: float  #: since that was first seen, by our clock


def judge_control_plane(
    seen: ControlPlane, *, thresholds: Thresholds = STANDARD
) -> Verdict | None:
    """Why nobody can be blamed now; None when the API's word about nodes counts."""
    evidence = dict(_doubts(seen, thresholds))
    if not evidence:
        return None
    return Verdict(kind=Kind.CONTROL_PLANE_DEGRADED, advice=Advice.INHIBIT, evidence=evidence)


def judge_node(
    node: Node, sightings: Sequence[Sighting] = (), *, thresholds: Thresholds = STANDARD
) -> Verdict | None:
    """What became of a node, whatever hangs on it; None when it is well.

    Args:
        node: as the API server has it.
        sightings: what was seen of it from elsewhere.
        thresholds: after how long something means something.
    """
    verdict = _of_node(node, None, sightings, thresholds)
    return verdict and _with_drain(verdict, node, None)


def judge_pod(
    pod: Pod,
    node: Node | Absent,
    sightings: Sequence[Sighting] = (),
    *,
    now: datetime,
    thresholds: Thresholds = STANDARD,
) -> Verdict:
    """Why a pod with a time of deletion is still there.

    Asked only while `judge_control_plane` has no doubt.

    Args:
        pod: it is being deleted.
        node: that it is bound to; `Absent` also for a pod that is bound to none.
        sightings: what was seen of the node from elsewhere.
        now: as the API server says, aware UTC.
        thresholds: after how long something means something.
    """
    verdict = _of_pod(pod, node, now, thresholds)
    if verdict is None:
        if isinstance(node, Absent):
            verdict = _gone(node, thresholds)
        else:
            verdict = _of_node(node, pod, sightings, thresholds) or _hung(pod)
    return verdict if isinstance(node, Absent) else _with_drain(verdict, node, pod)


def _doubts(seen: ControlPlane, thresholds: Thresholds) -> Iterator[tuple[str, Fact]]:
    if seen.watched_for < thresholds.hold:
        yield "watched_for_s", _s(seen.watched_for.total_seconds())
    if seen.error_age is not None and seen.error_age < thresholds.hold:
        yield "api_error", seen.error
        yield "api_error_age_s", _s(seen.error_age.total_seconds())
    if seen.leader_silent is not None and seen.leader_silent > thresholds.leader_silent:
        yield "controller_manager", seen.leader
        yield "controller_manager_silent_s", _s(seen.leader_silent.total_seconds())
    if len(seen.silent) > seen.nodes * thresholds.most_silent:
        yield "silent_nodes", f"{len(seen.silent)} of {seen.nodes}: {', '.join(seen.silent)}"


def _of_pod(
    pod: Pod, node: Node | Absent, now: datetime, thresholds: Thresholds
) -> Verdict | None:
    """What the pod alone shows; None when it is up to its node."""
    if pod.is_static:
        return Verdict(kind=Kind.STATIC, advice=Advice.IGNORE)
    over_s = 0.0 if pod.delete_at is None else (now - pod.delete_at).total_seconds()
    overdue: dict[str, Fact] = {"overdue_s": _s(over_s)}
    if not pod.node:
        late = over_s > thresholds.collected.total_seconds()
        advice = Advice.LOOK if late else Advice.WAIT
        return Verdict(kind=Kind.UNSCHEDULED, advice=advice, evidence=overdue)
    if pod.delete_at is None or over_s <= thresholds.slack.total_seconds():
        evidence: dict[str, Fact] = {"ends_in_s": _s(-over_s), "grace_s": pod.grace_s}
        return Verdict(kind=Kind.GRACEFUL, advice=Advice.WAIT, evidence=evidence)
    if pod.finalizers and (pod.grace_s == 0 or _all_ended(pod)):
        names: dict[str, Fact] = {"finalizers": ", ".join(pod.finalizers), "owner": pod.owner}
        return Verdict(kind=Kind.FINALIZER, advice=Advice.LOOK, evidence=names | overdue)
    if isinstance(node, Node) and pod.bound_at is not None and node.created_at > pod.bound_at:
        times: dict[str, Fact] = {
            "node_created": node.created_at.isoformat(),
            "pod_bound": pod.bound_at.isoformat(),
            "node_uid": node.uid,
        }
        return Verdict(kind=Kind.NODE_RECREATED, advice=Advice.LOOK, evidence=times)
    return None


def _gone(node: Absent, thresholds: Thresholds) -> Verdict:
    late = node.gone_s > thresholds.collected.total_seconds()
    return Verdict(
        kind=Kind.NODE_GONE,
        advice=Advice.LOOK if late else Advice.WAIT,
        evidence={"gone_s": _s(node.gone_s)},
    )


def _of_node(
    node: Node, pod: Pod | None, sightings: Sequence[Sighting], thresholds: Thresholds
) -> Verdict | None:
    """What the node explains; None when it is well."""
    is_silent = node.lease_silent >= thresholds.lease_silent
    if node.ready == UNKNOWN and node.reason == STOPPED_POSTING and is_silent:
        return _lost(node, pod, sightings, thresholds)
    evidence: dict[str, Fact] = {
        "ready": node.ready or "never reported",
        "reason": node.reason,
        "message": node.message,
        "lease_silent_s": _s(node.lease_silent.total_seconds()),
    }
    if is_silent or node.ready not in (TRUE, FALSE):
        is_news = node.same_for >= thresholds.recovering and (
            not is_silent or node.lease_silent >= thresholds.recovering
        )
        advice = Advice.LOOK if is_news else Advice.WAIT
        return Verdict(kind=Kind.NODE_UNCLEAR, advice=advice, evidence=evidence)
    is_ending = SHUTDOWN_CONDITION in node.conditions or SHUTDOWN_MESSAGE in node.message
    if node.ready == FALSE:
        kind = Kind.NODE_SHUTTING_DOWN if is_ending else Kind.NODE_SICK
        advice = Advice.WAIT if is_ending else Advice.LOOK
        return Verdict(kind=kind, advice=advice, evidence=evidence)
    if node.same_for < thresholds.recovering:
        evidence = {"ready_again_s": _s(node.same_for.total_seconds())}
        return Verdict(kind=Kind.RECOVERING, advice=Advice.WAIT, evidence=evidence)
    return None


def _lost(
    node: Node, pod: Pod | None, sightings: Sequence[Sighting], thresholds: Thresholds
) -> Verdict:
    """How a lost node is lost. One witness of life outweighs all that is said of death."""
    fresh = [one for one in sightings if one.age <= thresholds.seen_lately]
    inside = [one for one in fresh if isinstance(one, Inside) and one.alive and one.boot_id]
    alive = [one for one in fresh if one.alive]
    evidence: dict[str, Fact] = {
        "lease_silent_s": _s(node.lease_silent.total_seconds()),
        "reason": node.reason,
        **{f"seen_from_{one.vantage}_by_{one.means}": _told(one) for one in fresh},
    }
    if any(_runs(one, node, pod) for one in inside):
        return Verdict(kind=Kind.PARTITIONED_RUNNING, advice=Advice.KEEP, evidence=evidence)
    if not alive:
        evidence["looked_from"] = len({one.vantage for one in fresh})
        return Verdict(kind=Kind.SILENT, advice=Advice.FENCE, evidence=evidence)
    boots = {one.boot_id for one in inside}
    if len(boots) == 1 and node.boot_id and node.boot_id not in boots:
        evidence |= {"boot_id": boots.pop(), "boot_id_before": node.boot_id}
        waited = node.lease_silent >= thresholds.patience
        advice = Advice.ELIGIBLE if waited else Advice.WAIT
        return Verdict(kind=Kind.REBOOTED_NOT_BACK, advice=advice, evidence=evidence)
    # A kubelet that runs may start a container again that was not there at the moment.
    if len(boots) == 1 and all(
        one.running is not None and one.kubelet in KUBELET_ENDED for one in inside
    ):
        evidence["kubelet"] = inside[0].kubelet
        return Verdict(kind=Kind.KUBELET_DEAD, advice=Advice.ELIGIBLE, evidence=evidence)
    return Verdict(kind=Kind.PARTITIONED_UNKNOWN, advice=Advice.KEEP, evidence=evidence)


def _runs(seen: Inside, node: Node, pod: Pod | None) -> bool:
    """Whether the pod runs there, or, when none is asked for, anything since before."""
    if pod is None:
        return bool(seen.running) and seen.boot_id == node.boot_id
    return pod.uid in (seen.running or ())


def _hung(pod: Pod) -> Verdict:
    """Its node is well, and yet it does not end."""
    states = {state.value for state in pod.containers}
    evidence: dict[str, Fact] = {
        "phase": pod.phase,
        "containers": ", ".join(sorted(states)) or "none",
        "waits_for": pod.waits_for,
    }
    if Running.RUNNING in pod.containers:
        kind = Kind.KILL_HUNG
    elif pod.phase in _ENDED or _all_ended(pod) or pod.has_run:
        kind = Kind.TEARDOWN_HUNG
    else:
        kind = Kind.MOUNT_HUNG
    return Verdict(kind=kind, advice=Advice.LOOK, evidence=evidence)


def _all_ended(pod: Pod) -> bool:
    ended = all(state is Running.TERMINATED for state in pod.containers)
    return bool(pod.containers) and ended


def _with_drain(verdict: Verdict, node: Node, pod: Pod | None) -> Verdict:
    is_draining = (
        node.unschedulable
        or DRAIN_CONDITION in node.conditions
        or (pod is not None and pod.disruption == EVICTED)
    )
    if not is_draining:
        return verdict
    return Verdict(
        kind=verdict.kind, advice=verdict.advice, evidence=verdict.evidence, during=DRAIN
    )


def silent_nodes(nodes: Iterable[Node], *, thresholds: Thresholds = STANDARD) -> tuple[str, ...]:
    """Names of the nodes whose lease has not been seen to change for long enough."""
    return tuple(sorted(one.name for one in nodes if one.lease_silent >= thresholds.lease_silent))


def _told(sighting: Sighting) -> str:
    word = "alive" if sighting.alive else "silent"
    return f"{word}: {sighting.detail}" if sighting.detail else word


def _s(seconds: float) -> int:
    return round(seconds)
