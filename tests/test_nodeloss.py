"""Why a pod hangs: every row of the decision table, on both sides of every threshold."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from opsd.cluster.nodeloss.classify import Absent, judge_control_plane, judge_node, judge_pod
from opsd.cluster.nodeloss.facts import (
    FALSE,
    STOPPED_POSTING,
    TRUE,
    UNKNOWN,
    ControlPlane,
    Inside,
    Means,
    Node,
    Pod,
    Running,
    Sighting,
)
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.model import Fact

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
BOOT, NEW_BOOT = "11111111", "22222222"
RUNNING, WAITING, TERMINATED = Running.RUNNING, Running.WAITING, Running.TERMINATED


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


WELL = ControlPlane(watched_for=s(90), leader="cp_1", leader_silent=s(2), nodes=4)
NODE = Node(
    name="rpi3",
    uid="n-1",
    created_at=NOW - s(86400),
    ready=TRUE,
    same_for=s(120),
    lease_silent=s(8),
    boot_id=BOOT,
)
LOST = replace(NODE, ready=UNKNOWN, reason=STOPPED_POSTING, lease_silent=s(50))
POD = Pod(
    namespace="db",
    name="pg-0",
    uid="p-1",
    node="rpi3",
    delete_at=NOW - s(31),
    grace_s=30,
    bound_at=NOW - s(3600),
    phase="Running",
    containers=(RUNNING,),
    has_run=True,
    owner="StatefulSet/pg",
)


def judged(
    pod: Pod = POD, node: Node | Absent = NODE, *sightings: Sighting, now: datetime = NOW
) -> tuple[Kind, Advice]:
    verdict = judge_pod(pod, node, sightings, now=now)
    return verdict.kind, verdict.advice


def inside(**fields: Any) -> Inside:
    defaults: dict[str, Any] = {
        "vantage": "node/rpi2",
        "means": Means.SSH,
        "alive": True,
        "boot_id": BOOT,
        "kubelet": "failed",
        "running": frozenset(),
    }
    return Inside(**(defaults | fields))


def silence(vantage: str) -> Sighting:
    return Sighting(vantage=vantage, means=Means.TCP, alive=False, detail="no answer in 2 s")


# Row 0: the control plane.


@pytest.mark.parametrize(
    "seen",
    [
        WELL,
        replace(WELL, watched_for=s(10**6)),
        replace(WELL, error="refused", error_age=s(90)),
        replace(WELL, leader_silent=s(30)),
        replace(WELL, leader_silent=None),
        replace(WELL, silent=("a", "b")),
        replace(WELL, nodes=0, leader_silent=None),
    ],
)
def test_a_control_plane_that_works_is_believed(seen: ControlPlane) -> None:
    assert judge_control_plane(seen) is None


@pytest.mark.parametrize(
    ("seen", "evidence"),
    [
        (replace(WELL, watched_for=s(89)), {"watched_for_s": 89}),
        (
            replace(WELL, error="refused", error_age=s(89)),
            {"api_error": "refused", "api_error_age_s": 89},
        ),
        (
            replace(WELL, leader_silent=s(31)),
            {"controller_manager": "cp_1", "controller_manager_silent_s": 31},
        ),
        (replace(WELL, silent=("a", "b", "c")), {"silent_nodes": "3 of 4: a, b, c"}),
        (replace(WELL, nodes=1, silent=("a",)), {"silent_nodes": "1 of 1: a"}),
    ],
)
def test_a_control_plane_in_doubt_inhibits_everything(
    seen: ControlPlane, evidence: dict[str, Fact]
) -> None:
    verdict = judge_control_plane(seen)

    assert verdict == Verdict(
        kind=Kind.CONTROL_PLANE_DEGRADED, advice=Advice.INHIBIT, evidence=evidence
    )


# Rows 1 to 6: the pod alone, and its node's object.


def test_a_static_pod_is_ignored() -> None:
    assert judged(replace(POD, is_static=True), LOST) == (Kind.STATIC, Advice.IGNORE)


@pytest.mark.parametrize(("over_s", "advice"), [(120, Advice.WAIT), (121, Advice.LOOK)])
def test_an_unscheduled_pod_is_left_to_the_garbage_collector_for_two_minutes(
    over_s: int, advice: Advice
) -> None:
    pod = replace(POD, node="", delete_at=NOW - s(over_s))

    assert judged(pod, Absent(name="", gone_s=0)) == (Kind.UNSCHEDULED, advice)


@pytest.mark.parametrize(
    ("delete_at", "kind"),
    [
        (NOW + s(600), Kind.GRACEFUL),
        (NOW, Kind.GRACEFUL),
        (NOW - s(30), Kind.GRACEFUL),
        (NOW - s(31), Kind.SILENT),
    ],
)
def test_a_pod_has_its_grace_period_and_thirty_seconds(delete_at: datetime, kind: Kind) -> None:
    assert judged(replace(POD, delete_at=delete_at), LOST)[0] is kind


@pytest.mark.parametrize(
    ("grace_s", "containers", "kind"),
    [
        (0, (RUNNING,), Kind.FINALIZER),
        (30, (TERMINATED, TERMINATED), Kind.FINALIZER),
        (30, (TERMINATED, RUNNING), Kind.SILENT),
        (30, (), Kind.SILENT),
        (None, (RUNNING,), Kind.SILENT),
    ],
)
def test_a_finalizer_is_to_blame_when_the_kubelet_is_not_needed_any_more(
    grace_s: int | None, containers: tuple[Running, ...], kind: Kind
) -> None:
    pod = replace(POD, finalizers=("a.b/c",), grace_s=grace_s, containers=containers)

    assert judged(pod, LOST)[0] is kind


def test_without_a_finalizer_none_is_to_blame() -> None:
    assert judged(replace(POD, grace_s=0), LOST)[0] is Kind.SILENT


@pytest.mark.parametrize(("gone_s", "advice"), [(120, Advice.WAIT), (121, Advice.LOOK)])
def test_pods_of_a_removed_node_are_left_to_the_garbage_collector_for_two_minutes(
    gone_s: int, advice: Advice
) -> None:
    assert judged(POD, Absent(name="rpi3", gone_s=gone_s)) == (Kind.NODE_GONE, advice)


@pytest.mark.parametrize(
    ("created_at", "kind"),
    [(NOW - s(3600), Kind.KILL_HUNG), (NOW - s(3599), Kind.NODE_RECREATED)],
)
def test_a_node_that_is_younger_than_its_pod_is_another_node(
    created_at: datetime, kind: Kind
) -> None:
    assert judged(POD, replace(NODE, created_at=created_at))[0] is kind


# Row 7: the node is lost.


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, Kind.SILENT),
        ({"lease_silent": s(49)}, Kind.NODE_UNCLEAR),
        ({"reason": "NodeStatusNeverUpdated"}, Kind.NODE_UNCLEAR),
        ({"ready": TRUE, "reason": "KubeletReady"}, Kind.NODE_UNCLEAR),
        ({"ready": FALSE, "reason": "KubeletNotReady"}, Kind.NODE_UNCLEAR),
        ({"ready": ""}, Kind.NODE_UNCLEAR),
    ],
)
def test_a_node_is_lost_when_the_api_and_our_own_clock_agree(
    change: dict[str, Any], kind: Kind
) -> None:
    verdict = judge_node(replace(LOST, **change))

    assert verdict
    assert verdict.kind is kind
    assert not verdict.advice.allows_deletion


@pytest.mark.parametrize(
    ("same_s", "silent_s", "advice"),
    [
        (119, 0, Advice.WAIT),
        (120, 0, Advice.LOOK),
        (120, 49, Advice.LOOK),
    ],
)
def test_a_node_that_is_called_unknown_and_renews_its_lease_is_told_after_two_minutes(
    same_s: int, silent_s: int, advice: Advice
) -> None:
    node = replace(LOST, same_for=s(same_s), lease_silent=s(silent_s))

    assert judged(POD, node) == (Kind.NODE_UNCLEAR, advice)


@pytest.mark.parametrize(("silent_s", "advice"), [(119, Advice.WAIT), (120, Advice.LOOK)])
def test_a_silent_node_that_is_still_called_ready_is_told_after_two_minutes(
    silent_s: int, advice: Advice
) -> None:
    node = replace(NODE, same_for=s(9999), lease_silent=s(silent_s))

    assert judged(POD, node) == (Kind.NODE_UNCLEAR, advice)


@pytest.mark.parametrize(
    ("sightings", "expected"),
    [
        ((), (Kind.SILENT, Advice.FENCE)),
        ((silence("opsd"), silence("node/rpi2")), (Kind.SILENT, Advice.FENCE)),
        ((inside(boot_id=NEW_BOOT),), (Kind.REBOOTED_NOT_BACK, Advice.WAIT)),
        ((inside(boot_id=NEW_BOOT, running=None),), (Kind.REBOOTED_NOT_BACK, Advice.WAIT)),
        (
            (inside(boot_id=NEW_BOOT, running=frozenset({"p-1"})),),
            (Kind.PARTITIONED_RUNNING, Advice.KEEP),
        ),
        (
            (inside(running=frozenset({"p-1", "p-2"})),),
            (Kind.PARTITIONED_RUNNING, Advice.KEEP),
        ),
        ((inside(running=frozenset({"p-2"})),), (Kind.KUBELET_DEAD, Advice.ELIGIBLE)),
        ((inside(kubelet="inactive"),), (Kind.KUBELET_DEAD, Advice.ELIGIBLE)),
        ((inside(kubelet="active"),), (Kind.PARTITIONED_UNKNOWN, Advice.KEEP)),
        ((inside(kubelet="activating"),), (Kind.PARTITIONED_UNKNOWN, Advice.KEEP)),
        ((inside(kubelet=""),), (Kind.PARTITIONED_UNKNOWN, Advice.KEEP)),
        ((inside(running=None),), (Kind.PARTITIONED_UNKNOWN, Advice.KEEP)),
        ((inside(boot_id=""),), (Kind.PARTITIONED_UNKNOWN, Advice.KEEP)),
        ((inside(), inside(boot_id=NEW_BOOT)), (Kind.PARTITIONED_UNKNOWN, Advice.KEEP)),
        (
            (inside(), inside(running=frozenset({"p-1"}))),
            (Kind.PARTITIONED_RUNNING, Advice.KEEP),
        ),
        (
            (silence("opsd"), Sighting(vantage="nfs", means=Means.NFS, alive=True, age=s(90))),
            (Kind.PARTITIONED_UNKNOWN, Advice.KEEP),
        ),
        (
            (silence("opsd"), Sighting(vantage="nfs", means=Means.NFS, alive=True, age=s(91))),
            (Kind.SILENT, Advice.FENCE),
        ),
        ((inside(age=s(90)),), (Kind.KUBELET_DEAD, Advice.ELIGIBLE)),
        ((inside(age=s(91)),), (Kind.SILENT, Advice.FENCE)),
        ((inside(alive=False),), (Kind.SILENT, Advice.FENCE)),
    ],
)
def test_how_a_node_is_lost_is_told_by_those_who_looked(
    sightings: tuple[Sighting, ...], expected: tuple[Kind, Advice]
) -> None:
    assert judged(POD, LOST, *sightings) == expected


@pytest.mark.parametrize(("silent_s", "advice"), [(299, Advice.WAIT), (300, Advice.ELIGIBLE)])
def test_a_rebooted_node_has_five_minutes_to_come_back(silent_s: int, advice: Advice) -> None:
    node = replace(LOST, lease_silent=s(silent_s))

    assert judged(POD, node, inside(boot_id=NEW_BOOT)) == (Kind.REBOOTED_NOT_BACK, advice)


def test_a_boot_that_cannot_be_compared_proves_no_reboot() -> None:
    assert judged(POD, replace(LOST, boot_id=""), inside(running=None)) == (
        Kind.PARTITIONED_UNKNOWN,
        Advice.KEEP,
    )


@pytest.mark.parametrize(
    ("sighting", "kind"),
    [
        (inside(running=frozenset({"p-9"})), Kind.PARTITIONED_RUNNING),
        (inside(), Kind.KUBELET_DEAD),
        (inside(boot_id=NEW_BOOT, running=frozenset({"static"})), Kind.REBOOTED_NOT_BACK),
    ],
)
def test_a_node_is_told_by_all_that_runs_on_it(sighting: Inside, kind: Kind) -> None:
    verdict = judge_node(LOST, [sighting])

    assert verdict
    assert verdict.kind is kind


def test_who_saw_what_is_evidence() -> None:
    verdict = judge_pod(POD, LOST, [silence("opsd"), silence("node/rpi2")], now=NOW)

    assert verdict.evidence == {
        "lease_silent_s": 50,
        "reason": STOPPED_POSTING,
        "seen_from_opsd_by_tcp": "silent: no answer in 2 s",
        "seen_from_node/rpi2_by_tcp": "silent: no answer in 2 s",
        "looked_from": 2,
    }


# Rows 8 to 13: the node answers.


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"message": "node is shutting down"}, (Kind.NODE_SHUTTING_DOWN, Advice.WAIT)),
        (
            {"conditions": frozenset({"GracefulNodeShutdownInProgress"})},
            (Kind.NODE_SHUTTING_DOWN, Advice.WAIT),
        ),
        ({"message": "runtime network not ready"}, (Kind.NODE_SICK, Advice.LOOK)),
    ],
)
def test_a_node_that_says_itself_that_it_is_not_ready_is_not_lost(
    change: dict[str, Any], expected: tuple[Kind, Advice]
) -> None:
    assert judged(POD, replace(NODE, ready=FALSE, **change)) == expected


@pytest.mark.parametrize(
    ("same_s", "expected"),
    [(119, (Kind.RECOVERING, Advice.WAIT)), (120, (Kind.KILL_HUNG, Advice.LOOK))],
)
def test_a_node_that_came_back_has_two_minutes(same_s: int, expected: tuple[Kind, Advice]) -> None:
    assert judged(POD, replace(NODE, same_for=s(same_s))) == expected


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"containers": (TERMINATED, RUNNING)}, Kind.KILL_HUNG),
        ({"containers": (TERMINATED, TERMINATED)}, Kind.TEARDOWN_HUNG),
        ({"containers": (), "phase": "Failed"}, Kind.TEARDOWN_HUNG),
        ({"containers": (), "phase": "Succeeded"}, Kind.TEARDOWN_HUNG),
        ({"containers": (WAITING,), "phase": "Pending"}, Kind.TEARDOWN_HUNG),
        ({"containers": (WAITING,), "phase": "Pending", "has_run": False}, Kind.MOUNT_HUNG),
        ({"containers": (), "phase": "Pending", "has_run": False}, Kind.MOUNT_HUNG),
    ],
)
def test_on_a_node_that_is_well_the_containers_tell_what_hangs(
    change: dict[str, Any], kind: Kind
) -> None:
    assert judged(replace(POD, **change)) == (kind, Advice.LOOK)


def test_a_node_that_is_well_is_no_case() -> None:
    assert judge_node(NODE) is None


# The modifier.


@pytest.mark.parametrize(
    ("node", "pod"),
    [
        (replace(LOST, unschedulable=True), POD),
        (replace(LOST, conditions=frozenset({"DrainInProgress"})), POD),
        (LOST, replace(POD, disruption="EvictionByEvictionAPI")),
    ],
)
def test_a_drain_is_told_beside_the_cause(node: Node, pod: Pod) -> None:
    verdict = judge_pod(pod, node, now=NOW)

    assert (verdict.kind, verdict.during) == (Kind.SILENT, "drain")


def test_a_cordoned_node_that_is_lost_is_being_drained() -> None:
    verdict = judge_node(replace(LOST, unschedulable=True))

    assert verdict
    assert verdict.during == "drain"


def test_who_else_was_deleted_by_the_taint_manager_is_no_drain() -> None:
    verdict = judge_pod(replace(POD, disruption="DeletionByTaintManager"), LOST, now=NOW)

    assert verdict.during == ""
