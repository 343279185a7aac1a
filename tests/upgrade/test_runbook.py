"""The runbook names the nodes of this cluster, in an order that can be followed."""

from __future__ import annotations

import dataclasses

import pytest

from opsd.clients.kube.objects import Pod
from opsd.clients.kube.objects.base import Metadata
from opsd.clients.kube.objects.pods import PodSpec
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.runbook import runbook
from tests.upgrade.made import FIRST, NOTHING, SECOND, node, read

MASTER = node("rpi1", master=True)


def titles(*nodes: object, **more: object) -> list[str]:
    facts = read(nodes=nodes, **more)  # type: ignore[arg-type]
    return [step.title for step in runbook(facts, FIRST)]


def test_the_control_plane_comes_first_and_its_upgrade_is_the_point_of_no_return() -> None:
    steps = runbook(read(nodes=(node("rpi2"), MASTER)), FIRST)

    (point,) = [step for step in steps if step.is_point_of_no_return]
    assert (point.on, point.commands) == (
        "rpi1",
        ('kubeadm upgrade apply --yes "$(kubeadm version -o short)"',),
    )
    before = [step.on for step in steps[: steps.index(point)]]
    assert "rpi2" not in before
    assert "opsd run-job etcd-backup" in steps[0].commands


def test_nodes_that_are_alike_are_told_once_by_their_names() -> None:
    told = titles(MASTER, node("rpi4"), node("rpi2"), node("rpi3"))

    assert any(title.endswith("wholly before the next: rpi2, rpi3, rpi4") for title in told)
    assert sum("kubeadm upgrade node" in title or "its settings" in title for title in told) == 1


def test_a_node_that_was_cordoned_stays_so() -> None:
    steps = runbook(read(nodes=(MASTER, node("rpi2"), node("rpi4", cordoned=True))), FIRST)

    commands = [command for step in steps for command in step.commands]
    assert "kubectl uncordon rpi2" in commands
    assert "kubectl uncordon rpi4" not in commands
    assert any(step.title == "rpi4: it was cordoned before, leave it so" for step in steps)


def test_no_command_of_apt_is_given_for_a_node_without_it() -> None:
    steps = runbook(read(nodes=(MASTER, node("alma", system="AlmaLinux 10"))), FIRST)

    commands = [command for step in steps if step.on == "alma" for command in step.commands]
    assert not any("apt" in command for command in commands)
    assert "kubeadm upgrade node" in commands


def test_the_node_of_opsd_comes_last() -> None:
    own = Pod(metadata=Metadata(name="opsd", uid="u"), spec=PodSpec(node_name="a2"))
    facts = read(own, nodes=(MASTER, node("a2"), node("a3")))
    facts = dataclasses.replace(facts, own_pod="u")

    told = [step.title for step in runbook(facts, FIRST)]

    assert any(title.endswith("wholly before the next: a3, a2") for title in told)


def test_nodes_that_lag_behind_are_brought_up_first_at_the_first_hop_only() -> None:
    facts = read(nodes=(MASTER, node("rpi2", kubelet="v1.34.1")))

    first = [step.title for step in runbook(facts, FIRST)]
    second = [step.title for step in runbook(facts, SECOND)]

    behind = "Bring every node to 1.35.4 first: some kubelets are at v1.34.1"
    assert behind in first
    assert behind not in second


def test_several_nodes_of_the_control_plane_are_one_apply_and_the_others_node() -> None:
    steps = runbook(read(nodes=(MASTER, node("rpi2", master=True), node("rpi3"))), FIRST)

    commands = [(step.on, command) for step in steps for command in step.commands]
    assert ("rpi2", "kubeadm upgrade node") in commands
    assert [on for on, command in commands if "upgrade apply" in command] == ["rpi1"]
    assert not any("the API is away" in step.title for step in steps)


def test_a_single_control_plane_node_is_told_of_the_outage() -> None:
    assert any("the API is away" in title for title in titles(MASTER, node("rpi2")))


@pytest.mark.parametrize("facts", [NOTHING, read(nodes=(node("rpi2"),))])
def test_without_a_control_plane_node_there_is_no_runbook(facts: object) -> None:
    with pytest.raises(Unreadable):
        runbook(facts, FIRST)  # type: ignore[arg-type]
