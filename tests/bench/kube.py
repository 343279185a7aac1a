"""Listing ten thousand pods: opsd's client, the kubernetes package's typed call, and kubectl."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.bench.measure import Measured, interleaved, measure
from tests.bench.report import Line
from tests.rig import controlplane
from tests.rig.kubeapi import Object

PODS = 10_000
NAMESPACES = FULL, EMPTY = "full", "empty"
# All fields that opsd knows, and those that are read of all pods every few minutes.
OPSD, OUTLINES = "opsd", "opsd's outlines"
OURS_BY_KIND = {OPSD: "pods", OUTLINES: "outlines"}
TYPED, KUBECTL = "the kubernetes package's typed list", "kubectl get -o json"
THREADS = 8
ROUNDS = 3

OURS = """
import sys
from pathlib import Path
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.objects import Pod, PodOutline
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
path, kind, namespace, wanted = sys.argv[1:]
kind = {"pods": Pod, "outlines": PodOutline}[kind]
transport = Transport(lambda: find_cluster(mount=Path(path)))
kube = Kube(transport, deadline=Deadline.after(600, SystemClock()))
pods = kube.list(kind, namespace=namespace)
found = sum(pod.metadata.deletion_timestamp is None for pod in pods)
assert found == int(wanted), found
"""
WITH_PACKAGE = """
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
        _allow(cluster)
        for namespace in NAMESPACES:
            cluster.namespace(namespace)
        _fill(cluster, NAMESPACES[0])
        result = interleaved(_candidates(cluster, place), rounds=ROUNDS)
    cpu_s = {who: _above(result, who, "cpu_s") for who in (*OURS_BY_KIND, TYPED, KUBECTL)}
    for ours, who in itertools.product(OURS_BY_KIND, (TYPED, KUBECTL)):
        yield Line(
            what=f"list of {PODS} pods, {ours}: CPU",
            value=cpu_s[ours] / cpu_s[who],
            unit="x",
            goal=1 / 40 if ours == OUTLINES else None,
            against=f"{who}: {cpu_s[who]:.1f} s above an empty list",
        )
        yield Line(
            what=f"list of {PODS} pods, {ours}: CPU, start and imports included",
            value=result[_key(ours, FULL)].cpu_s / result[_key(who, FULL)].cpu_s,
            unit="x",
            goal=None,
            against=f"{who}: {result[_key(who, FULL)].cpu_s:.1f} s",
        )
    for who in (*OURS_BY_KIND, TYPED, KUBECTL):
        yield Line(
            what=f"list of {PODS} pods: memory of {who}",
            value=_above(result, who, "peak_mib"),
            unit="MiB",
            goal=40 if who in OURS_BY_KIND else None,
            against="its peak above that of an empty list",
        )


def _key(who: str, namespace: str) -> str:
    return f"{who} of {namespace}"


def _above(result: Mapping[str, Measured], who: str, figure: str) -> float:
    full, empty = (getattr(result[_key(who, namespace)], figure) for namespace in NAMESPACES)
    return float(full - empty)


def _candidates(
    cluster: controlplane.ControlPlane, place: Path
) -> dict[str, Callable[[], Measured]]:
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    (place / "ca.crt").write_bytes(cluster.ca_file.read_bytes())
    (place / "token").write_text(cluster.token("default", "default"))
    inside = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    config = cluster.kubeconfig_of("default", "default")
    kubectl: list[str | Path] = [
        controlplane.bin_dir() / "kubectl",
        "--kubeconfig",
        config,
        "get",
        "pods",
    ]
    candidates: dict[str, Callable[[], Measured]] = {}
    for namespace, pods in zip(NAMESPACES, (PODS, 0), strict=True):
        typed: list[str | Path] = [
            sys.executable,
            "-c",
            WITH_PACKAGE,
            config,
            namespace,
            str(pods),
        ]
        for who, kind in OURS_BY_KIND.items():
            ours: list[str | Path] = [
                sys.executable,
                "-c",
                OURS,
                place,
                kind,
                namespace,
                str(pods),
            ]
            candidates[_key(who, namespace)] = partial(measure, ours, env=inside)
        candidates[_key(TYPED, namespace)] = partial(measure, typed)
        candidates[_key(KUBECTL, namespace)] = partial(
            measure, [*kubectl, "-n", namespace, "-o", "json"]
        )
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
        list(pool.map(lambda number: cluster.api.post(path, pod(number)), range(PODS)))


def pod(number: int) -> Object:
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
