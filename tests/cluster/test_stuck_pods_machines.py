"""How a node is lost is told by real machines: itself, its neighbours, and the file server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.stuck_pods import Settings
from opsd.hosts.machine import Role
from opsd.hosts.roster import Entry
from opsd.model import Finding, Run
from tests.cluster.watcher import QUICK, Watcher, ended, found, s, until
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.fleets import access_to, fleet_with
from tests.rig.kubestate import node_is, running_pod, uid_of
from tests.rig.machines import Network, RealMachine
from tests.rig.realnodes import RealNode, container, real_node
from tests.rig.workloads import pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

HEALTHY = 7  # nodes, so that five lost ones are not most of them


@pytest.fixture
def watcher(control_plane: ControlPlane, tmp_path: Path) -> Watcher:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # A look that waits for a dead machine takes longer than the quick clock's hold.
    patient = replace(QUICK, hold=s(15))
    return Watcher(control_plane=control_plane, scratch=scratch, thresholds=patient)


def asks(watcher: Watcher, machines: Sequence[RealMachine], **roles: Role) -> None:
    """Have opsd log in to these machines; the others are nodes."""
    entries = tuple(
        Entry(
            name=one.name,
            address=one.address,
            roles=frozenset({roles.get(one.name, Role.NODE)}),
        )
        for one in machines
    )
    access = replace(access_to(machines), machines=entries, at_once=len(machines))
    watcher.open_fleet = lambda deadline: fleet_with(access).until(deadline)


def kinds(run: Run, nodes: Sequence[RealNode]) -> Mapping[str, object]:
    lost = {one.name: found(run, f"node/{one.name}") for one in nodes}
    return {name: finding.facts["kind"] for name, finding in lost.items() if finding}


def facts(run: Run, node: RealNode) -> Mapping[str, object]:
    finding = found(run, f"node/{node.name}")
    assert isinstance(finding, Finding)
    return finding.facts


def test_each_way_to_be_lost_is_told_from_the_others(
    control_plane: ControlPlane,
    workers: Workers,
    namespace: str,
    network: Network,
    watcher: Watcher,
) -> None:
    api, nodes = control_plane.api, workers(5 + HEALTHY)
    reals = [real_node(network, node) for node in nodes[:6]]
    rebooted, running, dead, unheard, silent, neighbour = reals
    nas = network.machine("nas")
    asks(watcher, [*(one.machine for one in reals), nas], nas=Role.NFS_SERVER)
    for one in reals:
        node_is(api, one.node, "True")
    api.create(
        stateful_set(namespace, "db", pod_spec(nodes[0].pool, grace_s=1, nodeName=running.name))
    )
    uid = uid_of(running_pod(api, namespace, "db-0"))
    assert ended(until(watcher, ended))

    with container(running.machine, uid):
        rebooted.lose_power()
        rebooted.reboot()
        running.node.cut_off()
        dead.node.lose_power()
        dead.kubelet_is("failed")
        unheard.node.cut_off()
        unheard.machine.drop_port(22)
        silent.lose_power()
        expected = {
            rebooted.name: "rebooted_not_back",
            running.name: "partitioned_running",
            dead.name: "kubelet_dead",
            unheard.name: "partitioned_unknown",
            silent.name: "silent",
        }
        run = until(watcher, lambda run: kinds(run, reals) == expected, within_s=120)
    after = until(
        watcher, lambda run: kinds(run, [running]) != {running.name: expected[running.name]}
    )

    assert facts(run, rebooted)["boot_id"] == rebooted.machine.boot_id
    assert facts(run, running)["seen_from_opsd_by_ssh"] == "alive: kubelet active, 1 pod runs"
    assert facts(run, dead)["kubelet"] == "failed"
    heard = facts(run, unheard)
    assert str(heard[f"seen_from_{neighbour.name}_by_ping"]).startswith("alive: ")
    assert "ping answered" in str(heard["seen_from_nas_by_ping"])
    # opsd, the neighbour, the file server, and the three lost ones that can be logged in to
    assert facts(run, silent)["looked_from"] == 6
    assert kinds(after, [running]) == {running.name: "partitioned_unknown"}


def test_a_login_that_nobody_answers_is_waited_for_no_longer_than_the_knocks(
    control_plane: ControlPlane, workers: Workers, network: Network, watcher: Watcher
) -> None:
    api, nodes = control_plane.api, workers(3)
    node = real_node(network, nodes[0])
    asks(watcher, [node.machine, network.machine("nas")], nas=Role.NFS_SERVER)
    watcher.settings = Settings(watch=s(0), ports=(22,))
    node_is(api, node.node, "True")
    until(watcher, ended)
    node.lose_power()

    run = until(watcher, lambda run: found(run, f"node/{node.name}"))

    told = facts(run, node)
    assert told["kind"] == "silent"
    assert "22 no answer in 2 s" in str(told["seen_from_opsd_by_tcp"])
    assert told["seen_from_opsd_by_ssh"] == "silent: no answer to a login in 6 s"
