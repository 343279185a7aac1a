"""The fleet of a real cluster: its nodes, its known hosts, and what stays when it is silent."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Forbidden
from opsd.clients.kube.objects import ConfigMap
from opsd.clients.kube.transport import Transport
from opsd.clients.ssh.known import HostKey
from opsd.clock import Deadline
from opsd.hosts.machine import Machine, Role
from opsd.hosts.roster import Access, Entry
from opsd.hosts.trust import Trust
from opsd.hosts.visiting import SshFleet
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.fleets import within
from tests.rig.kubeapi import ApiError
from tests.rig.server import free_port
from tests.rig.workloads import service_account
from tests.test_roster import ACCESS

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

RBAC = Path(__file__).parents[2] / "deploy/rbac/machines.yaml"
NAMESPACE, ACCOUNT = "opsd", "opsd-machines"
KEY = HostKey("ssh-ed25519", b"one")
OTHER = HostKey("ssh-ed25519", b"other")


@pytest.fixture
def transport(control_plane: ControlPlane) -> Transport:
    return Transport(lambda: find_cluster(kubeconfig=control_plane.kubeconfig()))


@pytest.fixture
def silent(tmp_path: Path, control_plane: ControlPlane) -> Transport:
    """Of a cluster whose API server is gone."""
    text = control_plane.kubeconfig().read_text()
    gone = tmp_path / "kubeconfig"
    gone.write_text(re.sub(r"https://[^\"\s]+", f"https://127.0.0.1:{free_port()}", text))
    return Transport(lambda: find_cluster(kubeconfig=gone))


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return replace(ACCESS, known_hosts=tmp_path / "known", remembered=tmp_path / "nodes.json")


def fleet_in(transport: Transport, access: Access) -> SshFleet:
    open_kube = functools.partial(_kube, transport)
    return SshFleet(access, open_kube=open_kube, deadline=within(10))


def _kube(transport: Transport, deadline: Deadline) -> Kube:
    return Kube(transport, deadline=deadline)


def test_the_nodes_of_the_cluster_are_machines(
    workers: Workers, transport: Transport, access: Access
) -> None:
    first, second = workers(2)
    configured = (Entry(name=second.name, port=2222), Entry(name="nas", address="10.0.0.2"))

    roster = fleet_in(transport, replace(access, machines=configured)).roster()

    found = {machine.name: machine for machine in roster.machines}
    assert found[first.name] == Machine(
        name=first.name, address=first.ip, user="opsd", roles=frozenset({Role.NODE})
    )
    assert (found[second.name].address, found[second.name].port) == (second.ip, 2222)
    assert roster.machines[-1].name == "nas"
    assert roster.unknown == ""


def test_a_cluster_that_is_silent_has_the_nodes_that_it_had(
    workers: Workers, transport: Transport, silent: Transport, access: Access
) -> None:
    workers(1)
    before = fleet_in(transport, access).roster()

    after = fleet_in(silent, access).roster()

    assert after.machines == before.machines
    assert after.unknown != ""


def test_a_cluster_that_never_answered_leaves_the_configured_machines(
    silent: Transport, access: Access
) -> None:
    roster = fleet_in(silent, replace(access, machines=(Entry(name="nas"),))).roster()

    assert [machine.name for machine in roster.machines] == ["nas"]
    assert roster.unknown != ""


def test_known_hosts_of_a_configmap_count_also_when_the_cluster_is_silent(
    control_plane: ControlPlane,
    namespace: str,
    transport: Transport,
    silent: Transport,
    access: Access,
) -> None:
    control_plane.api_as("admin", group="system:masters").create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "known-hosts", "namespace": namespace},
            "data": {"a": f"rpi3 {KEY}", "b": f"rpi4 {KEY}\n# end"},
        }
    )
    access = replace(access, known_hosts_configmap=f"{namespace}/known-hosts")
    (access.known_hosts).write_text(f"rpi5 {OTHER}\n")

    for each in (transport, silent):
        known = Trust(access, functools.partial(_kube, each)).known(within(10))

        assert [
            known.keys_of(name, address="10.0.0.1", port=22)
            for name in ("rpi3", "rpi4", "rpi5", "rpi6")
        ] == [(KEY,), (KEY,), (OTHER,), ()]


def test_the_rights_of_the_manifest_are_enough_and_read_no_other_configmap(
    control_plane: ControlPlane, access: Access, workers: Workers
) -> None:
    (node,) = workers(1)
    grant(control_plane)
    kubeconfig = control_plane.kubeconfig_of(NAMESPACE, ACCOUNT)
    allowed = Transport(lambda: find_cluster(kubeconfig=kubeconfig))
    kube = Kube(allowed, deadline=within(30))

    roster = fleet_in(allowed, access).roster()
    held = kube.get(ConfigMap, "known-hosts", namespace=NAMESPACE)

    assert node.name in {machine.name for machine in roster.machines}
    assert held.data == {"a": f"rpi3 {KEY}"}
    with pytest.raises(Forbidden):
        kube.get(ConfigMap, "kube-root-ca.crt", namespace=NAMESPACE)


def grant(control_plane: ControlPlane) -> None:
    """Make an account with exactly the rights of the manifest; no harm when it has them."""
    text = RBAC.read_text().replace("    name: opsd\n", f"    name: {ACCOUNT}\n")
    held = {"name": "known-hosts", "namespace": NAMESPACE}
    keys = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": held}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    account = service_account(NAMESPACE, ACCOUNT)
    rights = yaml.safe_load_all(text)
    for item in (namespace, account, {**keys, "data": {"a": f"rpi3 {KEY}"}}, *rights):
        with contextlib.suppress(ApiError):  # it is there already
            control_plane.api.create(item)
