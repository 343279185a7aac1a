"""Lost nodes and their look-alikes on a real control plane: what is told, what is not done."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.model import Finding, Run, Severity
from tests.cluster.watcher import QUICK, USER, Watcher, ended, forbidden, found, until
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import Object, eventually, path_of
from tests.rig.kubelet import NO_PODS, Kubelets
from tests.rig.kubestate import is_gone, node_is, running_pod, terminating, uid_of
from tests.rig.workloads import daemon_set, deployment, job, pod, pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def watcher(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Watcher]:
    """opsd, which must never do more than read."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    watcher = Watcher(control_plane=control_plane, scratch=scratch)
    watcher.kubeconfig  # noqa: B018 - makes the account
    since = control_plane.audit.mark()
    yield watcher
    calls = control_plane.audit.calls(user=USER, since=since)
    assert calls
    assert forbidden(calls) == []


def everything(namespace: str, spec: Object) -> tuple[Object, ...]:
    """One workload of each kind."""
    return (
        stateful_set(namespace, "db", spec),
        deployment(namespace, "web", spec),
        daemon_set(namespace, "agent", spec),
        job(namespace, "once", spec),
        pod(namespace, "bare", spec),
    )


def test_a_lost_node_is_one_message_about_all_that_hangs_on_it(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    spec = pod_spec(node.pool, grace_s=1, image="postgres:17")
    api.create(*everything(namespace, spec))
    for name in ("db-0", "bare"):
        running_pod(api, namespace, name)
    assert ended(watcher.look())

    node.lose_power()
    until(watcher, lambda run: found(run, f"node/{node.name}"))
    run = until(watcher, lambda run: found(run, f"pod/{namespace}/db-0"))

    lost = found(run, f"node/{node.name}")
    assert lost
    assert lost.check == "node.lost"
    assert lost.facts["kind"] == "silent"
    assert lost.facts["stays_down"] == f"{namespace}/db-0, {namespace}/bare"
    stuck = {one.subject: one for one in run.findings if one.check == "pod.stuck"}
    assert set(stuck) >= {f"pod/{namespace}/db-0", f"pod/{namespace}/bare"}
    assert not any("agent" in subject for subject in stuck)
    assert {one.cause for one in stuck.values()} == {lost.subject}
    [message] = watcher.messages
    assert message.severity is Severity.CRITICAL
    assert message.title.startswith(f"Act now: {node.name} is lost; {namespace}/db-0 and 1 more")
    assert "proof: silent, not proven dead: what runs there may still write" in message.body
    assert f"kubectl taint node {node.name}" in message.body


def test_a_node_that_comes_back_is_one_resolve_with_the_downtime(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(stateful_set(namespace, "db", pod_spec(node.pool, grace_s=1)))
    db = running_pod(api, namespace, "db-0")
    node.cut_off()
    until(watcher, lambda run: found(run, f"pod/{namespace}/db-0"))

    node.come_back()
    eventually(lambda: is_gone(api, db))
    until(watcher, lambda run: not found(run, f"node/{node.name}"))
    run = until(watcher, lambda run: not of(run, namespace))

    assert ended(run)
    told, over = watcher.messages
    assert told.title.startswith("Act now")
    assert over.title.startswith(f"Resolved: {node.name} is lost")
    assert "lasted" in over.body
    assert watcher.open == {}


def test_a_pod_that_uses_its_grace_period_is_not_told(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.stop_s = 3600.0
    api.create(pod(namespace, "slow", pod_spec(node.pool, grace_s=8)))
    slow = running_pod(api, namespace, "slow")

    api.delete(path_of(slow))
    runs = []
    while not is_gone(api, slow):
        runs.append(watcher.look())

    assert len(runs) > 3
    assert all(ended(run) and not of(run, namespace) for run in runs)
    assert not of(until(watcher, ended), namespace)


def test_a_container_that_cannot_be_killed_is_told_as_that(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(stateful_set(namespace, "db", pod_spec(node.pool, grace_s=1)))
    db = running_pod(api, namespace, "db-0")
    node.start_s = 3600.0  # the kubelet beats on and gets nothing done
    node.come_back()

    api.delete(path_of(db))
    run = until(watcher, lambda run: found(run, f"pod/{namespace}/db-0"))

    stuck = found(run, f"pod/{namespace}/db-0")
    assert stuck
    assert (stuck.facts["kind"], stuck.cause) == ("kill_hung", "")
    assert stuck.facts["asked_by"] == "a person or a controller"
    assert not found(run, f"node/{node.name}")
    assert watcher.messages[-1].title.startswith(
        f"Act within days: {namespace}/db-0 hangs in Terminating: a container on {node.name}"
    )


def test_a_pod_that_never_started_is_told_as_that(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.start_s = 3600.0
    node.come_back()
    node_is(api, node, "True")
    api.create(pod(namespace, "new", pod_spec(node.pool, nodeName=node.name, grace_s=1)))

    api.delete(f"/api/v1/namespaces/{namespace}/pods/new")
    run = until(watcher, lambda run: found(run, f"pod/{namespace}/new"))

    stuck = found(run, f"pod/{namespace}/new")
    assert stuck
    assert stuck.facts["kind"] == "mount_hung"


def test_a_hung_teardown_is_told_as_that_and_ends_with_it(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.keeps_objects = True
    api.create(pod(namespace, "pg", pod_spec(node.pool, grace_s=1)))
    pg = running_pod(api, namespace, "pg")

    api.delete(path_of(pg))
    run = until(watcher, lambda run: found(run, f"pod/{namespace}/pg"))
    node.keeps_objects = False
    after = until(watcher, lambda run: not found(run, f"pod/{namespace}/pg"))

    stuck = found(run, f"pod/{namespace}/pg")
    assert stuck
    assert stuck.facts["kind"] == "teardown_hung"
    assert uid_of(pg) in stuck.remedy
    assert ended(after)
    assert is_gone(api, pg)


def test_a_finalizer_is_blamed_and_not_the_lost_node(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    held = pod(namespace, "held", pod_spec(node.pool, grace_s=1))
    held["metadata"]["finalizers"] = ["example.test/held"]
    api.create(held)
    running_pod(api, namespace, "held")
    node.lose_power()
    node_is(api, node, "Unknown")

    api.delete(path_of(held), grace_s=0)
    run = until(watcher, lambda run: found(run, f"pod/{namespace}/held"))
    api.patch(path_of(held), {"metadata": {"finalizers": None}})

    stuck = found(run, f"pod/{namespace}/held")
    assert stuck
    assert (stuck.facts["kind"], stuck.cause) == ("finalizer", "")
    assert "example.test/held" in stuck.summary


def test_pods_of_a_deleted_node_are_left_to_the_garbage_collector(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(stateful_set(namespace, "db", pod_spec(node.pool, grace_s=1)))
    db = running_pod(api, namespace, "db-0")
    node.lose_power()
    terminating(api, db)
    until(watcher, lambda run: found(run, f"node/{node.name}"))

    api.delete(f"/api/v1/nodes/{node.name}")
    patient = dataclasses.replace(QUICK, collected=timedelta(seconds=90))
    within = [watcher.look(thresholds=patient) for _ in range(3)]
    beyond = until(watcher, lambda run: found(run, f"pod/{namespace}/db-0"))
    eventually(lambda: is_gone(api, db), within_s=90)
    after = until(watcher, lambda run: not of(run, namespace))

    assert not any(of(run, namespace) for run in within)
    assert not any(found(run, f"node/{node.name}") for run in within)
    stuck = found(beyond, f"pod/{namespace}/db-0")
    assert stuck
    assert stuck.facts["kind"] == "node_gone"
    assert ended(after)


def test_a_control_plane_node_is_named_as_one(
    control_plane: ControlPlane, kubelets: Kubelets, watcher: Watcher
) -> None:
    node = kubelets.add("cp-9", taints=(NO_PODS,))
    role = {"node-role.kubernetes.io/control-plane": ""}
    control_plane.api.patch("/api/v1/nodes/cp-9", {"metadata": {"labels": role}})
    node_is(control_plane.api, node, "True")
    watcher.look()

    try:
        node.lose_power()
        run = until(watcher, lambda run: found(run, "node/cp-9"))
    finally:
        kubelets.remove("cp-9")

    lost = found(run, "node/cp-9")
    assert lost
    assert "nothing is ever done to it" in str(lost.facts["control_plane"])


def test_a_node_that_is_lost_while_it_is_emptied_wakes_nobody(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.stop_s = 3600.0
    api.create(pod(namespace, "pg", pod_spec(node.pool, grace_s=5)))
    pg = running_pod(api, namespace, "pg")
    watcher.look()

    api.patch(f"/api/v1/nodes/{node.name}", {"spec": {"unschedulable": True}})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": pg["metadata"]}
    api.post(f"{path_of(pg)}/eviction", eviction)
    node.lose_power()
    run = until(watcher, lambda run: found(run, f"pod/{namespace}/pg"))

    lost, stuck = found(run, f"node/{node.name}"), found(run, f"pod/{namespace}/pg")
    assert lost
    assert lost.severity is Severity.WARNING
    assert "during a drain" in lost.summary
    assert stuck
    assert (stuck.facts["during"], stuck.facts["asked_by"]) == ("drain", "a drain")
    assert watcher.messages == []


@pytest.mark.parametrize(
    ("skew_h", "check"),
    # Kubernetes 1.37 takes every renewal of a clock that was set back for a stale read, and
    # never marks the node: the lease, by our own clock, is all that tells.
    [(1, "node.lost"), (-1, "node.not_ready")],
)
def test_the_clock_of_a_node_is_not_asked(
    control_plane: ControlPlane, workers: Workers, watcher: Watcher, skew_h: int, check: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    node_is(api, node, "True")
    watcher.look()

    node.clock_skew = timedelta(hours=skew_h)
    alive = [watcher.look() for _ in looks(12)]
    node.lose_power()
    run = until(watcher, lambda run: found(run, f"node/{node.name}"))

    assert not any(is_lost(run, node.name) for run in alive)
    finding = found(run, f"node/{node.name}")
    assert finding
    assert finding.check == check


def is_lost(run: Run, name: str) -> bool:
    """Whether a run found that a node is lost."""
    return ("node.lost", f"node/{name}") in {one.key for one in run.findings}


def looks(seconds: float) -> Iterator[None]:
    """As many looks as there is time for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.3)


def of(run: Run, namespace: str) -> list[Finding]:
    """What a run found about the pods of a namespace."""
    return [one for one in run.findings if one.subject.startswith(f"pod/{namespace}/")]
