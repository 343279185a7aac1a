"""Why nothing is done about a lost node. Pure.

Every reason that holds is given, not only the first: who reads them at night wants to know all
that is in the way. The same reasons are asked for again before every single act.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from opsd.cluster.nodeloss.verdict import Kind
from opsd.cluster.remedy.case import Case, Rules, Standing
from opsd.cluster.remedy.proof import Proof

MOST_NAMED = 3


class Reason(enum.StrEnum):
    """What is in the way."""

    CONTROL_PLANE_DEGRADED = "control_plane_degraded"
    NOT_LEADER = "not_leader"
    UNREADABLE_RECORD = "unreadable_record"
    NOT_LOST = "not_lost"
    CONTROL_PLANE_NODE = "control_plane_node"
    PROTECTED = "protected"
    EXCLUDED = "excluded"
    FOREIGN_TAINT = "foreign_taint"
    NOBODY_ALLOWED = "nobody_allowed"
    DENIED = "denied"
    SILENT_TOO_SHORT = "silent_too_short"
    SEEN_ALIVE = "seen_alive"
    NOT_PROVEN = "not_proven"
    NOT_CUT = "not_cut"
    MAINTENANCE = "maintenance"
    OTHER_NODE = "other_node"
    TOO_MANY_LOST = "too_many_lost"
    COOLING_DOWN = "cooling_down"
    NO_ROOM = "no_room"
    LAST_REPLICA = "last_replica"
    DONE_LATELY = "done_lately"


#: They keep from beginning, and no longer from going on: what is fenced off is better moved.
_ONLY_AT_FIRST = frozenset({Reason.LAST_REPLICA, Reason.DONE_LATELY})
_SEEN_ALIVE = frozenset({Kind.PARTITIONED_RUNNING, Kind.PARTITIONED_UNKNOWN})


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason, and what shows it."""

    reason: Reason
    detail: str  #: the end of a sentence that begins with the node's name or with opsd


def refusals(case: Case, rules: Rules) -> tuple[Refusal, ...]:
    """All that forbids to act on the node now; none when it may be done."""
    found = (*_of_opsd(case), *_of_node(case), *_of_proof(case, rules), *_of_cluster(case, rules))
    if case.record.plan is not None:
        return tuple(one for one in found if one.reason not in _ONLY_AT_FIRST)
    return found


def _of_opsd(case: Case) -> Iterator[Refusal]:
    if case.degraded is not None:
        what = ", ".join(f"{key}={value}" for key, value in case.degraded.evidence.items())
        yield Refusal(Reason.CONTROL_PLANE_DEGRADED, f"the control plane is in doubt: {what}")
    if not case.leads:
        yield Refusal(Reason.NOT_LEADER, "another opsd may act, this one may not")
    if case.record.unreadable:
        names = ", ".join(case.record.unreadable)
        yield Refusal(Reason.UNREADABLE_RECORD, f"opsd cannot read what stands in {names}")


def _of_node(case: Case) -> Iterator[Refusal]:
    if case.standing is not Standing.LOST:
        yield Refusal(Reason.NOT_LOST, "the node is not lost, or not any more")
    if case.node.is_control_plane:
        yield Refusal(Reason.CONTROL_PLANE_NODE, "it is a node of the control plane")
    if case.protected:
        yield Refusal(Reason.PROTECTED, f"it is protected: {case.protected}")
    if case.excluded:
        yield Refusal(Reason.EXCLUDED, "its labels forbid it")
    if case.foreign_taint:
        yield Refusal(Reason.FOREIGN_TAINT, "somebody else took it out of service already")
    held = case.held
    if held.denied:
        yield Refusal(Reason.DENIED, f"the owners of {_some(held.denied)} forbid it")
    if case.record.plan is None and not held.pods:
        yield Refusal(Reason.NOBODY_ALLOWED, "no StatefulSet on it is allowed to be moved")
    if held.homeless:
        yield Refusal(Reason.NO_ROOM, f"no other node can take {_some(held.homeless)}")
    if held.last_replicas:
        yield Refusal(
            Reason.LAST_REPLICA, f"no other replica of {_some(held.last_replicas)} is ready"
        )


def _of_proof(case: Case, rules: Rules) -> Iterator[Refusal]:
    silent = case.node.lease_silent
    if silent < rules.patience:
        yield Refusal(
            Reason.SILENT_TOO_SHORT,
            f"it has been silent for {_s(silent.total_seconds())}, "
            f"and {_s(rules.patience.total_seconds())} are asked for",
        )
    if case.kind is None:
        return
    proof = _proof_now(case)
    if proof is Proof.STORAGE_CUT and case.held.uncut:
        yield Refusal(
            Reason.NOT_CUT, f"the fence does not cut all that is written: {case.held.uncut[0]}"
        )
    if proof.suffices(case.kind):
        return
    if case.kind in _SEEN_ALIVE:
        yield Refusal(Reason.SEEN_ALIVE, "somebody saw it alive, and no fence cuts it off")
    else:
        yield Refusal(
            Reason.NOT_PROVEN,
            "nothing proves that it is dead: no fence fits it, nobody confirmed that it is off",
        )


def _proof_now(case: Case) -> Proof:
    """What was proven; the word of a person only as long as it holds."""
    plan = case.record.plan
    if plan is None or not plan.proof.acts:
        return case.at_hand
    is_taken_back = plan.proof is Proof.PERSON and not case.confirmed_by
    return Proof.SILENCE if is_taken_back else plan.proof


def _of_cluster(case: Case, rules: Rules) -> Iterator[Refusal]:
    workers = case.workers
    if case.maintenance:
        yield Refusal(Reason.MAINTENANCE, f"{case.maintenance}")
    if workers.in_remedy:
        yield Refusal(
            Reason.OTHER_NODE,
            f"something is under way on {_some(workers.in_remedy)}, one at a time",
        )
    if _too_many(len(workers.lost), workers.count, rules):
        yield Refusal(
            Reason.TOO_MANY_LOST,
            f"{len(workers.lost)} of {workers.count} workers are lost: {_some(workers.lost)}",
        )
    elif workers.back_lately and _too_many(
        len(workers.lost) + len(workers.back_lately), workers.count, rules
    ):
        yield Refusal(
            Reason.COOLING_DOWN, f"{_some(workers.back_lately)} came back a moment ago only"
        )
    past = case.record.past
    if past is not None and case.now < past.ended_at + rules.again_after:
        hours = rules.again_after.total_seconds() / 3600
        at = past.ended_at.isoformat(timespec="minutes")
        yield Refusal(Reason.DONE_LATELY, f"it was done last at {at}, less than {hours:g} h ago")


def _too_many(lost: int, workers: int, rules: Rules) -> bool:
    return lost > rules.max_lost or lost * 100 > workers * rules.max_lost_percent


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def _s(seconds: float) -> str:
    return f"{seconds:.0f} s"
