"""Rules that no control plane at hand can show: both sides of each threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from opsd.clients.kube.objects import Node, Pod
from opsd.clients.kube.objects.base import Metadata, OwnerReference
from opsd.clients.kube.objects.nodes import NodeStatus, Taint
from opsd.clients.kube.objects.pods import Container, PodSpec, Resources
from opsd.upgrade.check import Check, Hop, Result, Status, judged
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import DeprecatedUse, Facts, KubeletMetrics, ServerMetrics
from opsd.upgrade.reading import Reading
from opsd.upgrade.version import Minor
from tests.upgrade.made import FIRST, NOW, SECOND, node, part, read

BY_ID = {check.id: check for check in CHECKS}
TO_137 = Hop(start=Minor(1, 36), target=Minor(1, 37))
TO_138 = Hop(start=Minor(1, 37), target=Minor(1, 38))


def ask(check: str, facts: Facts, hop: Hop = FIRST) -> Result:
    found: Check = BY_ID[check]
    return judged(found, facts, hop)


def told(result: Result) -> str:
    return "; ".join(f"{note.where}: {note.value}" for note in result.notes)


@pytest.mark.parametrize(
    ("server", "etcd", "hop", "status"),
    [
        ("1.33.9", "3.5.25-0", Hop(start=Minor(1, 33), target=Minor(1, 34)), Status.FAIL),
        ("1.33.9", "3.5.26-0", Hop(start=Minor(1, 33), target=Minor(1, 34)), Status.PASS),
        ("1.36.2", "3.6.10-0", TO_137, Status.FAIL),
        ("1.36.2", "3.6.11-0", TO_137, Status.PASS),
        ("1.36.2", "3.5.26-0", TO_137, Status.FAIL),
        ("1.35.4", "3.6.6-0", FIRST, Status.PASS),
        # The hop before brings 3.6.8 by its first patch, and a newer one by its newest.
        ("1.35.4", "3.6.6-0", SECOND, Status.WARN),
        ("1.35.4", "3.6.11-0", SECOND, Status.PASS),
    ],
)
def test_etcd_must_have_a_certain_patch_before_its_next_minor_release(
    server: str, etcd: str, hop: Hop, status: Status
) -> None:
    facts = read(part("etcd", image=f"etcd:{etcd}"), server=server)

    found = ask("etcd-version", facts, hop)

    assert found.status is status, told(found)


def test_one_old_member_of_etcd_is_enough() -> None:
    facts = read(
        part("etcd", image="etcd:3.6.11-0"),
        part("etcd", image="etcd:3.6.10-0", node="rpi2"),
        server="1.36.2",
    )

    found = ask("etcd-version", facts, TO_137)

    assert [note.where for note in found.worst] == ["etcd on rpi2"]


@pytest.mark.parametrize(
    ("runtime", "hop", "status"),
    [
        ("containerd://1.7.27", Hop(start=Minor(1, 34), target=Minor(1, 35)), Status.WARN),
        ("containerd://1.7.28", Hop(start=Minor(1, 34), target=Minor(1, 35)), Status.PASS),
        ("containerd://2.2.0", Hop(start=Minor(1, 34), target=Minor(1, 35)), Status.PASS),
        ("containerd://2.1.4", Hop(start=Minor(1, 34), target=Minor(1, 35)), Status.WARN),
        ("containerd://2.1.5", Hop(start=Minor(1, 34), target=Minor(1, 35)), Status.PASS),
        ("containerd://2.4.0", FIRST, Status.PASS),
        ("containerd://1.7.28", TO_138, Status.FAIL),
        ("containerd://2.0.0", TO_138, Status.PASS),
        ("cri-o://1.34.1", FIRST, Status.PASS),
    ],
)
def test_containerd_1_is_a_warning_until_1_38(runtime: str, hop: Hop, status: Status) -> None:
    found = ask("container-runtime", read(nodes=(node("rpi1", runtime=runtime),)), hop)

    assert found.status is status, told(found)


def test_what_the_kubelet_says_of_its_runtime_counts_more_than_its_version() -> None:
    facts = read(nodes=(node("rpi1"),))
    losing = KubeletMetrics(losing_support=Minor(1, 36))
    facts = dataclasses.replace(facts, kubelets={"rpi1": Reading.of(losing)})

    assert ask("container-runtime", facts, FIRST).status is Status.FAIL
    earlier = Hop(start=Minor(1, 34), target=Minor(1, 35))
    assert ask("container-runtime", facts, earlier).status is Status.PASS


@pytest.mark.parametrize(
    ("today", "status"),
    [
        (datetime(2026, 12, 29, tzinfo=UTC), Status.PASS),
        (datetime(2026, 12, 31, tzinfo=UTC), Status.WARN),
        (datetime(2027, 3, 1, tzinfo=UTC), Status.UNKNOWN),  # the table is old by then
    ],
)
def test_a_release_that_ends_within_two_months_is_told(today: datetime, status: Status) -> None:
    facts = dataclasses.replace(read(), at=today)

    assert ask("support-window", facts).status is status


def test_a_release_that_ended_does_not_block_the_way_out() -> None:
    found = ask("support-window", read(server="1.34.2"))

    assert found.status is Status.WARN
    assert "gets no fixes since 2026-10-27" in told(found)


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (timedelta(hours=23, minutes=59), Status.WARN),
        (timedelta(days=1), Status.PASS),
    ],
)
def test_what_was_counted_for_less_than_a_day_is_no_proof(
    since: timedelta, status: Status
) -> None:
    metrics = ServerMetrics(started_at=NOW - since)
    facts = dataclasses.replace(read(), metrics=Reading.of(metrics))

    assert ask("deprecated-apis", facts).status is status


@pytest.mark.parametrize(
    ("removed_in", "status"),
    [
        (Minor(1, 36), Status.FAIL),
        (Minor(1, 37), Status.WARN),
        (None, Status.PASS),
    ],
)
def test_an_api_in_use_is_in_the_way_of_the_release_that_removes_it(
    removed_in: Minor | None, status: Status
) -> None:
    use = DeprecatedUse(group="x.test", version="v1", resource="things", removed_in=removed_in)
    metrics = ServerMetrics(started_at=NOW - timedelta(days=9), deprecated=(use,))
    facts = dataclasses.replace(read(), metrics=Reading.of(metrics))

    assert ask("deprecated-apis", facts).status is status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[+]ping ok\n[+]etcd ok\nreadyz check passed", Status.PASS),
        ("[+]ping ok\n[-]etcd failed: reason withheld", Status.FAIL),
    ],
)
def test_one_failed_check_of_the_api_server_is_in_the_way(text: str, status: Status) -> None:
    facts = dataclasses.replace(read(), ready=Reading.of(text), live=Reading.of("[+]ping ok"))

    assert ask("api-health", facts).status is status


def test_an_api_server_that_refuses_its_own_check_fails_it() -> None:
    bad: Reading[str] = Reading.failed("/readyz", "get /readyz: 500: [-]etcd failed")
    facts = dataclasses.replace(read(), ready=bad, live=Reading.of("[+]ping ok"))

    assert ask("api-health", facts).status is Status.FAIL


def test_opsd_may_not_ask_is_no_failure_of_the_api_server() -> None:
    dark: Reading[str] = Reading.failed("/readyz", "403: no", is_forbidden=True)
    facts = dataclasses.replace(read(), ready=dark, live=dark)

    assert ask("api-health", facts).status is Status.UNKNOWN


def worker(name: str, *, memory: str = "4Gi", taints: tuple[Taint, ...] = ()) -> Node:
    made = node(name)
    spec = type(made.spec)(taints=taints)
    status = NodeStatus(allocatable={"memory": memory, "cpu": "4"})
    return Node(metadata=made.metadata, spec=spec, status=status)


def pod(name: str, where: str, memory: str) -> Pod:
    owner = OwnerReference(kind="ReplicaSet", name="app", controller=True)
    container = Container(name="app", resources=Resources(requests={"memory": memory}))
    return Pod(
        metadata=Metadata(name=name, namespace="web", uid=name, owner_references=(owner,)),
        spec=PodSpec(node_name=where, containers=(container,)),
    )


@pytest.mark.parametrize(
    ("moving", "status"),
    [("3Gi", Status.PASS), ("3073Mi", Status.WARN)],
)
def test_the_pods_of_a_node_must_fit_into_what_the_others_have_free(
    moving: str, status: Status
) -> None:
    facts = read(
        pod("here", "rpi1", moving),
        pod("there", "rpi2", "1Gi"),
        nodes=(worker("rpi1", memory="64Gi"), worker("rpi2")),
    )

    found = ask("capacity", facts)

    assert found.status is status, told(found)


def test_a_node_that_bears_no_pods_has_no_room() -> None:
    taint = Taint(key="only", effect="NoSchedule")
    facts = read(
        pod("here", "rpi1", "1Mi"),
        nodes=(worker("rpi1"), worker("rpi2", taints=(taint,))),
    )

    assert "no other node takes pods" in told(ask("capacity", facts))


def test_a_cluster_of_one_node_stops_while_it_is_drained() -> None:
    assert ask("capacity", read(nodes=(worker("rpi1"),))).status is Status.WARN


def own_pods() -> Iterator[Pod]:
    yield Pod(metadata=Metadata(name="opsd-x", uid="own"), spec=PodSpec(node_name="rpi2"))


def test_opsd_as_a_bare_pod_is_in_the_way_of_its_own_report() -> None:
    facts = dataclasses.replace(read(*own_pods()), own_pod="own")

    assert ask("opsd-itself", facts).status is Status.FAIL
    assert ask("opsd-itself", read(*own_pods())).status is Status.SKIPPED
