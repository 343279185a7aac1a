"""Who waits for a file server, as a real cluster names them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from jobs.nfs_health import JOB, Settings
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.hosts.machine import Machine, Role
from opsd.model import Finding, Outcome, Run
from opsd.runner import execute
from opsd.testing import MemoryFleet, context
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.fleets import within
from tests.rig.kubeapi import Object, eventually, path_of
from tests.rig.server import HOST, free_port
from tests.rig.workloads import claim_on_nfs, pod, pod_spec, service_account

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

RBAC = Path(__file__).parents[2] / "deploy/rbac/nfs-health.yaml"
SERVER = "192.0.2.7"
DEVICE = "0:52"


@pytest.fixture
def mounted(control_plane: ControlPlane, namespace: str, workers: Workers) -> Iterator[list[str]]:
    """A database and another pod on a node, each with a claim; yields lines of mountinfo."""
    (node,) = workers(1)
    objects: list[Object] = []
    lines = []
    for name, image in (("pg-0", "registry.test/postgres:16"), ("web-0", "registry.test/web:1")):
        claim = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
        spec = pod_spec(node.labels["pool"], image=image, volumes=[claim])
        bound = claim_on_nfs(namespace, name, server=SERVER, path=f"/export/{name}")
        made = [*bound, pod(namespace, name, spec)]
        control_plane.api.create(*made)
        objects += made
        uid = control_plane.api.get(path_of(made[-1]))["metadata"]["uid"]
        path = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~nfs/{namespace}-{name}"
        options = f"rw,vers=4.2,hard,addr={HOST},port={free_port()}"
        lines.append(
            f"812 25 {DEVICE} / {path} rw shared:4 - nfs4 {SERVER}:/export/{name} {options}"
        )
    eventually(
        lambda: all(
            control_plane.api.get(path_of(one))["status"].get("phase") in {"Running", "Bound"}
            for one in objects
            if one["kind"] != "PersistentVolume"
        )
    )
    yield lines
    for one in reversed(objects):
        control_plane.api.delete(path_of(one))


def looked(kubeconfig: Path, scratch: Path, lines: list[str]) -> Run:
    """A run on a machine that says so of its mounts, and that they hang."""
    machine = Machine(name="rpi1", address=HOST, roles=frozenset({Role.NODE}))
    source = lines[0].split(" - nfs4 ")[1].split()[0]
    fleet = MemoryFleet(
        (machine,),
        {
            machine.name: {
                "nfs-mounts": "\n".join(lines),
                "nfs-looks": f"{DEVICE} {source} 137 10.0 15.0 Killed",
                "nfs-tasks": "",
            }
        },
    )
    transport = Transport(lambda: find_cluster(kubeconfig=kubeconfig))
    kube = Kube(transport, deadline=within(60))
    run = execute(JOB, Settings(), context(scratch=scratch, fleet=fleet, kube=kube, job=JOB.name))
    assert run.outcome is Outcome.COMPLETED, run.error
    return run


def incident(run: Run) -> Finding:
    (found,) = (one for one in run.findings if one.check == "nfs.server_down")
    return found


def test_databases_pods_and_claims_on_a_dead_server_have_their_names(
    control_plane: ControlPlane, namespace: str, mounted: list[str], tmp_path: Path
) -> None:
    run = looked(control_plane.kubeconfig(), tmp_path, mounted)

    down = incident(run)
    assert down.summary.startswith(
        f"file server {SERVER} does not answer: database {namespace}/pg"
    )
    assert down.facts["databases"] == f"{namespace}/pg-0"
    assert down.facts["pods"] == f"{namespace}/web-0"
    assert down.facts["claims"] == f"{namespace}/pg-0, {namespace}/web-0"
    assert "names_unknown" not in down.facts


def test_the_rights_of_its_role_are_enough(
    control_plane: ControlPlane, namespace: str, mounted: list[str], tmp_path: Path
) -> None:
    role, binding = yaml.safe_load_all(RBAC.read_text())
    role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = namespace
    binding["subjects"] = [{"kind": "ServiceAccount", "namespace": namespace, "name": "opsd"}]
    control_plane.api.create(role, binding, service_account(namespace, "opsd"))

    run = looked(control_plane.kubeconfig_of(namespace, "opsd"), tmp_path, mounted)

    control_plane.api.delete(path_of(role))
    control_plane.api.delete(path_of(binding))
    assert incident(run).facts["databases"] == f"{namespace}/pg-0"


def test_a_cluster_that_names_nobody_costs_only_the_names(
    control_plane: ControlPlane, namespace: str, mounted: list[str], tmp_path: Path
) -> None:
    control_plane.api.create(service_account(namespace, "stranger"))

    run = looked(control_plane.kubeconfig_of(namespace, "stranger"), tmp_path, mounted)

    down = incident(run)
    assert down.facts["pods_without_name"] == 2
    assert "403" in str(down.facts["names_unknown"])
