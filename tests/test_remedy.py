"""What is done about a lost node: every reason not to, every step, and nothing without proof."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from opsd.cluster.nodeloss.facts import Node
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.cluster.remedy.case import Case, Fence, Held, Rules, Standing, Workers
from opsd.cluster.remedy.decide import PAUSES, Step, next_step
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.record import LiftWish, Means, Moved, Past, Phase, Plan, Record
from opsd.cluster.remedy.refusals import Reason, refusals

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
RULES = Rules()
OLD_BOOT, NEW_BOOT = "boot-1", "boot-2"
DB = Moved(namespace="db", name="pg-0", uid="u1")
POWER = Fence(name="plug", gives=Proof.POWER_OFF)
NETWORK = Fence(name="switch", gives=Proof.STORAGE_CUT)
WISH = LiftWish(by="me", reason="seen", at=NOW)
LOST = (
    Kind.REBOOTED_NOT_BACK,
    Kind.PARTITIONED_RUNNING,
    Kind.KUBELET_DEAD,
    Kind.PARTITIONED_UNKNOWN,
    Kind.SILENT,
)
ONE_S = timedelta(seconds=1)


def node(
    *, silent: timedelta = RULES.patience, is_back: bool = False, boot_id: str = OLD_BOOT
) -> Node:
    return Node(
        name="rpi3",
        uid="n1",
        created_at=NOW - timedelta(days=9),
        ready="True" if is_back else "Unknown",
        same_for=RULES.healthy_for,
        lease_silent=timedelta(0) if is_back else silent,
        boot_id=boot_id,
    )


def verdict(kind: Kind) -> Verdict:
    return Verdict(kind=kind, advice=Advice.FENCE)


#: A lost worker of four with a database that may be moved, and a plug to turn it off.
LOST_CASE = Case(
    now=NOW,
    node=node(),
    verdict=verdict(Kind.SILENT),
    fence=POWER,
    held=Held(pods=(DB,)),
    workers=Workers(count=4, lost=("rpi3",)),
)
PLAN = Plan(
    phase=Phase.FENCED,
    run_id="r1",
    began_at=NOW,
    boot_id=OLD_BOOT,
    kind="silent",
    fence="plug",
    proof=Proof.POWER_OFF,
    pods=(DB,),
)


def under_way(phase: Phase, base: Case = LOST_CASE, **changes: object) -> Case:
    plan = replace(PLAN, phase=phase, **changes)  # type: ignore[arg-type]
    return replace(base, record=Record(plan=plan))


def back(phase: Phase, *, boot_id: str, **changes: object) -> Case:
    case = under_way(phase, LOST_CASE, **changes)
    return replace(case, node=node(is_back=True, boot_id=boot_id), verdict=None)


def reasons(case: Case, rules: Rules = RULES) -> set[Reason]:
    return {one.reason for one in refusals(case, rules)}


def test_a_lost_worker_with_a_fence_and_an_allowed_database_is_begun() -> None:
    assert refusals(LOST_CASE, RULES) == ()
    assert next_step(LOST_CASE, RULES) is Step.BEGIN


def with_held(**changes: object) -> Case:
    return replace(LOST_CASE, held=replace(LOST_CASE.held, **changes))  # type: ignore[arg-type]


def with_workers(**changes: object) -> Case:
    workers = replace(LOST_CASE.workers, **changes)  # type: ignore[arg-type]
    return replace(LOST_CASE, workers=workers)


@pytest.mark.parametrize(
    ("reason", "case"),
    [
        (
            Reason.CONTROL_PLANE_DEGRADED,
            replace(LOST_CASE, degraded=verdict(Kind.CONTROL_PLANE_DEGRADED)),
        ),
        (Reason.NOT_LEADER, replace(LOST_CASE, leads=False)),
        (Reason.UNREADABLE_RECORD, replace(LOST_CASE, record=Record(unreadable=("x",)))),
        (
            Reason.CONTROL_PLANE_NODE,
            replace(LOST_CASE, node=replace(node(), is_control_plane=True)),
        ),
        (Reason.PROTECTED, replace(LOST_CASE, protected="opsd runs on it")),
        (Reason.EXCLUDED, replace(LOST_CASE, excluded=True)),
        (Reason.FOREIGN_TAINT, replace(LOST_CASE, foreign_taint=True)),
        (Reason.NOBODY_ALLOWED, with_held(pods=())),
        (Reason.DENIED, with_held(denied=("web/cache",))),
        (
            Reason.SILENT_TOO_SHORT,
            replace(LOST_CASE, node=node(silent=RULES.patience - ONE_S)),
        ),
        (
            Reason.SEEN_ALIVE,
            replace(LOST_CASE, fence=None, verdict=verdict(Kind.PARTITIONED_UNKNOWN)),
        ),
        (Reason.NOT_PROVEN, replace(LOST_CASE, fence=None)),
        (
            Reason.NOT_CUT,
            replace(with_held(uncut=("db/pg-0 to /srv of the node",)), fence=NETWORK),
        ),
        (Reason.MAINTENANCE, replace(LOST_CASE, maintenance="kured holds its lock")),
        (Reason.OTHER_NODE, with_workers(in_remedy=("rpi4",))),
        (Reason.TOO_MANY_LOST, with_workers(count=9, lost=("rpi3", "rpi4"))),
        (Reason.COOLING_DOWN, with_workers(count=9, back_lately=("rpi4",))),
        (Reason.NO_ROOM, with_held(homeless=("db/pg-0",))),
        (Reason.LAST_REPLICA, with_held(last_replicas=("db/pg",))),
        (
            Reason.DONE_LATELY,
            replace(
                LOST_CASE,
                record=Record(past=Past(ended_at=NOW - RULES.again_after + ONE_S, run_id="r0")),
            ),
        ),
    ],
    ids=lambda value: value.value if isinstance(value, Reason) else "",
)
def test_one_thing_in_the_way_is_named_and_stops_it(reason: Reason, case: Case) -> None:
    assert reasons(case) == {reason}
    assert next_step(case, RULES) is Step.REFUSE


def test_every_reason_has_its_case() -> None:
    marker = test_one_thing_in_the_way_is_named_and_stops_it.pytestmark[0]  # type: ignore[attr-defined]
    tried = {reason for reason, _ in marker.args[1]}

    assert tried == set(Reason) - {Reason.NOT_LOST}


@pytest.mark.parametrize(
    "case",
    [
        replace(LOST_CASE, node=node(silent=RULES.patience)),
        with_workers(count=3),  # 33 %
        with_workers(count=9, back_lately=()),
        replace(
            LOST_CASE, record=Record(past=Past(ended_at=NOW - RULES.again_after, run_id="r0"))
        ),
    ],
    ids=["patience", "percent", "nobody_came_back", "six_hours"],
)
def test_on_the_other_side_of_a_threshold_it_is_begun(case: Case) -> None:
    assert next_step(case, RULES) is Step.BEGIN


def test_one_of_two_workers_is_too_many_unless_the_share_is_raised() -> None:
    case = with_workers(count=2)

    assert reasons(case) == {Reason.TOO_MANY_LOST}
    assert reasons(case, replace(RULES, max_lost_percent=50)) == set()


def test_a_record_from_the_future_counts_as_lately() -> None:
    past = Past(ended_at=NOW + timedelta(days=400), run_id="r0")

    assert reasons(replace(LOST_CASE, record=Record(past=past))) == {Reason.DONE_LATELY}


@pytest.mark.parametrize("kind", [one for one in Kind if not one.is_lost])
def test_nothing_is_begun_about_a_node_that_is_not_lost(kind: Kind) -> None:
    case = replace(LOST_CASE, verdict=verdict(kind))

    assert case.standing is not Standing.LOST
    assert next_step(case, RULES) is Step.REST


SUFFICE = {
    Proof.API_SILENCE: (),
    Proof.SILENCE: (),
    Proof.SEEN_INSIDE: (Kind.REBOOTED_NOT_BACK, Kind.KUBELET_DEAD),
    Proof.STORAGE_CUT: LOST,
    Proof.POWER_OFF: LOST,
    Proof.PERSON: (Kind.REBOOTED_NOT_BACK, Kind.KUBELET_DEAD, Kind.SILENT),
}


@pytest.mark.parametrize("proof", list(Proof))
@pytest.mark.parametrize("kind", list(Kind))
def test_a_proof_suffices_for_these_kinds_of_loss_only(proof: Proof, kind: Kind) -> None:
    assert proof.suffices(kind) == (kind in SUFFICE[proof])


def test_a_person_is_believed_before_a_fence_is_called() -> None:
    case = replace(LOST_CASE, confirmed_by="me@desk")

    assert case.at_hand is Proof.PERSON


def test_what_a_fence_does_not_cut_is_no_matter_where_it_is_not_needed() -> None:
    uncut = with_held(uncut=("db/pg-0 to /srv of the node",))

    assert reasons(uncut) == set()  # its power is taken
    assert reasons(replace(uncut, fence=NETWORK, confirmed_by="me@desk")) == set()
    assert reasons(under_way(Phase.FENCED, uncut, proof=Proof.STORAGE_CUT)) == {Reason.NOT_CUT}


def test_a_person_is_not_believed_against_a_witness() -> None:
    case = replace(
        LOST_CASE, fence=None, confirmed_by="me@desk", verdict=verdict(Kind.PARTITIONED_UNKNOWN)
    )

    assert reasons(case) == {Reason.SEEN_ALIVE}


def test_a_fence_outweighs_a_witness() -> None:
    case = replace(LOST_CASE, verdict=verdict(Kind.PARTITIONED_RUNNING))

    assert case.at_hand is Proof.POWER_OFF
    assert next_step(case, RULES) is Step.BEGIN


def test_the_word_of_a_person_counts_no_longer_than_it_holds() -> None:
    confirmed = under_way(Phase.FENCED, fence="", proof=Proof.PERSON, by="me@desk")

    assert next_step(replace(confirmed, confirmed_by="me@desk"), RULES) is Step.TAINT
    assert next_step(replace(confirmed, fence=None), RULES) is Step.REFUSE
    assert next_step(confirmed, RULES) is Step.REFUSE


WITH_BYSTANDER = replace(LOST_CASE, held=Held(pods=(DB,), bystanders=("web/cache-0",)))


@pytest.mark.parametrize(
    ("case", "step"),
    [
        (under_way(Phase.FENCING, proof=Proof.API_SILENCE), Step.FENCE),
        (under_way(Phase.FENCED), Step.TAINT),
        (under_way(Phase.FENCED, WITH_BYSTANDER), Step.DELETE),
        (replace(under_way(Phase.MOVING), old_left=(DB,)), Step.WAIT_FOR_PODS),
        (replace(under_way(Phase.MOVING, means=Means.DELETE), old_left=(DB,)), Step.DELETE),
        (under_way(Phase.MOVING), Step.NOTE_MOVED),
        (under_way(Phase.MOVED), Step.WAIT_FOR_RETURN),
        (replace(under_way(Phase.MOVED), fence=replace(POWER, turn_on=True)), Step.LIFT),
        (under_way(Phase.LIFTING), Step.LIFT),
        (under_way(Phase.LIFTED), Step.WAIT_FOR_RETURN),
    ],
)
def test_while_a_node_is_away_each_phase_has_its_step(case: Case, step: Step) -> None:
    assert next_step(case, RULES) is step


@pytest.mark.parametrize(
    ("case", "step"),
    [
        (back(Phase.FENCING, boot_id=OLD_BOOT), Step.LOOK_AT_FENCE),
        (back(Phase.FENCED, boot_id=OLD_BOOT), Step.KEEP_FENCED),
        (back(Phase.FENCED, boot_id=OLD_BOOT, fence="", proof=Proof.PERSON), Step.FINISH),
        (back(Phase.MOVING, boot_id=OLD_BOOT, fence="", proof=Proof.PERSON), Step.KEEP_FENCED),
        (back(Phase.MOVED, boot_id=OLD_BOOT), Step.KEEP_FENCED),
        (back(Phase.LIFTED, boot_id=OLD_BOOT), Step.KEEP_FENCED),
        (back(Phase.MOVED, boot_id=""), Step.KEEP_FENCED),
        (back(Phase.MOVED, boot_id=NEW_BOOT), Step.NOTE_REBOOT),
        (back(Phase.MOVED, boot_id=NEW_BOOT, proof=Proof.STORAGE_CUT), Step.LIFT),
        (back(Phase.LIFTED, boot_id=NEW_BOOT), Step.FINISH),
        (back(Phase.MOVED, boot_id=NEW_BOOT, fence="", proof=Proof.PERSON), Step.FINISH),
    ],
)
def test_when_a_node_is_back_each_phase_has_its_step(case: Case, step: Step) -> None:
    assert next_step(case, RULES) is step


def test_a_node_is_given_back_only_when_it_is_well_for_long_enough() -> None:
    case = back(Phase.LIFTED, boot_id=NEW_BOOT)
    young = replace(case.node, same_for=RULES.healthy_for - ONE_S)

    assert next_step(replace(case, node=young), RULES) is Step.WAIT_FOR_HEALTH
    assert next_step(replace(case, held=Held(ending=("a/b",))), RULES) is Step.WAIT_FOR_HEALTH
    assert next_step(replace(case, held=Held(attached=("v",))), RULES) is Step.WAIT_FOR_HEALTH
    assert next_step(case, RULES) is Step.FINISH


@pytest.mark.parametrize("phase", [Phase.MOVED, Phase.FENCED])
def test_a_person_may_have_it_back_without_a_reboot(phase: Phase) -> None:
    case = back(phase, boot_id=OLD_BOOT)
    wished = replace(case, record=replace(case.record, lift=WISH))

    assert next_step(case, RULES) is Step.KEEP_FENCED
    assert next_step(wished, RULES) is Step.LIFT


def test_a_wish_to_lift_is_carried_out_while_the_node_is_away() -> None:
    case = under_way(Phase.MOVED)

    assert next_step(replace(case, record=replace(case.record, lift=WISH)), RULES) is Step.LIFT


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("standing", [Standing.BACK, Standing.LOST])
@pytest.mark.parametrize(
    "doubt",
    [
        {"degraded": verdict(Kind.CONTROL_PLANE_DEGRADED)},
        {"leads": False},
    ],
    ids=["degraded", "not_leader"],
)
def test_nothing_is_done_or_undone_while_in_doubt(
    phase: Phase,
    standing: Standing,
    doubt: dict[str, object],
) -> None:
    is_back = standing is Standing.BACK
    case = back(phase, boot_id=NEW_BOOT) if is_back else under_way(phase)

    assert next_step(replace(case, **doubt), RULES) is Step.REFUSE  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", [Phase.FENCING, Phase.FENCED, Phase.MOVING])
@pytest.mark.parametrize(
    "change",
    [
        {"workers": Workers(count=9, lost=("rpi3", "rpi4"))},
        {"workers": Workers(count=9, lost=("rpi3",), in_remedy=("rpi5",))},
        {"maintenance": "kured holds its lock"},
        {"foreign_taint": True},
        {"excluded": True},
    ],
)
def test_what_stops_the_beginning_stops_every_later_act(
    phase: Phase, change: dict[str, object]
) -> None:
    case = replace(under_way(phase, means=Means.DELETE), old_left=(DB,))

    assert next_step(case, RULES) not in PAUSES
    assert next_step(replace(case, **change), RULES) is Step.REFUSE  # type: ignore[arg-type]


def test_what_is_fenced_off_is_moved_though_it_was_the_last_replica() -> None:
    case = under_way(Phase.FENCED)
    held = replace(case.held, last_replicas=("db/pg",))

    assert next_step(replace(case, held=held), RULES) is Step.TAINT
