"""One lost node is one message: what hangs on it, what stays down, what can be done. Pure.

The finding about the node carries the whole story; those about its pods name the node as
their cause, so that nobody is told of them one by one.

Limits: what a pod was to the people who use it is not known, only what replaces it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from opsd.cluster.nodeloss import wording
from opsd.cluster.nodeloss.facts import Node, Pod
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.model import Fact, Finding, Severity
from opsd.text import shortened

NODE_LOST, NODE_NOT_READY = "node.lost", "node.not_ready"
POD_STUCK = "pod.stuck"
DEGRADED = "cluster.control_plane_degraded"
CONTROL_PLANE = "cluster/control-plane"
SUMMARY_CHARACTERS = 120
PLANNED = timedelta(minutes=10)  # a node that is emptied is rebooted next
SICK_FOR = timedelta(minutes=5)  # a runtime that restarts is no news
DOUBT_FOR = timedelta(minutes=2)  # a control plane that is upgraded is no news
DAYS_FROM_HOURS = 48  # an age is told in days from here on
EVICTION_S = 60  # after a loss, until Kubernetes has marked the node for eviction
EVICTS = "node.kubernetes.io/unreachable:NoExecute"
_REPLACED = ("ReplicaSet", "Job")  # kinds of owners whose lost pods run elsewhere


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What a claim of a pod is bound to."""

    claim: str  #: ``db/data-pg-0``
    where: str  #: ``nfs 10.0.0.5:/export/db-data-pg-0``; empty when it is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest good backup of what hangs on the node."""

    subject: str  #: ``database/main/app``, ``share/nfs``
    at: datetime  #: aware UTC
    repository: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A lost node, and what was found out about it."""

    node: Node
    verdict: Verdict
    pods: tuple[Pod, ...] = ()  #: bound to it
    databases: tuple[str, ...] = ()  #: ``namespace/name`` of those that are PostgreSQL
    volumes: tuple[Volume, ...] = ()
    backups: tuple[Newest, ...] = ()
    backups_unknown: str = ""  #: why they could not be looked up


def subject_of_node(name: str) -> str:
    """``node/rpi3``."""
    return f"node/{name}"


def subject_of_pod(pod: Pod) -> str:
    """``pod/db/pg-0``."""
    return f"pod/{pod.place}"


def about_control_plane(verdict: Verdict) -> Finding | None:
    """That nothing can be told of nodes now; None when that is only because we just began."""
    evidence = verdict.evidence
    if "api_error" in evidence:  # which may be why everything else is silent
        summary = f"the API server does not answer: {evidence['api_error']}"
        remedy = "on the control-plane node: sudo crictl ps -a | grep -e apiserver -e etcd"
    elif "controller_manager_silent_s" in evidence:
        summary = "the controller manager is silent: nobody notices a lost node"
        remedy = "kubectl logs -n kube-system -l component=kube-controller-manager --tail 50"
    elif "silent_nodes" in evidence:
        summary = f"{str(evidence['silent_nodes']).partition(':')[0]} nodes are silent at once"
        remedy = "look at their switch and power; Kubernetes deletes no pods of so many"
    else:
        return None
    return Finding(
        check=DEGRADED,
        subject=CONTROL_PLANE,
        severity=Severity.CRITICAL,
        summary=shortened(summary, SUMMARY_CHARACTERS),
        remedy=remedy,
        facts=evidence,
        steady_for=timedelta(0) if list(evidence) == ["silent_nodes"] else DOUBT_FOR,
    )


def about_loss(loss: Loss, *, now: datetime) -> Finding:
    """The whole story of a lost node.

    Args:
        loss: what is known.
        now: aware UTC; for the age of backups.
    """
    node, verdict = loss.node, loss.verdict
    is_planned = bool(verdict.during)
    down = _down(loss)
    after = f"; {wording.some(down, most=1)} stays down" if down else ""
    if len(down) > 1:
        after = f"; {wording.some(down, most=1)} stay down"
    drained = f" during a {verdict.during}" if is_planned else ""
    return Finding(
        check=NODE_LOST,
        subject=subject_of_node(node.name),
        severity=Severity.WARNING if is_planned else Severity.CRITICAL,
        summary=shortened(f"{node.name} is lost{drained}{after}", SUMMARY_CHARACTERS),
        remedy=wording.of_loss(node, verdict),
        facts=dict(_story(loss, down, now)),
        steady_for=PLANNED if is_planned else timedelta(0),
    )


def about_node(node: Node, verdict: Verdict) -> Finding | None:
    """A node that is not lost, and not well either; None when it only has to wait."""
    words = wording.of_node(node, verdict)
    if words is None:
        return None
    return Finding(
        check=NODE_NOT_READY,
        subject=subject_of_node(node.name),
        severity=Severity.WARNING,
        summary=shortened(f"{node.name} {words.matter}", SUMMARY_CHARACTERS),
        remedy=words.remedy,
        facts={"kind": verdict.kind, **verdict.evidence},
        steady_for=SICK_FOR,
    )


def about_pod(pod: Pod, verdict: Verdict) -> Finding | None:
    """A pod that hangs; None when it only has to wait."""
    facts: dict[str, Fact] = {
        "kind": verdict.kind,
        "asked_by": _asked_by(pod),
        "owner": pod.owner or "nobody",
        **verdict.evidence,
        "during": verdict.during,
    }
    if verdict.kind.is_lost:
        matter, cause = f"its node {pod.node} is lost", subject_of_node(pod.node)
        remedy = f"see {cause}"
    elif words := wording.of_pod(pod, verdict):
        matter, cause, remedy = words.matter, "", words.remedy
    elif verdict.kind in (Kind.NODE_SICK, Kind.NODE_UNCLEAR) and verdict.advice is Advice.LOOK:
        matter, cause = f"its node {pod.node} is not ready", subject_of_node(pod.node)
        remedy = f"see {cause}"
    else:
        return None
    return Finding(
        check=POD_STUCK,
        subject=subject_of_pod(pod),
        severity=Severity.WARNING,
        summary=shortened(f"{pod.place} hangs in Terminating: {matter}", SUMMARY_CHARACTERS),
        remedy=remedy,
        facts=facts,
        cause=cause,
    )


def _down(loss: Loss) -> tuple[str, ...]:
    """Pods that nothing replaces while the node is lost, the databases first."""
    stuck = [
        pod
        for pod in loss.pods
        if not (pod.is_static or pod.tolerates_s is None or pod.kind in _REPLACED)
    ]
    stuck.sort(key=lambda pod: (pod.place not in loss.databases, pod.kind != "StatefulSet"))
    return tuple(pod.place for pod in stuck)


def _story(loss: Loss, down: Sequence[str], now: datetime) -> Iterator[tuple[str, Fact]]:
    """The evidence, what matters most first: a message shows the first few."""
    verdict = loss.verdict
    yield "stays_down", wording.some(down)
    if loss.databases or loss.volumes:
        yield "newest_backup", _backups(loss, now)
    yield "proof", wording.PROOF[verdict.kind]
    yield "volumes", wording.some((_volume(one) for one in loss.volumes), most=2)
    yield "kind", verdict.kind
    terminating = [pod for pod in loss.pods if pod.delete_at is not None]
    yield "pods", len(loss.pods)
    yield "pods_terminating", len(terminating)
    silent_s = verdict.evidence.get("lease_silent_s")
    if EVICTS not in loss.node.taints and isinstance(silent_s, int) and silent_s > EVICTION_S + 50:
        yield "evictions", "stopped by Kubernetes: too many nodes are lost, or it just began"
    if loss.node.is_control_plane:
        yield "control_plane", "it is a control-plane node: nothing is ever done to it"
    yield "boot_id", loss.node.boot_id
    yield from verdict.evidence.items()


def _backups(loss: Loss, now: datetime) -> str:
    if loss.backups_unknown:
        return f"unknown: {loss.backups_unknown}"
    if not loss.backups:
        return "none is known of what hangs there"
    return wording.some(
        f"{one.subject} {_ago(now - one.at)} ago in {one.repository}" for one in loss.backups
    )


def _volume(volume: Volume) -> str:
    return f"{volume.claim} on {volume.where}" if volume.where else volume.claim


def _ago(age: timedelta) -> str:
    hours = age / timedelta(hours=1)
    if hours >= DAYS_FROM_HOURS:
        return f"{hours / 24:.0f} d"
    return f"{hours:.0f} h" if hours >= 1 else f"{max(0.0, hours) * 60:.0f} min"


_ASKERS = {
    "DeletionByTaintManager": "the control plane, because its node was lost",
    "EvictionByEvictionAPI": "a drain",
    "DeletionByPodGC": "the pod garbage collector",
    "PreemptionByScheduler": "the scheduler, for a more important pod",
    "TerminationByKubelet": "its node",
}


def _asked_by(pod: Pod) -> str:
    return _ASKERS.get(pod.disruption, "a person or a controller")
