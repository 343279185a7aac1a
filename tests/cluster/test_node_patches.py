"""The versions that run, as a real cluster says, beside the packages of its nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.node_patches import JOB, Settings
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.hosts.machine import Machine, Role
from opsd.model import Outcome
from opsd.runner import execute
from opsd.testing import FakeClock, MemoryFleet, context
from tests.conftest import Workers
from tests.packaging import HEALTHY, NOW
from tests.rig.controlplane import ControlPlane
from tests.rig.fleets import within

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


def test_a_kubelet_that_was_upgraded_and_not_restarted_is_found_by_asking_the_cluster(
    tmp_path: Path, control_plane: ControlPlane, workers: Workers
) -> None:
    transport = Transport(lambda: find_cluster(kubeconfig=control_plane.kubeconfig()))
    kube = Kube(transport, deadline=within(30))
    same, other = (
        Machine(name=node.name, address=node.ip, roles=frozenset({Role.NODE}))
        for node in workers(2)
    )
    runs = f"{control_plane.minor}.0"
    held = "@packages=9\nhi |kubelet|{0}-1.1|arm64\nhi |kubeadm|{0}-1.1|arm64\n"
    fleet = MemoryFleet(
        (same, other),
        {
            same.name: {**HEALTHY, "dpkg": held.format(runs)},
            other.name: {**HEALTHY, "dpkg": held.format("1.99.0")},
        },
    )
    ctx = context(scratch=tmp_path, fleet=fleet, kube=kube, clock=FakeClock(NOW), job=JOB.name)

    run = execute(JOB, Settings(), ctx)

    found = {one.subject: one for one in run.findings if one.check == "patches.kubernetes_mixed"}
    assert run.outcome is Outcome.COMPLETED
    assert set(found) == {f"machine/{other.name}/kubernetes"}
    assert found[f"machine/{other.name}/kubernetes"].facts["running"] == f"v{runs}"
