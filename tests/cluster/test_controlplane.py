"""The control plane is the real one, and the nodes fail as nodes do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from tests.conftest import Workers
from tests.rig import controlplane, kubelet, scratch
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import ApiError, KubeApi, Object, eventually, path_of
from tests.rig.kubelet import FakeNode, Kubelets
from tests.rig.workloads import (
    daemon_set,
    deployment,
    job,
    pod,
    pod_spec,
    service_account,
    stateful_set,
)

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


def running_pod(api: KubeApi, namespace: str, name: str) -> Object:
    """Wait until the pod runs and is ready."""

    def look() -> Object | None:
        found = api.find(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return found if found and condition(found, "Ready")["status"] == "True" else None

    return eventually(look)


def condition(item: Object, kind: str) -> Object:
    found = [each for each in item["status"].get("conditions", []) if each["type"] == kind]
    return found[0] if found else {"status": "absent"}


def node_is(api: KubeApi, node: FakeNode, status: str) -> Object:
    """Wait until the condition Ready of the node has this status."""

    def look() -> Object | None:
        found = api.get(f"/api/v1/nodes/{node.name}")
        return found if condition(found, "Ready")["status"] == status else None

    return eventually(look)


def terminating(api: KubeApi, item: Object) -> Object:
    """Wait until the pod is to be deleted."""

    def look() -> Object | None:
        found = api.get(path_of(item))
        return found if "deletionTimestamp" in found["metadata"] else None

    return eventually(look)


def is_gone(api: KubeApi, item: Object) -> bool:
    found = api.find(path_of(item))
    return found is None or found["metadata"]["uid"] != item["metadata"]["uid"]


def uid_of(item: Object) -> str:
    uid: str = item["metadata"]["uid"]
    return uid


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


def test_a_service_account_may_do_only_what_its_role_says(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.create(service_account(namespace, "nobody"))
    stranger = control_plane.api_of(namespace, "nobody")
    pods = f"/api/v1/namespaces/{namespace}/pods"

    with pytest.raises(ApiError, match="cannot list resource") as refused:
        stranger.items(pods)
    grant_view(control_plane.api, namespace, "nobody")
    seen = eventually(lambda: readable(stranger, pods))
    with pytest.raises(ApiError, match="cannot create resource"):
        stranger.create(pod(namespace, "mine", pod_spec()))

    assert refused.value.status == 403
    assert seen


def grant_view(api: KubeApi, namespace: str, name: str) -> None:
    api.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"namespace": namespace, "name": "view"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "view",
            },
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
        }
    )


def readable(api: KubeApi, path: str) -> bool:
    try:
        api.items(path)
    except ApiError:
        return False
    return True


def test_the_audit_log_shows_exactly_the_calls_made(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.create(service_account(namespace, "auditee"))
    auditee = control_plane.api_of(namespace, "auditee")
    user = f"system:serviceaccount:{namespace}:auditee"
    control_plane.api.create(pod(namespace, "seen", pod_spec()))
    auditee.get("/version")
    since = control_plane.audit.mark()

    auditee.get("/version")
    with pytest.raises(ApiError):
        auditee.get(f"/api/v1/namespaces/{namespace}/pods", limit=1)
    with pytest.raises(ApiError):
        auditee.delete(f"/api/v1/namespaces/{namespace}/pods/seen")
    with pytest.raises(ApiError):
        auditee.post(f"/api/v1/namespaces/{namespace}/pods/seen/eviction", {})
    control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods/seen")

    calls = control_plane.audit.calls(user=user, since=since)
    assert [str(call) for call in calls] == [
        "get /version: 200",
        f"list pods {namespace}: 403",
        f"delete pods {namespace}/seen: 403",
        f"create pods/eviction {namespace}/seen: 403",
    ]
    assert calls[1].query == "limit=1"
    assert control_plane.audit.calls(user="admin", since=since)[-1].code == 200


def test_kubeconfig_files_carry_what_a_client_needs(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.create(service_account(namespace, "opsd"))
    kubectl = controlplane.bin_dir() / "kubectl"
    if not kubectl.exists():
        pytest.skip("kubectl is not among the programs of KUBEBUILDER_ASSETS")

    names = [
        whoami(kubectl, control_plane.kubeconfig()),
        whoami(kubectl, control_plane.kubeconfig_of(namespace, "opsd")),
    ]

    assert names == ["admin", f"system:serviceaccount:{namespace}:opsd"]


def whoami(kubectl: Path, kubeconfig: Path) -> str:
    command: list[str | Path] = [
        kubectl,
        "--kubeconfig",
        kubeconfig,
        "auth",
        "whoami",
        "-o",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, check=True)
    name: str = json.loads(done.stdout)["status"]["userInfo"]["username"]
    return name


def test_a_component_is_taken_away_and_brought_back(own_control_plane: ControlPlane) -> None:
    api = own_control_plane.api
    with kubelet.running(own_control_plane) as kubelets:
        [node] = kubelets.add_pool("w", 1)
        node_is(api, node, "True")

        own_control_plane.controller_manager.freeze()
        node.lose_power()
        time.sleep(8)  # longer than the grace period of the fast clock
        unnoticed = condition(api.get("/api/v1/nodes/w-1"), "Ready")["status"]
        own_control_plane.controller_manager.thaw()
        node_is(api, node, "Unknown")

        own_control_plane.apiserver.kill()
        with pytest.raises(urllib3.exceptions.HTTPError):
            api.get("/version")
        own_control_plane.apiserver.start()
        node.boot()
        node_is(api, node, "True")

    assert unnoticed == "True"


@pytest.fixture
def oldest_kubelets() -> Iterator[tuple[ControlPlane, Kubelets]]:
    with (
        controlplane.running(controlplane.OLDEST) as oldest,
        kubelet.running(oldest) as kubelets,
    ):
        yield oldest, kubelets


def test_the_oldest_supported_release_runs_too(
    oldest_kubelets: tuple[ControlPlane, Kubelets],
) -> None:
    oldest, kubelets = oldest_kubelets
    [node] = kubelets.add_pool("w", 1)
    oldest.api.create(pod(oldest.namespace("old"), "pg", pod_spec(node.pool)))
    pg = running_pod(oldest.api, "old", "pg")

    version = oldest.api.get("/version")
    node.lose_power()

    assert f"{version['major']}.{version['minor']}" == controlplane.OLDEST
    assert terminating(oldest.api, pg)


KILLED_TEST_PROCESS = """
import json, time
from tests.rig import controlplane
with controlplane.running() as cp:
    parts = (cp.etcd, cp.apiserver, cp.controller_manager, cp.scheduler)
    print(json.dumps([part.server.pid for part in parts]), cp.home, flush=True)
    time.sleep(600)
"""


def test_nothing_of_a_killed_test_process_is_left(control_plane: ControlPlane) -> None:
    doomed = subprocess.Popen(
        [sys.executable, "-c", KILLED_TEST_PROCESS], stdout=subprocess.PIPE, text=True
    )
    assert doomed.stdout
    pids, _, home = doomed.stdout.readline().rpartition(" ")

    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    doomed.stdout.close()
    scratch.sweep()

    assert len(json.loads(pids)) == 4
    eventually(lambda: not any(map(runs, json.loads(pids))), within_s=10)
    assert not Path(home.strip()).exists()
    assert control_plane.api.get("/version")["minor"]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
