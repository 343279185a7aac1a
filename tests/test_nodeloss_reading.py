"""The API's JSON becomes the facts that verdicts are made of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from opsd.clients.kube.objects import Node as KubeNode
from opsd.clients.kube.objects import PersistentVolume
from opsd.clients.kube.objects import Pod as KubePod
from opsd.cluster.nodeloss.facts import Node, Pod, Running
from opsd.cluster.nodeloss.memory import Memory
from opsd.cluster.nodeloss.reading import node_of, pod_of
from opsd.cluster.nodeloss.survey import where_is

T0, T1, T2 = (datetime(2026, 11, 22, hour, tzinfo=UTC) for hour in (1, 2, 3))
UNREACHABLE = "node.kubernetes.io/unreachable"


def pod(**changes: Any) -> Pod:
    """A pod of the API; `changes` replace whole sections."""
    sections: dict[str, Any] = {
        "metadata": {
            "namespace": "db",
            "name": "pg-0",
            "uid": "u",
            "creationTimestamp": "2026-11-22T01:00:00Z",
        },
        "spec": {"nodeName": "rpi3", "containers": [{"name": "pg", "image": "postgres:17"}]},
        "status": {"phase": "Running"},
    }
    return pod_of(msgspec.convert(sections | changes, KubePod))


def test_a_terminating_pod_of_a_stateful_set() -> None:
    seen = pod(
        metadata={
            "namespace": "db",
            "name": "pg-0",
            "uid": "u",
            "creationTimestamp": "2026-11-22T01:00:00Z",
            "deletionTimestamp": "2026-11-22T03:00:00Z",
            "deletionGracePeriodSeconds": 30,
            "finalizers": ["a/b"],
            "ownerReferences": [{"kind": "StatefulSet", "name": "pg", "controller": True}],
        },
        status={
            "phase": "Running",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "True",
                    "lastTransitionTime": "2026-11-22T02:00:00Z",
                },
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"},
            ],
            "containerStatuses": [
                {"state": {"running": {}}},
                {"state": {"terminated": {}}},
                {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 2},
                {},
            ],
        },
    )

    assert seen == Pod(
        namespace="db",
        name="pg-0",
        uid="u",
        delete_at=T2,
        grace_s=30,
        finalizers=("a/b",),
        bound_at=T1,
        phase="Running",
        containers=(Running.RUNNING, Running.TERMINATED, Running.WAITING, Running.WAITING),
        has_run=True,
        waits_for="CrashLoopBackOff",
        disruption="DeletionByTaintManager",
        owner="StatefulSet/pg",
        node="rpi3",
        tolerates_s=0,
        is_postgres=True,
    )


def test_a_pod_that_was_bound_when_it_was_made() -> None:
    assert pod().bound_at == T0


def test_a_waiting_container_that_never_ran() -> None:
    waiting = {
        "phase": "Pending",
        "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}],
    }

    seen = pod(status=waiting)

    assert (seen.has_run, seen.waits_for) == (False, "ContainerCreating")


def test_a_mirror_of_a_static_pod() -> None:
    seen = pod(metadata={"name": "x", "annotations": {"kubernetes.io/config.mirror": "1"}})

    assert seen.is_static


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        ([], 0),
        (
            [
                {
                    "key": UNREACHABLE,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
            ],
            300,
        ),
        ([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}], None),
        ([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}], 0),
        ([{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}], 0),
        ([{"operator": "Exists"}], None),
        (
            [
                {"operator": "Exists"},
                {"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 60},
            ],
            60,
        ),
    ],
)
def test_how_long_a_pod_bears_a_lost_node(tolerations: list[Any], seconds: int | None) -> None:
    assert pod(spec={"tolerations": tolerations}).tolerates_s == seconds


def test_claims_by_name_and_those_that_the_pod_makes() -> None:
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}},
        {"name": "scratch", "ephemeral": {}},
        {"name": "tmp", "emptyDir": {}},
    ]

    assert pod(spec={"volumes": volumes}).claims == ("data-pg-0", "pg-0-scratch")


def test_an_exporter_beside_a_database_is_none() -> None:
    spec = {"containers": [{"image": "quay.io/prometheuscommunity/postgres-exporter:v0.15"}]}

    assert not pod(spec=spec).is_postgres


def test_a_node_with_its_ages_on_our_clock() -> None:
    memory = Memory(boot_id="a", began_s=0.0, looked_s=100.0)
    memory = memory.noted("lease", {"rpi3": "7"}, 40.0).noted("ready", {"rpi3": "Unknown"}, 90.0)
    seen = msgspec.convert(
        {
            "metadata": {
                "name": "rpi3",
                "uid": "n",
                "creationTimestamp": "2026-11-22T01:00:00Z",
                "labels": {"node-role.kubernetes.io/control-plane": ""},
            },
            "spec": {
                "unschedulable": True,
                "taints": [{"key": UNREACHABLE, "effect": "NoExecute"}],
            },
            "status": {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "Unknown",
                        "reason": "NodeStatusUnknown",
                        "message": "Kubelet stopped posting node status.",
                        "lastTransitionTime": "2026-11-22T03:00:00Z",
                    },
                    {"type": "DrainInProgress", "status": "True"},
                    {"type": "MemoryPressure", "status": "False"},
                ],
                "addresses": [
                    {"type": "Hostname", "address": "rpi3"},
                    {"type": "InternalIP", "address": "10.0.0.13"},
                ],
                "nodeInfo": {"bootID": "b"},
            },
        },
        KubeNode,
    )

    node = node_of(seen, memory, 100.0)

    assert node == Node(
        name="rpi3",
        uid="n",
        created_at=T0,
        ready="Unknown",
        reason="NodeStatusUnknown",
        message="Kubelet stopped posting node status.",
        ready_since=T2,
        same_for=timedelta(seconds=10),
        lease_silent=timedelta(seconds=60),
        unschedulable=True,
        conditions=frozenset({"DrainInProgress"}),
        taints=(f"{UNREACHABLE}:NoExecute",),
        boot_id="b",
        address="10.0.0.13",
        is_control_plane=True,
    )


def test_a_node_that_never_reported() -> None:
    seen = msgspec.convert({"metadata": {"name": "rpi3"}}, KubeNode)

    node = node_of(seen, Memory(boot_id="a", began_s=0.0, looked_s=0.0), 5.0)

    assert replace(node, uid="") == Node(
        name="rpi3", uid="", created_at=datetime(1970, 1, 1, tzinfo=UTC), ready=""
    )


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"nfs": {"server": "10.0.0.5", "path": "/export/a"}}, "nfs 10.0.0.5:/export/a"),
        (
            {
                "csi": {
                    "driver": "nfs.csi.k8s.io",
                    "volumeAttributes": {"server": "nas", "share": "/export", "subdir": "b"},
                }
            },
            "nfs nas:/export/b",
        ),
        (
            {
                "csi": {
                    "driver": "nfs.csi.k8s.io",
                    "volumeAttributes": {"server": "nas", "share": "/"},
                }
            },
            "nfs nas:/",
        ),
        (
            {"csi": {"driver": "driver.longhorn.io", "volumeHandle": "pvc-1"}},
            "driver.longhorn.io pvc-1",
        ),
        ({"local": {"path": "/mnt/ssd"}}, "/mnt/ssd of the node"),
        ({"hostPath": {"path": "/data"}}, "/data of the node"),
        ({}, ""),
    ],
)
def test_where_the_data_of_a_volume_lies(spec: dict[str, Any], where: str) -> None:
    assert where_is(msgspec.convert({"spec": spec}, PersistentVolume)) == where
