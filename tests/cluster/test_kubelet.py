"""The nodes of the tests run what the control plane sends them, and fail as nodes do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.conftest import Workers
from tests.rig import kubelet
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import Object, eventually, path_of
from tests.rig.kubestate import condition, is_gone, node_is, running_pod, terminating, uid_of
from tests.rig.workloads import daemon_set, deployment, job, pod, pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


def test_every_kind_of_workload_is_scheduled_and_runs(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, nodes = control_plane.api, workers(2)
    spec = pod_spec(nodes[0].pool)

    api.create(
        pod(namespace, "bare", spec),
        deployment(namespace, "web", spec, replicas=2),
        stateful_set(namespace, "db", spec),
        daemon_set(namespace, "agent", spec),
        job(namespace, "once", spec),
    )

    def look() -> list[Object] | None:
        pods = api.items(f"/api/v1/namespaces/{namespace}/pods")
        ready = [item for item in pods if condition(item, "Ready")["status"] == "True"]
        return ready if len(ready) == 7 else None

    pods = eventually(look)
    assert {item["spec"]["nodeName"] for item in pods} == {node.name for node in nodes}
    assert {uid_of(item) for item in pods} == nodes[0].containers | nodes[1].containers
    assert all(item["status"]["podIP"] for item in pods)
    assert all(item["status"]["containerStatuses"][0]["state"]["running"] for item in pods)


def test_a_deleted_pod_runs_on_until_its_containers_have_ended(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.stop_s = 3600.0
    api.create(pod(namespace, "slow", pod_spec(node.pool, grace_s=3600)))
    slow = running_pod(api, namespace, "slow")

    api.delete(path_of(slow))
    time.sleep(1)
    asked = api.get(path_of(slow))
    ran_on = uid_of(slow) in node.containers
    node.stop_s = 0.0
    eventually(lambda: is_gone(api, slow))

    assert asked["metadata"]["deletionGracePeriodSeconds"] == 3600
    assert ran_on
    assert not node.containers


def test_no_container_runs_longer_than_its_grace_period(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.stop_s = 3600.0
    api.create(pod(namespace, "slow", pod_spec(node.pool, grace_s=1)))
    slow = running_pod(api, namespace, "slow")

    api.delete(path_of(slow))

    assert eventually(lambda: is_gone(api, slow))


def test_a_pod_on_a_silent_node_is_terminating_and_stays(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node, other] = control_plane.api, workers(2)
    api.create(stateful_set(namespace, "db", pod_spec(node.pool, grace_s=1, nodeName=node.name)))
    db = running_pod(api, namespace, "db-0")

    node.lose_power()
    lost = node_is(api, node, "Unknown")
    db = terminating(api, db)
    time.sleep(db["metadata"]["deletionGracePeriodSeconds"] + 3)

    stuck = api.get(path_of(db))
    assert condition(lost, "Ready")["reason"] == "NodeStatusUnknown"
    taints = api.get(path_of(lost))["spec"]["taints"]
    unreachable = "node.kubernetes.io/unreachable"
    assert {taint["effect"] for taint in taints if taint["key"] == unreachable} == {
        "NoSchedule",
        "NoExecute",
    }
    assert uid_of(stuck) == uid_of(db)
    assert stuck["status"]["phase"] == "Running"
    assert condition(stuck, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
    assert not node.containers
    assert not other.containers


def test_a_pod_object_goes_when_its_node_returns_with_a_new_boot_id(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(stateful_set(namespace, "db", pod_spec(node.pool)))
    db = running_pod(api, namespace, "db-0")
    before = node_is(api, node, "True")["status"]["nodeInfo"]["bootID"]
    node.lose_power()
    terminating(api, db)

    node.boot()

    eventually(lambda: is_gone(api, db))
    back = node_is(api, node, "True")
    replacement = running_pod(api, namespace, "db-0")
    assert back["status"]["nodeInfo"]["bootID"] not in {before, ""}
    assert uid_of(replacement) != uid_of(db)
    assert node.containers == {uid_of(replacement)}


def test_containers_outlive_their_deleted_object_on_a_node_that_is_cut_off(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(pod(namespace, "pg", pod_spec(nodeName=node.name)))
    pg = running_pod(api, namespace, "pg")

    node.cut_off()
    node_is(api, node, "Unknown")
    api.delete(path_of(pg), grace_s=0)
    gone_while_cut_off = eventually(lambda: is_gone(api, pg))
    ran_while_cut_off = uid_of(pg) in node.containers
    node.come_back()
    eventually(lambda: not node.containers)

    assert gone_while_cut_off
    assert ran_while_cut_off


def test_a_node_that_returns_late_finishes_its_deletions_later(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(pod(namespace, "pg", pod_spec(node.pool)))
    pg = running_pod(api, namespace, "pg")
    node.cut_off()
    terminating(api, pg)

    node.start_s = 3.0
    node.come_back()
    node_is(api, node, "True")
    there_at_first = not is_gone(api, pg)

    eventually(lambda: is_gone(api, pg))
    assert there_at_first
    assert not node.containers


def test_a_hung_teardown_keeps_the_object_without_containers(
    control_plane: ControlPlane, workers: Workers, namespace: str
) -> None:
    api, [node] = control_plane.api, workers(1)
    node.keeps_objects = True
    api.create(pod(namespace, "pg", pod_spec(node.pool)))
    pg = running_pod(api, namespace, "pg")

    api.delete(path_of(pg), grace_s=1)
    eventually(lambda: not node.containers)
    eventually(lambda: api.get(path_of(pg))["status"]["phase"] == "Succeeded")
    time.sleep(2)
    hung = api.get(path_of(pg))
    node.keeps_objects = False

    assert hung["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert eventually(lambda: is_gone(api, pg))


def test_a_node_with_a_wrong_clock_renews_its_lease_in_the_future(
    control_plane: ControlPlane, workers: Workers
) -> None:
    [node] = workers(1)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node.name}"
    eventually(lambda: control_plane.api.find(lease))
    tomorrow = "2100-01-01T00:00:00.000000Z"

    node.clock_skew = kubelet.until(tomorrow)

    eventually(lambda: control_plane.api.get(lease)["spec"]["renewTime"] >= tomorrow)
    node_is(control_plane.api, node, "True")


def test_much_work_with_pods_silences_no_node(
    control_plane: ControlPlane,
    workers: Workers,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [node] = workers(1)
    node_is(control_plane.api, node, "True")
    since = control_plane.audit.mark()
    report = kubelet._pod_status

    def slow_report(*args: Any, **kw: Any) -> Object:
        time.sleep(9)  # longer than a node may be silent
        return report(*args, **kw)

    monkeypatch.setattr(kubelet, "_pod_status", slow_report)
    control_plane.api.create(pod(namespace, "web", pod_spec(node.pool)))
    running_pod(control_plane.api, namespace, "web")

    calls = control_plane.audit.calls(
        user="system:serviceaccount:kube-system:node-controller", since=since
    )
    assert not [
        call for call in calls if (call.resource, call.name) == ("nodes/status", node.name)
    ]


def test_a_node_that_was_silent_for_a_moment_says_that_it_is_ready_again(
    control_plane: ControlPlane, workers: Workers
) -> None:
    [node] = workers(1)
    node_is(control_plane.api, node, "True")
    node._renewed_at = time.monotonic() + 9  # no heartbeat until then

    node_is(control_plane.api, node, "Unknown")

    assert node_is(control_plane.api, node, "True")
