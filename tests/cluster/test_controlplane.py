"""The control plane is the real one: it refuses, records and fails as in production."""

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

from tests.rig import controlplane, kubelet, scratch
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import ApiError, KubeApi, eventually
from tests.rig.kubelet import Kubelets
from tests.rig.kubestate import condition, node_is, running_pod, terminating
from tests.rig.workloads import pod, pod_spec, service_account

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


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


def test_the_careful_clock_stops_evictions_when_most_nodes_are_lost() -> None:
    with (
        controlplane.running(clock=controlplane.FAST_AND_CAREFUL) as own,
        kubelet.running(own) as kubelets,
    ):
        nodes = kubelets.add_pool("w", 4)
        own.api.create(pod(own.namespace("db"), "pg", pod_spec(nodeName="w-1")))
        running_pod(own.api, "db", "pg")

        for node in nodes[:3]:
            node.lose_power()
        for node in nodes[:3]:
            node_is(own.api, node, "Unknown")
        time.sleep(5)  # the pod tolerates two seconds of a taint that does not come

        taints = own.api.get("/api/v1/nodes/w-1")["spec"]["taints"]
        assert {taint["effect"] for taint in taints} == {"NoSchedule"}
        assert "deletionTimestamp" not in own.api.get("/api/v1/namespaces/db/pods/pg")["metadata"]


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
    node, _ = kubelets.add_pool("w", 2)  # a cluster that lost all its nodes evicts nothing
    oldest.api.create(pod(oldest.namespace("old"), "pg", pod_spec(nodeName=node.name)))
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
