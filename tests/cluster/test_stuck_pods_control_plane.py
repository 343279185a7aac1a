"""What breaks besides a node: the controller manager, the API server, most nodes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.model import Outcome, Run
from tests.cluster.watcher import QUICK, USER, Watcher, ended, forbidden, found, until
from tests.rig import controlplane, kubelet
from tests.rig.controlplane import ControlPlane
from tests.rig.kubelet import FakeNode
from tests.rig.kubestate import node_is

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

CONTROL_PLANE = "cluster/control-plane"


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    """One that stops evictions when most nodes are lost, as with the defaults."""
    with controlplane.running(clock=controlplane.FAST_AND_CAREFUL) as own:
        yield own


@pytest.fixture
def nodes(control_plane: ControlPlane) -> Iterator[list[FakeNode]]:
    """Four nodes: ``n-1`` to ``n-4``."""
    with kubelet.running(control_plane) as kubelets:
        made = kubelets.add_pool("n", 4)
        for node in made:
            node_is(control_plane.api, node, "True")
        yield made


@pytest.fixture
def watcher(
    control_plane: ControlPlane, nodes: list[FakeNode], tmp_path: Path
) -> Iterator[Watcher]:
    """opsd, which has watched the four nodes and must never do more than read."""
    assert nodes
    watcher = Watcher(control_plane=control_plane, scratch=tmp_path)
    assert ended(watcher.look())
    yield watcher
    calls = control_plane.audit.calls(user=USER)
    assert calls
    assert forbidden(calls) == []


def lost(run: Run) -> set[str]:
    return {one.subject for one in run.findings if one.check == "node.lost"}


def test_no_node_is_blamed_while_the_controller_manager_is_frozen(
    control_plane: ControlPlane, nodes: list[FakeNode], watcher: Watcher
) -> None:
    control_plane.controller_manager.freeze()
    try:
        nodes[0].lose_power()
        run = until(watcher, lambda run: found(run, CONTROL_PLANE))
        later = watcher.look()
    finally:
        control_plane.controller_manager.thaw()
    after = until(watcher, lost)

    degraded = found(run, CONTROL_PLANE)
    assert degraded
    assert "controller manager is silent" in degraded.summary
    assert int(str(degraded.facts["controller_manager_silent_s"])) >= 5
    for doubtful in (run, later):
        assert doubtful.outcome is Outcome.FAILED
        assert {one.subject for one in doubtful.findings} == {CONTROL_PLANE}
    assert lost(after) == {"node/n-1"}
    assert not found(after, CONTROL_PLANE)


def test_a_loss_stays_open_while_the_api_server_is_away_and_is_not_told_twice(
    control_plane: ControlPlane, nodes: list[FakeNode], watcher: Watcher
) -> None:
    nodes[0].lose_power()
    until(watcher, lost)

    control_plane.apiserver.stop()
    away = watcher.look()
    control_plane.apiserver.start()
    held = watcher.look(thresholds=dataclasses.replace(QUICK, hold=timedelta(minutes=1)))
    control_plane.controller_manager.restart()  # it ended when it could not renew its lease
    still_open = watcher.finding("node/n-1")
    after = until(watcher, ended)

    for run in (away, held):
        assert run.outcome is Outcome.FAILED
        assert {one.subject for one in run.findings} == {CONTROL_PLANE}
    assert "does not answer" in run.findings[0].summary
    assert still_open
    assert lost(after) == {"node/n-1"}
    assert [message.title[:7] for message in watcher.messages] == ["Act now"]


def test_two_of_four_nodes_are_told_in_one_message(
    nodes: list[FakeNode], watcher: Watcher
) -> None:
    for node in nodes[:2]:
        node.lose_power()

    until(watcher, lambda run: lost(run) == {"node/n-1", "node/n-2"})

    assert not watcher.finding(CONTROL_PLANE)
    assert {"node/n-1", "node/n-2"} <= {subject for _, subject in watcher.open}


def test_when_most_nodes_are_silent_none_is_blamed_and_kubernetes_deletes_nothing(
    control_plane: ControlPlane, nodes: list[FakeNode], watcher: Watcher
) -> None:
    gone = nodes[:3]
    for node in gone:
        node.cut_off()

    for node in gone:
        node_is(control_plane.api, node, "Unknown")
    run = until(watcher, lambda run: found(run, CONTROL_PLANE))
    for node in gone:
        node.come_back()
    after = until(watcher, ended)

    degraded = found(run, CONTROL_PLANE)
    assert degraded
    assert degraded.summary == "3 of 4 nodes are silent at once"
    assert degraded.facts["silent_nodes"] == "3 of 4: n-1, n-2, n-3"
    assert after.findings == ()
    # Whether it lasted long enough to be told depends on how long was watched before.
    assert not [message for message in watcher.messages if "n-1" in message.title]


def test_a_memory_that_is_lost_costs_one_time_of_watching(
    nodes: list[FakeNode], watcher: Watcher
) -> None:
    nodes[0].lose_power()
    until(watcher, lost)
    for path in watcher.scratch.iterdir():
        path.write_bytes(b"damaged")

    again = until(watcher, lost)

    assert lost(again) == {"node/n-1"}


@pytest.mark.usefixtures("nodes")
def test_without_rights_the_run_says_which_are_missing(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    watcher = Watcher(control_plane=control_plane, scratch=tmp_path)
    assert ended(watcher.look())
    binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/opsd-stuck-pods"
    control_plane.api.delete(binding)

    run = until(watcher, lambda run: not ended(run))

    assert "list nodes: 403 Forbidden: serviceaccount opsd/opsd" in run.error
    assert run.findings == ()
