"""What no facts whatever may lead to: blame without proof, deletion of what may live."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

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
    Thresholds,
)
from opsd.cluster.nodeloss.verdict import Advice, Kind

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
LIMITS = Thresholds()
SPANS = st.sampled_from((0, 19, 20, 29, 30, 49, 50, 89, 90, 91, 119, 120, 299, 300, 10**6)).map(
    lambda seconds: timedelta(seconds=seconds)
)
BOOTS = st.sampled_from(("", "old", "new"))
UIDS = st.sampled_from(("p-1", "p-2"))

pods = st.builds(
    Pod,
    namespace=st.just("db"),
    name=st.just("pg-0"),
    uid=UIDS,
    node=st.sampled_from(("", "rpi3")),
    delete_at=st.none() | SPANS.map(lambda span: NOW - span) | SPANS.map(lambda span: NOW + span),
    grace_s=st.sampled_from((None, 0, 30)),
    finalizers=st.sampled_from(((), ("a/b",))),
    bound_at=st.none() | SPANS.map(lambda span: NOW - span),
    phase=st.sampled_from(("", "Pending", "Running", "Succeeded", "Failed")),
    containers=st.lists(st.sampled_from(Running), max_size=3).map(tuple),
    has_run=st.booleans(),
    disruption=st.sampled_from(("", "EvictionByEvictionAPI", "DeletionByTaintManager")),
    is_static=st.booleans(),
)
nodes = st.builds(
    Node,
    name=st.just("rpi3"),
    uid=st.just("n-1"),
    created_at=SPANS.map(lambda span: NOW - span),
    ready=st.sampled_from((TRUE, FALSE, UNKNOWN, "")),
    reason=st.sampled_from((STOPPED_POSTING, "KubeletReady", "")),
    message=st.sampled_from(("", "node is shutting down")),
    same_for=SPANS,
    lease_silent=SPANS,
    unschedulable=st.booleans(),
    boot_id=BOOTS,
)
absent = st.builds(Absent, name=st.just("rpi3"), gone_s=st.integers(0, 300).map(float))
outside = st.builds(
    Sighting,
    vantage=st.sampled_from(("opsd", "node/rpi2", "router")),
    means=st.sampled_from(Means),
    alive=st.booleans(),
    age=SPANS,
)
inside = st.builds(
    Inside,
    vantage=st.sampled_from(("opsd", "node/rpi2")),
    means=st.just(Means.SSH),
    alive=st.booleans(),
    age=SPANS,
    boot_id=BOOTS,
    kubelet=st.sampled_from(("", "active", "failed")),
    running=st.none() | st.frozensets(UIDS),
)
sightings = st.lists(outside | inside, max_size=4)
control_planes = st.builds(
    ControlPlane,
    watched_for=SPANS,
    error_age=st.none() | SPANS,
    leader_silent=st.none() | SPANS,
    nodes=st.integers(0, 5),
    silent=st.lists(st.sampled_from("abcde"), max_size=5, unique=True).map(tuple),
)


def proves_death(seen: Sighting, pod: Pod, node: Node) -> bool:
    """Written down a second time, from the definition: one who was inside, lately, and saw it."""
    if not (isinstance(seen, Inside) and seen.alive and seen.age <= LIMITS.seen_lately):
        return False
    if seen.boot_id and node.boot_id and seen.boot_id != node.boot_id:
        return pod.uid not in (seen.running or ())
    return (
        bool(seen.boot_id)
        and seen.running is not None
        and pod.uid not in seen.running
        and seen.kubelet == "failed"
    )


@given(pods, nodes | absent, sightings)
def test_deletion_needs_a_witness_who_was_inside_the_node(
    pod: Pod, node: Node | Absent, seen: list[Sighting]
) -> None:
    verdict = judge_pod(pod, node, seen, now=NOW)

    if verdict.advice.allows_deletion:
        assert verdict.kind in {Kind.REBOOTED_NOT_BACK, Kind.KUBELET_DEAD}
        assert isinstance(node, Node)
        assert any(proves_death(one, pod, node) for one in seen)


@given(pods, nodes, sightings)
def test_no_deletion_while_anybody_saw_the_pod_run(
    pod: Pod, node: Node, seen: list[Sighting]
) -> None:
    witness = Inside(
        vantage="x",
        means=Means.SSH,
        alive=True,
        boot_id=node.boot_id or "any",
        running=frozenset({pod.uid}),
    )

    verdict = judge_pod(pod, node, [*seen, witness], now=NOW)

    assert not verdict.advice.allows_deletion
    assert verdict.advice is not Advice.FENCE


@given(pods, nodes, st.lists(outside, max_size=3))
def test_who_sees_life_from_outside_never_makes_deletion_or_fencing_thinkable(
    pod: Pod, node: Node, seen: list[Sighting]
) -> None:
    alive = Sighting(vantage="x", means=Means.NFS, alive=True)

    verdict = judge_pod(pod, node, [*seen, alive], now=NOW)

    assert not verdict.advice.allows_deletion
    assert verdict.advice is not Advice.FENCE


@given(pods, nodes, sightings, st.builds(replace, outside, alive=st.just(True)))
def test_another_sign_of_life_never_makes_deletion_easier(
    pod: Pod, node: Node, seen: list[Sighting], more: Sighting
) -> None:
    before = judge_pod(pod, node, seen, now=NOW)
    after = judge_pod(pod, node, [*seen, more], now=NOW)

    if after.advice.allows_deletion:
        assert before.advice.allows_deletion


@given(pods, nodes, sightings, SPANS)
def test_longer_silence_never_takes_a_loss_back(
    pod: Pod, node: Node, seen: list[Sighting], longer: timedelta
) -> None:
    later = replace(node, lease_silent=node.lease_silent + longer)
    before = judge_pod(pod, node, seen, now=NOW)
    after = judge_pod(pod, later, seen, now=NOW)

    if before.kind.is_lost:
        assert after.kind is before.kind
        assert after.advice in {before.advice, Advice.ELIGIBLE}


@given(pods, nodes, sightings)
def test_only_what_the_api_calls_unknown_is_lost_and_only_when_it_is_silent(
    pod: Pod, node: Node, seen: list[Sighting]
) -> None:
    verdicts = [judge_pod(pod, node, seen, now=NOW), judge_node(node, seen)]

    for verdict in verdicts:
        if verdict is not None and verdict.kind.is_lost:
            assert node.ready == UNKNOWN
            assert node.lease_silent >= LIMITS.lease_silent


@given(pods, nodes | absent, sightings)
def test_nothing_is_said_against_a_pod_that_has_time_left(
    pod: Pod, node: Node | Absent, seen: list[Sighting]
) -> None:
    pod = replace(pod, delete_at=NOW + timedelta(seconds=1))

    verdict = judge_pod(pod, node, seen, now=NOW)

    assert verdict.advice in {Advice.WAIT, Advice.IGNORE}


@given(control_planes)
def test_a_control_plane_in_doubt_only_ever_inhibits(seen: ControlPlane) -> None:
    verdict = judge_control_plane(seen)

    if verdict is not None:
        assert (verdict.kind, verdict.advice) == (Kind.CONTROL_PLANE_DEGRADED, Advice.INHIBIT)
        assert verdict.evidence


@given(control_planes, SPANS)
def test_a_control_plane_that_was_watched_for_longer_is_not_in_more_doubt(
    seen: ControlPlane, longer: timedelta
) -> None:
    later = replace(seen, watched_for=seen.watched_for + longer)

    if judge_control_plane(seen) is None:
        assert judge_control_plane(later) is None
