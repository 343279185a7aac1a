"""From outside of the cluster, databases are dumped through a port of their pod."""

from __future__ import annotations

import base64
import secrets as random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import postgres_backup
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.model import Outcome
from opsd.testing import MemoryRepository
from tests.rig import dumps, kubeletport
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import Object, eventually
from tests.rig.kubeletport import KubeletPort
from tests.rig.postgres import PASSWORD, PgServer
from tests.rig.workloads import stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[KubeletPort]:
    with kubeletport.running(tmp_path) as running:
        yield running


@pytest.fixture
def node(control_plane: ControlPlane, kubelet: KubeletPort) -> Iterator[str]:
    """A node whose pods' ports are those of this machine."""
    name = f"forwarder-{random.token_hex(3)}"
    kubeletport.node(control_plane.api, name, kubelet.port)
    yield name
    control_plane.api.delete(f"/api/v1/nodes/{name}")


@pytest.fixture
def plain_pg(empty_pg: PgServer) -> Iterator[PgServer]:
    """The shared server, which also takes connections from its own host without TLS."""
    hba = empty_pg.data_dir / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(before + "host all all 127.0.0.1/32 scram-sha-256\n")
    empty_pg.execute("SELECT pg_reload_conf()")
    yield empty_pg
    hba.write_text(before)
    empty_pg.execute("SELECT pg_reload_conf()")


def server_on(node: str, namespace: str, pg: PgServer) -> tuple[Object, ...]:
    reference = {"secretKeyRef": {"name": "pg", "key": "password"}}
    one = {
        "name": "postgres",
        "image": "postgres:18",
        "ports": [{"name": "postgres", "containerPort": pg.port}],
        "env": [{"name": "POSTGRES_PASSWORD", "valueFrom": reference}],
    }
    spec = {"containers": [one], "nodeName": node, "tolerations": [{"operator": "Exists"}]}
    meta = {"namespace": namespace, "name": "pg"}
    value = base64.b64encode(PASSWORD.encode()).decode()
    headless = {"clusterIP": "None", "selector": {"app": "pg"}, "ports": [{"port": pg.port}]}
    return (
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"password": value}},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": headless},
        stateful_set(namespace, "pg", spec),
    )


def test_a_database_is_dumped_through_a_port_of_its_pod(
    *,
    control_plane: ControlPlane,
    kubelet: KubeletPort,
    node: str,
    namespace: str,
    plain_pg: PgServer,
    tmp_path: Path,
) -> None:
    plain_pg.execute(dumps.SAMPLE, plain_pg.create_database("app"))
    control_plane.api.create(*server_on(node, namespace, plain_pg))
    eventually(lambda: control_plane.api.find(f"/api/v1/namespaces/{namespace}/pods/pg-0"))
    settings = postgres_backup.Settings.model_validate(
        {
            "repositories": ["memory"],
            "discover": True,
            "namespaces": [namespace],
            "client_dirs": [str(plain_pg.bin_dir)],
        }
    )
    transport = Transport(lambda: find_cluster(kubeconfig=control_plane.kubeconfig()))
    kube = Kube(transport, deadline=Deadline.after(120, SystemClock()))

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path, kube=kube)

    assert job.run.outcome is Outcome.COMPLETED, job.run
    dump = job.artifact(f"database/{namespace}.pg/app")
    assert dump.facts["rows"] == sum(dumps.ROWS.values())
    assert kubelet.requests


def test_a_pod_that_is_not_there_is_told(
    control_plane: ControlPlane, namespace: str, empty_pg: PgServer, tmp_path: Path
) -> None:
    secret, service, workload = server_on("nowhere", namespace, empty_pg)
    workload["spec"]["template"]["spec"].pop("nodeName")
    workload["spec"]["podManagementPolicy"] = "OrderedReady"
    workload["spec"]["template"]["spec"]["serviceAccountName"] = "missing"  # so no pod is made
    control_plane.api.create(secret, service, workload)
    settings = postgres_backup.Settings.model_validate(
        {"repositories": ["memory"], "discover": True, "namespaces": [namespace]}
    )
    transport = Transport(lambda: find_cluster(kubeconfig=control_plane.kubeconfig()))
    kube = Kube(transport, deadline=Deadline.after(60, SystemClock()))

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path, kube=kube)

    assert job.run.outcome is Outcome.FAILED
    finding = job.finding("postgres.unreachable")
    assert finding.subject == f"server/{namespace}.pg"
    assert f"get pod {namespace}/pg-0: 404" in str(finding.facts["error"])
