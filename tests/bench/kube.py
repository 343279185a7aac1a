"""Listing ten thousand pods: opsd's client, the kubernetes package's typed call, and kubectl."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.bench.measure import Measured, interleaved, measure
from tests.bench.report import Line
from tests.rig import controlplane
from tests.rig.kubeapi import Object

PODS = 10_000
THREADS = 8
ROUNDS = 3

OURS = """
import sys
from pathlib import Path
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.objects import Pod
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
path, namespace, wanted = sys.argv[1:]
transport = Transport(lambda: find_cluster(mount=Path(path)))
kube = Kube(transport, deadline=Deadline.after(600, SystemClock()))
found = sum(pod.metadata.deletion_timestamp is None for pod in kube.list(Pod, namespace=namespace))
assert found == int(wanted), found
"""
TYPED = """
import sys
from kubernetes import client, config
path, namespace, wanted = sys.argv[1:]
config.load_kube_config(path)
pods = client.CoreV1Api().list_namespaced_pod(namespace).items
found = sum(pod.metadata.deletion_timestamp is None for pod in pods)
assert found == int(wanted), found
"""


def lines(place: Path) -> Iterator[Line]:
    """Measure CPU and memory of all three against a real API server."""
    with controlplane.running() as cluster:
        full, empty = cluster.namespace("full"), cluster.namespace("empty")
        _fill(cluster, full)
        result = interleaved(_candidates(cluster, place, full, empty), rounds=ROUNDS)
    ours = result["opsd"]
    yield Line(
        what=f"list of {PODS} pods: CPU of opsd, imports included",
        value=ours.cpu_s,
        unit="s",
        goal=None,
        against="whole process",
    )
    for name, words in (
        ("typed", "kubernetes package, typed list"),
        ("kubectl", "kubectl -o json"),
    ):
        if name in result:
            yield Line(
                what=f"list of {PODS} pods: CPU, how many times less than {words}",
                value=ours.cpu_s / result[name].cpu_s,
                unit="x",
                goal=1 / 40,
                against=f"{result[name].cpu_s:.1f} s, {result[name].peak_mib:.0f} MiB",
            )
    yield Line(
        what=f"list of {PODS} pods: memory above that of an empty list",
        value=ours.peak_mib - result["empty"].peak_mib,
        unit="MiB",
        goal=40,
        against=f"peak {ours.peak_mib:.0f} MiB, {result['empty'].peak_mib:.0f} without pods",
    )


def _candidates(
    cluster: controlplane.ControlPlane, place: Path, full: str, empty: str
) -> dict[str, partial[Measured]]:
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    (place / "ca.crt").write_bytes(cluster.ca_file.read_bytes())
    _allow(cluster)
    (place / "token").write_text(cluster.token("default", "default"))
    inside = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    kubeconfig = cluster.kubeconfig_of("default", "default")
    ours: list[str | Path] = [sys.executable, "-c", OURS, place]
    candidates = {
        "opsd": partial(measure, [*ours, full, str(PODS)], env=inside),
        "empty": partial(measure, [*ours, empty, "0"], env=inside),
        "typed": partial(measure, [sys.executable, "-c", TYPED, kubeconfig, full, str(PODS)]),
    }
    kubectl = controlplane.bin_dir() / "kubectl"
    if kubectl.exists():
        get: list[str | Path] = [
            kubectl,
            "--kubeconfig",
            kubeconfig,
            "get",
            "pods",
            "-n",
            full,
            "-o",
            "json",
        ]
        candidates["kubectl"] = partial(measure, get)
    return candidates


def _allow(cluster: controlplane.ControlPlane) -> None:
    cluster.api.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "bench"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "view",
            },
            "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "default"}],
        }
    )


def _fill(cluster: controlplane.ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: cluster.api.post(path, _pod(number)), range(PODS)))


def _pod(number: int) -> Object:
    """A pod as large as those of an ordinary chart, which no scheduler looks at."""
    env = [{"name": f"SETTING_{n}", "value": f"value {n} of {number}"} for n in range(20)]
    mounts = [{"name": f"v{n}", "mountPath": f"/mnt/{n}"} for n in range(4)]
    container = {"image": "registry.test/app:1", "env": env, "volumeMounts": mounts}
    labels = {f"app.kubernetes.io/label-{n}": f"value-{n}" for n in range(8)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{number}",
            "labels": labels,
            "annotations": {"checksum/config": "0123456789abcdef" * 4},
        },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{"name": name, **container} for name in ("app", "sidecar")],
            "volumes": [{"name": f"v{n}", "emptyDir": {}} for n in range(4)],
        },
    }
