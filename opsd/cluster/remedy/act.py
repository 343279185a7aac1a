"""Take one step about a lost node, with everything read again right before.

A write is of the very node and the very pod that the decision was about: the API server refuses
it when either was changed since. Nothing is done outside of the cluster unless this opsd wrote on
the node a moment ago that it will: one that was cut off, or stood still meanwhile, does nothing.

Limits: a machine that stands still between the last check and the call of the fence, for longer
than `CLAIM_S`, is stopped only by the fence's own deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Conflict, NotFound, Refused
from opsd.clients.kube.objects import Lease, Pod
from opsd.clients.kube.objects import Node as KubeNode
from opsd.clock import Deadline
from opsd.cluster.nodeloss.reading import version_of
from opsd.cluster.nodeloss.survey import LEASES
from opsd.cluster.remedy import patches
from opsd.cluster.remedy.decide import Step, means_of
from opsd.cluster.remedy.fences import Device, FenceFailed, Power
from opsd.cluster.remedy.gather import Look
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.record import Means, Moved, Past, Phase, Plan
from opsd.errors import TransientError

log = structlog.get_logger()

CLAIM_S = 15.0  # from the word on the node to the call of the fence


class Overtaken(TransientError):
    """What was decided from has changed meanwhile: nothing was done; look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What a step is taken with."""

    kube: Kube
    deadline: Deadline
    run_id: str
    leads: Callable[[], bool]  #: asked before everything that acts

    def take(self, step: Step, look: Look) -> None:
        """Take a step that `next_step` named. Each can be taken again after a crash in it.

        Raises:
            Overtaken: the node, its lease or our right to act changed; nothing was done.
            FenceFailed: the fence did not do it, or nobody knows; nothing else was done.
            TransientError, PermanentError, DeadlineExceeded: of the API server, the run's time.
        """
        log.info("step.taken", node=look.seen.name, step=step.value)
        match step:
            case Step.BEGIN:
                self._note(look, begun(look, self.run_id))
            case Step.FENCE:
                self._fence(look)
            case Step.TAINT:
                self._taint(look)
            case Step.DELETE:
                self._delete(look)
            case Step.NOTE_MOVED:
                self._note(look, replace(_plan(look), phase=Phase.MOVED))
            case Step.LIFT:
                self._lift(look)
            case Step.NOTE_REBOOT:
                self._note(look, replace(_plan(look), phase=Phase.LIFTED))
            case Step.LOOK_AT_FENCE:
                self._look_at_fence(look)
            case Step.FINISH:
                self._finish(look)
            case _:
                raise AssertionError(step)

    def hold(self, look: Look) -> bool:
        """See that a fence is still there, and set it again; whether that was necessary.

        Raises:
            as `take`.
        """
        device = _device(look)
        if device.status(self.deadline) is Power.OFF:
            return False
        self._claim(look, _plan(look))
        device.cut(self.deadline)
        log.warning("fence.restored", node=look.seen.name, fence=device.fence.name)
        return True

    def _fence(self, look: Look) -> None:
        plan, device = _plan(look), _device(look)
        plan = replace(plan, tries=plan.tries + 1, run_id=self.run_id)
        node = self._claim(look, plan)
        device.cut(self.deadline)
        done = replace(plan, phase=Phase.FENCED, proof=device.fence.gives)
        self._patch(node, patches.noted(node, done))

    def _taint(self, look: Look) -> None:
        self._prove_again(look)
        plan = replace(_plan(look), phase=Phase.MOVING, means=Means.TAINT, pods=_pods(look))
        self._guard(look)
        self._patch(look.seen, patches.tainted(look.seen, plan))

    def _delete(self, look: Look) -> None:
        """One by one, each only while the node is what it was."""
        self._prove_again(look)
        plan, node = _plan(look), look.seen
        if plan.phase is not Phase.MOVING:
            plan = replace(plan, phase=Phase.MOVING, means=Means.DELETE, pods=_pods(look))
            node = self._note(look, plan)
        for moved in plan.pods:
            pod = self.kube.find(Pod, moved.name, namespace=moved.namespace)
            if pod is None or pod.uid != moved.uid or pod.spec.node_name != node.name:
                continue
            self._guard(look, version=node.metadata.resource_version)
            try:
                self.kube.delete(pod, grace_s=0, unchanged=True)
            except (NotFound, Conflict) as exc:
                log.info("pod.overtaken", pod=moved.place, reason=str(exc))
            else:
                log.info("pod.deleted", pod=moved.place, uid=moved.uid, node=node.name)

    def _lift(self, look: Look) -> None:
        plan, device = _plan(look), _device(look)
        node = self._claim(look, replace(plan, phase=Phase.LIFTING))
        device.give_back(self.deadline)
        self._patch(node, patches.noted(node, replace(plan, phase=Phase.LIFTED)))

    def _look_at_fence(self, look: Look) -> None:
        """It came back, and the fence may have been called or not."""
        device = _device(look)
        if device.status(self.deadline) is Power.ON:
            self._finish(look)
            return
        proven = replace(_plan(look), phase=Phase.FENCED, proof=device.fence.gives)
        self._note(look, proven)

    def _finish(self, look: Look) -> None:
        past = Past(ended_at=look.case.now, run_id=self.run_id)
        self._lead()
        self._patch(look.seen, patches.finished(look.seen, past))

    def _note(self, look: Look, plan: Plan) -> KubeNode:
        self._guard(look)
        return self._patch(look.seen, patches.noted(look.seen, plan))

    def _claim(self, look: Look, plan: Plan) -> KubeNode:
        """Say on the node that the fence is called now, by us and in this moment."""
        clock = self.deadline.clock
        began = clock.monotonic()
        node = self._patch(look.seen, patches.noted(look.seen, plan))
        self._guard(look, version=node.metadata.resource_version)
        if clock.monotonic() - began > CLAIM_S:
            raise Overtaken(f"fence {node.name}: too long ago that the API server was asked")
        return node

    def _guard(self, look: Look, *, version: str = "") -> None:
        """Read the node and its lease again: all is as it was, and we may act."""
        name = look.seen.name
        node = self.kube.get(KubeNode, name)
        lease = self.kube.find(Lease, name, namespace=LEASES)
        if node.uid != look.seen.uid or node.metadata.resource_version != (
            version or look.seen.metadata.resource_version
        ):
            raise Overtaken(f"act on node {name}: it was changed meanwhile")
        if (version_of(lease) if lease else "") != look.lease and look.case.kind is not None:
            raise Overtaken(f"act on node {name}: it was heard of meanwhile")
        self._lead()

    def _lead(self) -> None:
        if not self.leads():
            raise Overtaken("act: another opsd may, this one may not any more")

    def _patch(self, node: KubeNode, operations: tuple[patches.Operation, ...]) -> KubeNode:
        version = node.metadata.resource_version
        try:
            return self.kube.patch_json(node, operations, unchanged=True)
        except (Conflict, Refused) as exc:  # a test that fails is refused
            if self.kube.get(KubeNode, node.name).metadata.resource_version == version:
                raise
            raise Overtaken(f"patch node {node.name}: it was changed meanwhile") from exc

    def _prove_again(self, look: Look) -> None:
        """A fence may have been lifted by somebody since it was read."""
        plan = _plan(look)
        if not plan.fence:
            return
        if _device(look).status(self.deadline) is not Power.OFF:
            raise FenceFailed(f"fence {plan.fence}: {look.seen.name} is on again")


def begun(look: Look, run_id: str) -> Plan:
    """What is written on a node before anything else is done."""
    case = look.case
    proof, kind = case.at_hand, case.kind
    needs_fence = case.fence is not None and proof == case.fence.gives
    return Plan(
        phase=Phase.FENCING if needs_fence else Phase.FENCED,
        run_id=run_id,
        began_at=case.now,
        boot_id=case.node.boot_id,
        kind=kind.value if kind else "",
        fence=case.fence.name if case.fence and needs_fence else "",
        proof=Proof.API_SILENCE if needs_fence else proof,
        pods=case.held.pods,
        means=Means.TAINT if means_of(case) is Step.TAINT else Means.DELETE,
        by=case.confirmed_by if proof is Proof.PERSON else "",
    )


def _plan(look: Look) -> Plan:
    plan = look.case.record.plan
    if plan is None:
        raise Overtaken(f"act on node {look.seen.name}: nothing is written on it")
    return plan


def _device(look: Look) -> Device:
    """The fence by which it was begun, or is to be."""
    name = _plan(look).fence
    if look.device is None or look.device.fence.name != name:
        raise FenceFailed(
            f"fence {name}: it is not configured for {look.seen.name} any more; "
            f"put it back, or: opsd fence lift {look.seen.name}"
        )
    return look.device


def _pods(look: Look) -> tuple[Moved, ...]:
    return look.case.held.pods
