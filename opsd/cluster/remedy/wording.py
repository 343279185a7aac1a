"""What is told about a node on which something is under way, or would be. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta

from opsd.clients.kube.objects import Node as KubeNode
from opsd.cluster.remedy import patches
from opsd.cluster.remedy.case import Case
from opsd.cluster.remedy.decide import Step, means_of
from opsd.cluster.remedy.fences import Device
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.record import Moved, Phase, Plan
from opsd.cluster.remedy.refusals import Reason, Refusal
from opsd.model import Fact, Finding, Severity
from opsd.text import shortened

REFUSED, UNDER_WAY = "remedy.refused", "remedy.under_way"
FENCE_FAILED, NOT_REBOOTED = "remedy.fence_failed", "remedy.not_rebooted"
FENCE_LOST, FENCE_UNUSABLE = "remedy.fence_lost", "remedy.fence_unusable"
NOT_MOVED = "remedy.not_moved"
DRY_RUN = "dry_run.remedy"
SUMMARY_CHARACTERS = 120
SLOW = timedelta(minutes=5)  # for pods to run elsewhere; Kubernetes itself needs one
STEADY = timedelta(minutes=5)  # what is in the way for a moment is no news
MOST_PODS = 3

_PROOFS = {
    Proof.SEEN_INSIDE: "somebody was inside: its containers are dead",
    Proof.STORAGE_CUT: "cut off by {fence}, read back",
    Proof.POWER_OFF: "without power by {fence}, read back",
    Proof.PERSON: "confirmed to be off by {by}",
}
_CONFIRM = 'make sure that it is off, then: opsd fence confirm {node} --for 2h --reason "..."'
#: Reasons that a person can do something about at once.
_NO_NEWS = frozenset({Reason.NOBODY_ALLOWED, Reason.CONTROL_PLANE_DEGRADED})
_CALLS_FOR = {
    Reason.NOT_PROVEN: _CONFIRM,
    Reason.UNREADABLE_RECORD: "look at it: kubectl get node {node} -o yaml; "
    "then remove the annotation that opsd cannot read",
    Reason.FOREIGN_TAINT: "who set it takes it away: kubectl describe node {node}",
}


def subject_of(node: str) -> str:
    """``remedy/rpi3``."""
    return f"remedy/{node}"


def refused(case: Case, found: Sequence[Refusal]) -> Finding:
    """Why nothing is done, or nothing more."""
    name = case.node.name
    calls = (_CALLS_FOR[one.reason] for one in found if one.reason in _CALLS_FOR)
    facts: dict[str, Fact] = {one.reason.value: one.detail for one in found}
    is_news = not ({one.reason for one in found} & _NO_NEWS) or case.record.plan is not None
    return Finding(
        check=REFUSED,
        subject=subject_of(name),
        severity=Severity.WARNING if is_news else Severity.INFO,
        summary=_short(f"opsd does not act on {name}: {found[0].detail}"),
        remedy=next(calls, "").format(node=name),
        facts=facts | {"kind": case.kind.value if case.kind else ""},
        cause=f"node/{name}",
        steady_for=STEADY,
    )


def under_way(case: Case, plan: Plan, step: Step) -> Iterator[Finding]:
    """How far it got, and what is wrong with it."""
    name = case.node.name
    yield Finding(
        check=UNDER_WAY,
        subject=subject_of(name),
        severity=Severity.WARNING,
        summary=_short(f"opsd moves what is allowed from {name}: {_so_far(plan)}"),
        remedy=f"opsd fence list; when {name} is mended, turn it on: opsd takes it back by itself",
        facts=dict(_facts(case, plan, step)),
    )
    if step is Step.KEEP_FENCED:
        yield _not_rebooted(case, plan)
    if plan.pods and case.not_running and case.now - plan.began_at > SLOW:
        yield _not_moved(case)


def fence_failed(case: Case, plan: Plan, said: str) -> Finding:
    """The fence did not do it: nothing is moved, or the node is not given back."""
    name = case.node.name
    if plan.phase in (Phase.FENCING, Phase.FENCED):
        matter = f"{name} could not be cut off by {plan.fence}, so nothing is moved"
        remedy = _CONFIRM.format(node=name)
    elif plan.phase in (Phase.MOVING, Phase.MOVED):
        matter = f"nobody knows whether {name} is still cut off by {plan.fence}"
        remedy = f"keep {name} off, or away from the network, until: opsd fence list"
    else:
        matter = f"{name} could not be given back by {plan.fence}"
        remedy = "turn it on yourself, or mend the fence; then look: opsd fence list"
    return Finding(
        check=FENCE_FAILED,
        subject=subject_of(name),
        severity=Severity.CRITICAL,
        summary=_short(matter),
        remedy=remedy,
        facts={"said": said, "tries": plan.tries, "phase": plan.phase.value},
    )


def fence_lost(case: Case, plan: Plan) -> Finding:
    """The node could write again for a while, to what runs elsewhere by now."""
    name = case.node.name
    return Finding(
        check=FENCE_LOST,
        subject=subject_of(name),
        severity=Severity.CRITICAL,
        summary=_short(f"{name} was not cut off by {plan.fence} any more; it is again"),
        remedy=f"check the data of {_named(plan.pods)}: {name} may have written to it; "
        "and who removed the fence",
        facts={"phase": plan.phase.value, "boot_id_before": plan.boot_id},
    )


def fence_unusable(fence: str, nodes: Sequence[str], said: str) -> Finding:
    """A fence that would not work, found before it is needed."""
    more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return Finding(
        check=FENCE_UNUSABLE,
        subject=f"fence/{fence}",
        severity=Severity.WARNING,
        summary=_short(f"{fence} could not cut off {nodes[0]}{more}"),
        remedy=said,
        facts={"nodes": ", ".join(nodes), "said": said},
    )


def dry_run(case: Case, step: Step, calls: Sequence[str]) -> Finding:
    """What would be done, call by call."""
    return Finding(
        check=DRY_RUN,
        subject=subject_of(case.node.name),
        severity=Severity.INFO,
        summary=_short(f"would {step.value.replace('_', ' ')} for {case.node.name}"),
        facts={f"call_{number}": call for number, call in enumerate(calls, start=1)},
    )


def calls(case: Case, node: KubeNode, device: Device | None, plan: Plan) -> Iterator[str]:
    """Every call that changes something, until the pods are moved, in its order."""
    yield _patch(node, patches.noted(node, plan))
    if plan.fence and device:
        for action in ("status", "off", "status"):
            yield device.shown(action)
    if means_of(case) is Step.TAINT:
        yield _patch(node, patches.tainted(node, plan))
        return
    for pod in case.held.pods:
        yield (
            f"DELETE /api/v1/namespaces/{pod.namespace}/pods/{pod.name} "
            f'{{"gracePeriodSeconds": 0, "preconditions": {{"uid": "{pod.uid}"}}}}'
        )


def _patch(node: KubeNode, operations: Sequence[patches.Operation]) -> str:
    return f"PATCH {node.resource.path(name=node.name)} {json.dumps(list(operations))}"


def _not_rebooted(case: Case, plan: Plan) -> Finding:
    name = case.node.name
    return Finding(
        check=NOT_REBOOTED,
        subject=subject_of(name),
        severity=Severity.CRITICAL,
        summary=_short(f"{name} came back without a reboot, and stays out of service"),
        remedy=f"reboot it: ssh {case.node.address or name} sudo systemctl reboot; or, if nothing "
        f'from before can write any more: opsd fence lift {name} --reason "..."',
        facts={
            "why": "what was written before it was cut off may still be written over newer data",
            "boot_id": plan.boot_id or "unknown",
            "phase": plan.phase.value,
        },
    )


def _not_moved(case: Case) -> Finding:
    name = case.node.name
    return Finding(
        check=NOT_MOVED,
        subject=subject_of(name),
        severity=Severity.CRITICAL,
        summary=_short(f"{len(case.not_running)} pods of {name} do not run elsewhere yet"),
        remedy="kubectl describe pod -n "
        + case.not_running[0].partition(":")[0].replace("/", " "),
        facts={f"pod_{at}": one for at, one in enumerate(case.not_running[:MOST_PODS], start=1)},
    )


def _facts(case: Case, plan: Plan, step: Step) -> Iterator[tuple[str, Fact]]:
    yield "phase", plan.phase.value
    yield "next", step.value.replace("_", " ")
    if plan.proof in _PROOFS:
        yield "proof", _PROOFS[plan.proof].format(fence=plan.fence, by=plan.by)
    yield "pods", _named(plan.pods)
    yield "do_not_run_yet", "; ".join(case.not_running[:MOST_PODS])
    yield "means", plan.means.value
    yield "began_at", plan.began_at.isoformat(timespec="seconds")
    yield "boot_id_before", plan.boot_id
    yield "boot_id_now", case.node.boot_id
    if plan.proof is Proof.STORAGE_CUT:
        yield "not_proven", "what it does beyond what was cut goes on"


def _so_far(plan: Plan) -> str:
    return {
        "fencing": "it is being cut off",
        "fenced": "nothing runs there any more",
        "moving": f"{_named(plan.pods)} on the way",
        "moved": f"{_named(plan.pods)} moved, it may come back",
        "lifting": "it is being given back",
        "lifted": "it may come back",
    }[plan.phase.value]


def _named(pods: Sequence[Moved]) -> str:
    names = ", ".join(pod.place for pod in pods[:MOST_PODS])
    more = len(pods) - MOST_PODS
    return f"{names} and {more} more" if more > 0 else names


def _short(text: str) -> str:
    return shortened(text, SUMMARY_CHARACTERS)
