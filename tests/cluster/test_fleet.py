"""The fleet of a real cluster: its nodes, its known hosts, and what stays when it is silent."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
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
from tests.rig.server import free_port
from tests.test_roster import ACCESS

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

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
