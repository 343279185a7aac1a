"""Whatever is seen: no act without proof, no act on what is protected, nothing undone unproven."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase as Generating
from hypothesis import find, given, settings
from hypothesis import strategies as st

from opsd.clients.kube.objects import Metadata, NodeSpec, Taint
from opsd.clients.kube.objects import Node as KubeNode
from opsd.cluster.nodeloss.facts import Node
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.cluster.remedy import patches
from opsd.cluster.remedy.case import Case, Fence, Held, Rules, Standing, Workers
from opsd.cluster.remedy.decide import Step, next_step
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.record import LiftWish, Means, Moved, Past, Phase, Plan, Record, read
from opsd.cluster.remedy.record import written as text_of

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
RULES = Rules()
DB = Moved(namespace="db", name="pg-0", uid="u1")
TAKES_AWAY = (Step.TAINT, Step.DELETE)
ACTS = (Step.BEGIN, Step.FENCE, *TAKES_AWAY)
FENCES = (Proof.STORAGE_CUT, Proof.POWER_OFF)
SEEN_ALIVE = (Kind.PARTITIONED_RUNNING, Kind.PARTITIONED_UNKNOWN)
SEEN_DEAD = (Kind.REBOOTED_NOT_BACK, Kind.KUBELET_DEAD)
GIVES_BACK = (Step.LIFT, Step.NOTE_REBOOT, Step.FINISH)

seconds = st.integers(0, 900).map(lambda value: timedelta(seconds=value))
boots = st.sampled_from(["", "boot-1", "boot-2"])
names = st.sampled_from([(), ("db/pg-0",), ("a/b", "c/d")])
LOST = tuple(kind for kind in Kind if kind.is_lost)
verdicts = (
    st.none()
    | st.sampled_from(LOST).map(lambda kind: Verdict(kind=kind, advice=Advice.LOOK))
    | st.sampled_from(list(Kind)).map(lambda kind: Verdict(kind=kind, advice=Advice.LOOK))
)
plans = st.builds(
    Plan,
    phase=st.sampled_from(list(Phase)),
    run_id=st.just("r1"),
    began_at=st.just(NOW),
    boot_id=boots,
    kind=st.just("silent"),
    fence=st.sampled_from(["", "plug"]),
    proof=st.sampled_from(list(Proof)),
    means=st.sampled_from(list(Means)),
    pods=st.sampled_from([(), (DB,)]),
)
nodes = st.builds(
    Node,
    name=st.just("rpi3"),
    uid=st.just("n1"),
    created_at=st.just(NOW),
    same_for=seconds,
    lease_silent=seconds,
    boot_id=boots,
)
fences = st.none() | st.builds(
    Fence,
    name=st.just("plug"),
    gives=st.sampled_from([Proof.POWER_OFF, Proof.STORAGE_CUT]),
    turn_on=st.booleans(),
)
#: What may be in the way besides; mostly nothing, or the acts would be too rare to be looked at.
OBSTACLES: tuple[dict[str, Any], ...] = (
    {"degraded": Verdict(kind=Kind.CONTROL_PLANE_DEGRADED, advice=Advice.INHIBIT)},
    {"leads": False},
    {"protected": "opsd runs on it"},
    {"maintenance": "kured holds its lock"},
    {"workers": Workers(count=9, lost=("rpi3", "rpi4"))},
    {"workers": Workers(count=9, lost=("rpi3",), in_remedy=("rpi4",))},
    {"held": Held(pods=(DB,), denied=("db/pg",))},
    {"held": Held()},
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    record = Record(
        plan=draw(st.none() | plans),
        past=draw(
            st.none()
            | st.builds(
                Past,
                ended_at=st.integers(0, 12).map(lambda h: NOW - timedelta(hours=h)),
                run_id=st.just("r0"),
            )
        ),
        lift=draw(st.none() | st.just(LiftWish(by="me", reason="sure", at=NOW))),
    )
    case = Case(
        now=NOW,
        node=draw(nodes),
        verdict=draw(verdicts),
        record=record,
        confirmed_by=draw(st.sampled_from(["", "me@desk"])),
        fence=draw(fences),
        held=Held(pods=(DB,), bystanders=draw(names), ending=draw(names)),
        workers=Workers(count=4, lost=("rpi3",)),
        old_left=draw(st.sampled_from([(), (DB,)])),
    )
    for change in draw(st.lists(st.sampled_from(OBSTACLES), max_size=1)):
        case = replace(case, **change)
    return case


often = settings(max_examples=200, deadline=None)
once = settings(max_examples=2000, deadline=None, derandomize=True, phases=[Generating.generate])


@pytest.mark.parametrize("step", [*ACTS, Step.LIFT, Step.FINISH])
def test_the_cases_come_to_every_step_that_acts(step: Step) -> None:
    found = find(cases(), lambda case: next_step(case, RULES) is step, settings=once)

    assert next_step(found, RULES) is step


@often
@given(cases())
def test_pods_are_taken_away_only_on_a_proof_that_suffices(case: Case) -> None:
    plan = case.record.plan
    if next_step(case, RULES) in TAKES_AWAY:
        assert plan is not None
        assert case.kind is not None
        # What was not proven when it was written down must be proven now.
        assert plan.proof.acts or case.confirmed_by or case.kind in SEEN_DEAD
        if plan.proof not in FENCES:
            assert case.kind not in SEEN_ALIVE
            assert case.confirmed_by or case.kind in SEEN_DEAD


@often
@given(cases())
def test_nothing_is_done_to_what_is_protected_or_not_lost(case: Case) -> None:
    if next_step(case, RULES) in ACTS:
        assert case.standing is Standing.LOST
        assert not case.protected
        assert not case.held.denied
        assert not case.workers.in_remedy
        assert len(case.workers.lost) == 1
        assert case.node.lease_silent >= RULES.patience


@often
@given(cases())
def test_nothing_is_done_or_undone_in_doubt(case: Case) -> None:
    if case.degraded or not case.leads:
        assert next_step(case, RULES) not in (*ACTS, *GIVES_BACK)


@often
@given(cases())
def test_a_node_is_given_back_only_after_a_reboot_or_on_a_persons_word(case: Case) -> None:
    plan = case.record.plan
    if next_step(case, RULES) is Step.FINISH:
        assert case.standing is Standing.BACK
        assert plan is not None
        was_touched = plan.phase is not Phase.FENCED or plan.fence
        assert case.rebooted or case.record.lift or not was_touched


@often
@given(cases())
def test_a_network_is_given_back_only_after_a_reboot_or_on_a_persons_word(case: Case) -> None:
    plan = case.record.plan
    if next_step(case, RULES) is Step.LIFT and plan and plan.proof is Proof.STORAGE_CUT:
        assert case.rebooted or case.record.lift or plan.phase is Phase.LIFTING


@often
@given(cases())
def test_more_in_the_way_never_allows_an_act(case: Case) -> None:
    worse = replace(case, maintenance="kured holds its lock", foreign_taint=True)

    assert next_step(worse, RULES) not in ACTS


taints = st.lists(
    st.builds(
        Taint,
        key=st.sampled_from([patches.OUT_OF_SERVICE, "example.org/a", "node.kubernetes.io/b"]),
        value=st.sampled_from(["", "opsd", "nodeshutdown"]),
        effect=st.sampled_from(["NoSchedule", "NoExecute"]),
    ),
    unique_by=lambda taint: (taint.key, taint.effect),
).map(tuple)


def applied(node: KubeNode, operations: tuple[patches.Operation, ...]) -> tuple[Taint, ...]:
    """The taints after a JSON Patch; its tests must hold."""
    found = list(node.spec.taints)
    for one in operations:
        if not one["path"].startswith("/spec/taints"):
            continue
        where = one["path"].removeprefix("/spec/taints").strip("/")
        if one["op"] == "add":
            values = one["value"] if where == "" else [one["value"]]
            assert where == "-" or not found
            found += [Taint(**value) for value in values]
        elif one["op"] == "test":
            index, field = where.split("/")
            assert getattr(found[int(index)], field) == one["value"]
        else:
            del found[int(where)]
    return tuple(found)


@given(taints, plans)
def test_no_taint_of_anybody_else_is_ever_touched(found: tuple[Taint, ...], plan: Plan) -> None:
    node = KubeNode(metadata=Metadata(name="rpi3"), spec=NodeSpec(taints=found))
    theirs = [taint for taint in found if not patches.is_ours(taint)]

    tainted = applied(node, patches.tainted(node, plan))
    freed = applied(node, patches.finished(node, Past(ended_at=NOW, run_id="r1")))

    assert [taint for taint in tainted if not patches.is_ours(taint)] == theirs
    assert sum(map(patches.is_ours, tainted)) == 1
    assert list(freed) == theirs


@given(plans, st.text())
def test_what_is_written_on_a_node_is_read_again_and_garbage_is_named(
    plan: Plan, garbage: str
) -> None:
    def node(text: str) -> KubeNode:
        return KubeNode(metadata=Metadata(name="x", annotations={"opsd.dev/remedy-plan": text}))

    assert read(node(text_of(plan))) == Record(plan=plan)
    assert read(node(garbage)) == Record(unreadable=("opsd.dev/remedy-plan",))
