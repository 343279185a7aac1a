"""The next thing to do about a node: fence, prove, move, watch, give back. Pure.

One step at a time, from what is written on the node and what is seen now, so that a crash at any
point is only a pause. A step that acts is allowed by `refusals` or not taken; what was done is
taken back only when the node was rebooted since, or when a person wants it so.
"""

from __future__ import annotations

import enum

from opsd.cluster.remedy.case import Case, Rules, Standing
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.record import Means, Phase, Plan
from opsd.cluster.remedy.refusals import Reason, refusals


class Step(enum.StrEnum):
    """What comes next."""

    REST = "rest"  #: nothing is under way and nothing is to be done
    REFUSE = "refuse"  #: something would be to be done, and is not allowed
    BEGIN = "begin"  #: write down that the fence is called, or that the proof is there
    FENCE = "fence"  #: call it, and read back
    TAINT = "taint"
    DELETE = "delete"
    WAIT_FOR_PODS = "wait_for_pods"  #: for Kubernetes, or the deletions, to remove the old ones
    NOTE_MOVED = "note_moved"
    WAIT_FOR_RETURN = "wait_for_return"
    LIFT = "lift"
    NOTE_REBOOT = "note_reboot"  #: power is back and the boot id is new: nothing is to be lifted
    LOOK_AT_FENCE = "look_at_fence"  #: it came back before the fence was known to work
    KEEP_FENCED = "keep_fenced"  #: it came back without a reboot
    WAIT_FOR_HEALTH = "wait_for_health"
    FINISH = "finish"


#: What is waited for; the next run looks again.
PAUSES = frozenset(
    {
        Step.REST,
        Step.REFUSE,
        Step.WAIT_FOR_PODS,
        Step.WAIT_FOR_RETURN,
        Step.KEEP_FENCED,
        Step.WAIT_FOR_HEALTH,
    }
)
#: The same reasons that forbid to act on a node also forbid to take things back.
_ALWAYS = frozenset({Reason.CONTROL_PLANE_DEGRADED, Reason.NOT_LEADER, Reason.UNREADABLE_RECORD})


def next_step(case: Case, rules: Rules) -> Step:
    """What to do now about a node that is lost, or about which something is under way."""
    found = refusals(case, rules)
    plan = case.record.plan
    if plan is None:
        if case.standing is not Standing.LOST:
            return Step.REST
        return Step.REFUSE if found else Step.BEGIN
    if any(one.reason in _ALWAYS for one in found):
        return Step.REFUSE
    if case.standing is Standing.BACK:
        return _after_return(case, plan, rules)
    return _while_away(case, plan, is_allowed=not found)


def means_of(case: Case) -> Step:
    """The taint, unless it would also start pods anew that nobody allowed to be moved."""
    return Step.DELETE if case.held.bystanders else Step.TAINT


def _while_away(case: Case, plan: Plan, *, is_allowed: bool) -> Step:
    if plan.phase is Phase.LIFTING or _is_wanted_back(case, plan):
        return Step.LIFT
    if plan.phase in (Phase.FENCING, Phase.FENCED):
        acts = Step.FENCE if plan.phase is Phase.FENCING else means_of(case)
        return acts if is_allowed else Step.REFUSE
    return _while_moving(case, plan, is_allowed=is_allowed)


def _while_moving(case: Case, plan: Plan, *, is_allowed: bool) -> Step:
    if plan.phase is not Phase.MOVING:
        return Step.WAIT_FOR_RETURN
    if not case.old_left:
        return Step.NOTE_MOVED
    if plan.means is Means.DELETE:
        return Step.DELETE if is_allowed else Step.REFUSE
    return Step.WAIT_FOR_PODS


def _is_wanted_back(case: Case, plan: Plan) -> bool:
    """Whether the fence is to be lifted while the node is still away."""
    if not plan.fence or plan.phase in (Phase.LIFTED, Phase.LIFTING):
        return False
    if case.record.lift is not None:
        return True
    turns_on = case.fence is not None and case.fence.turn_on and plan.proof is Proof.POWER_OFF
    return turns_on and plan.phase is Phase.MOVED


def _after_return(case: Case, plan: Plan, rules: Rules) -> Step:
    if plan.phase is Phase.FENCING:
        return Step.LOOK_AT_FENCE
    if plan.phase is Phase.FENCED and not plan.fence:
        return Step.FINISH  # nothing was done to it
    if not (case.rebooted or case.record.lift is not None):
        return Step.KEEP_FENCED
    if plan.fence and plan.phase is not Phase.LIFTED:
        is_power = plan.proof is Proof.POWER_OFF and case.record.lift is None
        return Step.NOTE_REBOOT if is_power else Step.LIFT
    if case.node.same_for < rules.healthy_for or case.held.ending or case.held.attached:
        return Step.WAIT_FOR_HEALTH
    return Step.FINISH
