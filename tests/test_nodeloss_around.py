"""What neighbours and the file server heard of a lost node, and whether it is a sign of life."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from opsd.cluster.nodeloss.around import (
    CLIENTS,
    CONNECTIONS,
    CONNECTIONS_PROBE,
    KNOCKS,
    NFS_PORT,
    Connection,
    clients,
    connections,
    knocks,
    sightings_of,
)
from opsd.cluster.nodeloss.facts import Means, Node
from opsd.hosts.fleet import Visit
from opsd.hosts.machine import Machine
from opsd.hosts.script import Probe, Script, Section

ADDRESS = "10.0.0.13"
SILENT_S = 55
INFO = """\
clientid: 0x6d0596d0675df2b3
address: "10.0.0.13:798"
status: confirmed
seconds from last renew: {renewed_s}
name: "Linux NFSv4.2 rpi3"
minor version: 2
Implementation domain: "kernel.org"
callback state: UP
callback address: 10.0.0.13:0
clientid: 0x6d0596d0675df2b4
address: "[fd00::14]:1011"
status: courtesy
seconds from last renew: 4711
name: "Linux NFSv4.1 rpi4"
"""
CONNECTION = """\
{unread}      0      10.0.0.5:2049   10.0.0.13:798
\t cubic wscale:7,7 rto:204 lastsnd:4 lastrcv:{last_ms} lastack:12 pacing_rate 1bps
0      0      [::ffff:10.0.0.5]:2049   [::ffff:10.0.0.14]:801
\t cubic wscale:7,7 rto:204 lastsnd:4 lastrcv:20 lastack:12 pacing_rate 1bps
"""


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def node(address: str = ADDRESS, silent_s: float = SILENT_S) -> Node:
    return Node(
        name="rpi3",
        uid="1",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        address=address,
        lease_silent=s(silent_s),
    )


def visit(**stdout: str) -> Visit:
    sections = {
        name.replace("_", "-"): Section(
            name=name.replace("_", "-"), stdout=text, stderr="", status=0
        )
        for name, text in stdout.items()
    }
    return Visit(machine=Machine(name="nas", address="10.0.0.5"), sections=sections)


def answered(*probes: Probe) -> Visit:
    """What this machine answers."""
    script = Script.of(probes)
    ended = subprocess.run(
        ["sh", "-s"], input=script.text.encode(), capture_output=True, check=True
    )
    return Visit(
        machine=Machine(name="here", address="127.0.0.1"),
        sections=script.read(ended.stdout, ended.stderr),
    )


@pytest.mark.parametrize(
    ("said", "means", "alive", "detail"),
    [
        ("ping 10.0.0.13 0", Means.PING, True, "ping answered"),
        ("ping 10.0.0.13 1", Means.PING, False, "ping no answer"),
        ("tcp 10.0.0.13 22 0", Means.TCP, True, "22 open"),
        ("tcp 10.0.0.13 22 1 bash: connect: Connection refused", Means.TCP, True, "22 refused"),
        ("tcp 10.0.0.13 22 1 bash: No route to host", Means.TCP, False, "22 no answer"),
        ("tcp 10.0.0.13 22 137", Means.TCP, False, "22 no answer"),
        (
            "neighbour 10.0.0.13 dev eth0 lladdr 02:0:0:0:0:5 used 3/44/32probes 1 REACHABLE",
            Means.ARP,
            True,
            "neighbour reachable",
        ),
        (
            "neighbour 10.0.0.13 dev eth0 lladdr 02:0:0:0:0:5 used 3/45/32 probes 1 REACHABLE",
            Means.ARP,
            False,
            "neighbour reachable",
        ),
        (
            "neighbour 10.0.0.13 dev eth0 lladdr 02:0:0:0:0:5 REACHABLE",
            Means.ARP,
            False,
            None,
        ),
        (
            "neighbour 10.0.0.13 dev eth0 lladdr 02:0:0:0:0:5 used 3/2/32 probes 1 STALE",
            Means.ARP,
            False,
            "neighbour stale",
        ),
        ("neighbour 10.0.0.13 dev eth0 used 1/1/1 probes 6 FAILED", Means.ARP, False, None),
    ],
)
def test_what_a_neighbour_saw(said: str, means: Means, alive: bool, detail: str | None) -> None:  # noqa: FBT001 - a table
    [seen] = sightings_of(visit(knocks=f"{said}\n"), node())

    assert (seen.vantage, seen.means, seen.alive) == ("nas", means, alive)
    assert detail is None or seen.detail == detail


def test_one_sign_of_life_outweighs_all_silence() -> None:
    said = "tcp 10.0.0.13 22 137\nping 10.0.0.13 1\ntcp 10.0.0.13 10250 0\n"

    [seen] = sightings_of(visit(knocks=said), node())

    assert (seen.means, seen.alive) == (Means.TCP, True)
    assert seen.detail == "22 no answer, ping no answer, 10250 open"


@pytest.mark.parametrize(
    "said", ["", "ping 10.0.0.14 0\n", "ping 10.0.0.13 127\n", "tcp 10.0.0.13"]
)
def test_what_does_not_tell_of_the_node_is_no_sighting(said: str) -> None:
    assert list(sightings_of(visit(knocks=said), node())) == []


@pytest.mark.parametrize(("renewed_s", "alive"), [(44, True), (45, False)])
def test_a_renewed_lease_is_life_if_it_is_younger_than_the_silence(
    renewed_s: int,
    alive: bool,  # noqa: FBT001 - a column of the table
) -> None:
    [seen] = sightings_of(visit(nfs_clients=INFO.format(renewed_s=renewed_s)), node())

    assert (seen.means, seen.alive, seen.age) == (Means.NFS, alive, s(renewed_s))
    assert seen.detail.startswith(f"renewed its lease, confirmed {renewed_s} s ago")
    assert ("as before its silence" in seen.detail) is not alive


@pytest.mark.parametrize(("last_ms", "alive"), [(44_999, True), (45_000, False)])
def test_data_on_a_connection_is_life_if_it_is_younger_than_the_silence(
    last_ms: int,
    alive: bool,  # noqa: FBT001 - a column of the table
) -> None:
    said = CONNECTION.format(last_ms=last_ms, unread=0)

    [seen] = sightings_of(visit(nfs_connections=said), node())

    assert (seen.means, seen.alive) == (Means.NFS, alive)


def test_of_lease_and_connection_the_younger_counts() -> None:
    both = visit(
        nfs_clients=INFO.format(renewed_s=54),
        nfs_connections=CONNECTION.format(last_ms=2000, unread=0),
    )

    [seen] = sightings_of(both, node())

    assert (seen.alive, seen.detail) == (True, "sent data 2 s ago")


def test_a_client_is_found_by_each_way_of_writing_its_address() -> None:
    found = clients(Section(name=CLIENTS, stdout=INFO.format(renewed_s=1), stderr="", status=0))
    connected = CONNECTION.format(last_ms=1, unread=7)

    assert [(one.address, one.status) for one in found] == [
        (ADDRESS, "confirmed"),
        ("fd00::14", "courtesy"),
    ]
    assert connections(Section(name=CONNECTIONS, stdout=connected, stderr="", status=0)) == (
        Connection(peer=ADDRESS, unread_bytes=7, silent=s(0.001)),
        Connection(peer="10.0.0.14", unread_bytes=0, silent=s(0.02)),
    )


@pytest.mark.parametrize("address", ["", "rpi3.lan", "$(reboot)"])
def test_a_node_without_a_plain_address_is_asked_for_nowhere(address: str) -> None:
    probe = knocks([node(address)], (22,))

    assert "reboot" not in probe.command
    assert "look_at ''" not in probe.command
    assert list(sightings_of(visit(knocks="ping  0\n"), node(address))) == []


def test_a_file_server_without_ss_tells_nothing_of_connections() -> None:
    missing = Section(name=CONNECTIONS, stdout="", stderr="sh: ss: not found", status=127)

    assert connections(missing) is None
    assert connections(None) is None


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_knocks_are_made_by_every_shell(shell: str) -> None:
    with socket.create_server(("127.54.0.1", 0)) as server:
        port = server.getsockname()[1]
        probe = knocks([node("127.54.0.1"), node("127.54.0.2")], (port,))
        ended = subprocess.run(
            [shell, "-s"], input=probe.command.encode(), capture_output=True, check=True
        )

    lines = ended.stdout.decode().splitlines()
    assert f"tcp 127.54.0.1 {port} 0" in lines
    assert any(line.startswith(f"tcp 127.54.0.2 {port} 1 ") for line in lines)


def test_this_machine_knocks_and_hears_who_is_there() -> None:
    with socket.create_server(("127.54.0.3", 0)) as server:
        port = server.getsockname()[1]

        seen = answered(knocks([node("127.54.0.3")], (port,)))

    [sighting] = sightings_of(seen, node("127.54.0.3"))
    assert sighting.alive
    assert f"{port} open" in sighting.detail


def test_this_machine_says_when_a_client_last_sent_something() -> None:
    with (
        socket.create_server(("127.54.0.4", NFS_PORT)) as server,
        socket.create_connection(server.getsockname(), source_address=("127.54.0.5", 0)) as client,
    ):
        accepted, _ = server.accept()
        client.sendall(b"x")
        accepted.recv(1)
        seen = answered(CONNECTIONS_PROBE)
        accepted.close()

    [sighting] = sightings_of(seen, node("127.54.0.5"))
    assert (sighting.means, sighting.alive) == (Means.NFS, True)
    assert sighting.detail.startswith("sent data 0 s ago")


def test_many_lost_nodes_are_asked_for_by_a_script_of_bounded_length() -> None:
    nodes: Sequence[Node] = [node(f"10.0.1.{number}") for number in range(200)]

    assert knocks(nodes, (22,)).command.count("look_at 10.") == 16
    assert knocks(nodes, (22,)).name == KNOCKS
