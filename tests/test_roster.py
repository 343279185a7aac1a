"""Who belongs to the fleet, and how each is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from opsd.clients.kube.client import Kube
from opsd.clients.kube.objects import Node
from opsd.clients.kube.objects.base import Metadata
from opsd.clients.kube.objects.nodes import NodeAddress, NodeStatus
from opsd.clock import Deadline
from opsd.errors import ConfigError, DeadlineExceeded, TransientError
from opsd.hosts.machine import Machine, Role
from opsd.hosts.roster import Access, Entry, machines_of, nodes_of, read, written
from opsd.hosts.visiting import SshFleet
from opsd.secrets import Secret
from opsd.testing import FakeClock

ACCESS = Access(
    user="opsd",
    key=Secret("file:/nowhere"),
    passphrase=None,
    known_hosts=Path("/nowhere"),
    known_hosts_configmap="",
    jump="",
    connect_timeout_s=10.0,
    at_once=8,
    nodes=True,
    exclude=(),
    machines=(),
    remembered=Path("/nowhere"),
)
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def node(name: str, address: str = "10.0.0.1", *labels: str) -> Node:
    addresses = (
        NodeAddress(type="Hostname", address=name),
        NodeAddress(type="InternalIP", address=address),
        NodeAddress(type="InternalIP", address="fd00::1"),
    )
    return Node(
        metadata=Metadata(name=name, labels=dict.fromkeys(labels, "")),
        status=NodeStatus(addresses=addresses),
    )


def test_nodes_come_by_name_with_their_first_inner_address() -> None:
    machines = machines_of(ACCESS, nodes_of([node("rpi2", "10.0.0.2"), node("rpi1", "10.0.0.1")]))

    assert [(one.name, one.address, one.port, one.user) for one in machines] == [
        ("rpi1", "10.0.0.1", 22, "opsd"),
        ("rpi2", "10.0.0.2", 22, "opsd"),
    ]


def test_a_control_plane_is_known_by_its_label() -> None:
    first, second = machines_of(
        ACCESS, nodes_of([node("a", "10.0.0.1", CONTROL_PLANE), node("b")])
    )

    assert first.roles == {Role.NODE, Role.CONTROL_PLANE}
    assert second.roles == {Role.NODE}


def test_a_node_without_an_address_is_reached_by_its_name() -> None:
    (machine,) = machines_of(ACCESS, nodes_of([Node(metadata=Metadata(name="rpi1"))]))

    assert machine.address == "rpi1"


def test_excluded_nodes_are_never_logged_in_to() -> None:
    access = replace(ACCESS, exclude=("virtual-*",))

    machines = machines_of(access, nodes_of([node("virtual-1"), node("virtual"), node("rpi1")]))

    assert [one.name for one in machines] == ["rpi1", "virtual"]


def test_what_is_configured_about_a_node_counts_before_what_the_cluster_says() -> None:
    entry = Entry(
        name="rpi1", address="192.0.2.1", port=2222, user="admin", roles=frozenset({Role.ROUTER})
    )

    (machine,) = machines_of(replace(ACCESS, machines=(entry,)), nodes_of([node("rpi1")]))

    assert machine == Machine(
        name="rpi1",
        address="192.0.2.1",
        port=2222,
        user="admin",
        roles=frozenset({Role.NODE, Role.ROUTER}),
    )


def test_other_machines_come_after_the_nodes_and_have_their_name_for_an_address() -> None:
    entries = (Entry(name="nas", roles=frozenset({Role.NFS_SERVER})), Entry(name="a.example.org"))

    machines = machines_of(replace(ACCESS, machines=entries), nodes_of([node("rpi1")]))

    assert [one.name for one in machines] == ["rpi1", "nas", "a.example.org"]
    assert machines[2].address == "a.example.org"
    assert machines[1].roles == {Role.NFS_SERVER}
    assert machines[1].node_subject == ""
    assert machines[0].node_subject == "node/rpi1"


def test_all_but_the_router_are_reached_through_it() -> None:
    entries = (Entry(name="router"), Entry(name="nas", jump=""))

    machines = machines_of(
        replace(ACCESS, jump="router", machines=entries), nodes_of([node("rpi1")])
    )

    assert {one.name: one.jump for one in machines} == {"rpi1": "router", "router": "", "nas": ""}


def test_a_machine_through_one_that_there_is_not_names_both() -> None:
    access = replace(ACCESS, machines=(Entry(name="nas", jump="rooter"),))

    with pytest.raises(ConfigError, match=r"nas is to be reached through rooter.*known: nas"):
        machines_of(access, ())


def test_only_one_machine_may_be_between() -> None:
    entries = (Entry(name="a"), Entry(name="b", jump="a"), Entry(name="c", jump="b"))

    with pytest.raises(ConfigError, match="only one may be between"):
        machines_of(replace(ACCESS, machines=entries), ())


def test_nodes_that_were_written_down_are_read_again() -> None:
    nodes = nodes_of([node("rpi1", "10.0.0.1", CONTROL_PLANE), node("rpi2")])

    assert read(written(nodes)) == nodes


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '[["a", "b", ["odd"]]]'])
def test_a_note_of_nodes_that_makes_no_sense_is_none(text: str) -> None:
    assert read(text) == ()


def test_a_run_whose_time_is_over_goes_by_no_old_roster() -> None:
    def silent(_: Deadline) -> Kube:
        raise TransientError("nobody answers")

    clock = FakeClock()
    in_time = SshFleet(ACCESS, open_kube=silent, deadline=Deadline.after(1, clock))
    too_late = SshFleet(ACCESS, open_kube=silent, deadline=Deadline.after(0, clock))

    assert in_time.roster().unknown == "nobody answers"
    with pytest.raises(DeadlineExceeded):
        too_late.roster()
