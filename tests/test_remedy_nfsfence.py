"""What a file server says of its fence is proof only when nothing is missing from it."""

from __future__ import annotations

from typing import Any

import pytest

from opsd.clock import Deadline, SystemClock
from opsd.cluster.nodeloss.around import CLIENTS, CONNECTIONS
from opsd.cluster.remedy.fences import FenceFailed, Power
from opsd.cluster.remedy.nfsfence import (
    LISTENS,
    OWN,
    STATUS,
    List,
    NfsFence,
    lists,
    read_status,
)
from opsd.cluster.remedy.settings import FenceTable
from opsd.errors import TransientError
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Section
from opsd.testing import MemoryFleet

NAS = Machine(name="nas", address="10.0.0.5", roles=frozenset({Role.NFS_SERVER}))
NODE = "10.0.0.13"
CUT = f"boot yes\nrule yes\nin {NODE}\nkept rpi3 {NODE}\n"
CONNECTION = """\
{unread}      0      10.0.0.5:2049   {peer}:798
\t cubic rto:204 lastsnd:4 lastrcv:{ms} x:1
"""
CLIENT = (
    'clientid: 0x1\naddress: "{address}:798"\nstatus: confirmed\nname: "Linux NFSv4.2 {name}"\n'
)
ANSWERS: dict[str, Section | str] = {
    STATUS: CUT,
    OWN: "1: lo inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.0.0.5/24 brd 10.0.0.255\n",
    LISTENS: "0 64 0.0.0.0:2049 0.0.0.0:*\n",
    CONNECTIONS: "",
    CLIENTS: "",
}


def fence(*machines: Machine, **changes: Section | str) -> NfsFence:
    """The fence for rpi3 at a server that answers so."""
    answers = ANSWERS | {name.replace("_", "-"): one for name, one in changes.items()}
    fleet = MemoryFleet((NAS, *machines), {"nas": answers})
    return NfsFence(
        table=FenceTable.model_validate(
            {"name": "files", "type": "nfs", "nodes": ("*",), "server": "nas"}
            | {"serves": ("10.0.0.5",)}
        ),
        node="rpi3",
        addresses=(NODE,),
        open_fleet=lambda _deadline: fleet,
    )


def soon() -> Deadline:
    return Deadline.after(30, SystemClock())


def failing(name: str, stderr: str, status: int = 1) -> dict[str, Any]:
    return {name: Section(name=name, stdout="", stderr=stderr, status=status)}


def test_all_of_it_is_proof() -> None:
    assert fence().status(soon()) is Power.OFF


@pytest.mark.parametrize(
    "said",
    [
        f"boot no\nrule yes\nin {NODE}\nkept rpi3 {NODE}\n",
        f"boot yes\nrule no\nin {NODE}\nkept rpi3 {NODE}\n",
        f"boot yes\nrule yes\nkept rpi3 {NODE}\n",
        f"boot yes\nrule yes\nin {NODE}\n",
        f"boot yes\nrule yes\nin {NODE}\nkept rpi4 {NODE}\n",
        f"boot yes\nrule yes\nin {NODE}\nkept rpi3 10.0.0.14\n",
    ],
)
def test_half_of_it_is_neither_cut_nor_free(said: str) -> None:
    assert fence(fence=said).status(soon()) is Power.PARTLY


@pytest.mark.parametrize(
    "said", ["boot yes\nrule yes\n", "boot no\nrule no\nkept rpi4 10.0.0.9\n"]
)
def test_a_node_of_which_the_server_knows_nothing_is_free(said: str) -> None:
    assert fence(fence=said).status(soon()) is Power.ON


@pytest.mark.parametrize(
    ("unread", "ms", "power"),
    [(0, 900, Power.OFF), (0, 899, Power.PARTLY), (1, 900, Power.PARTLY)],
)
def test_a_connection_is_dead_when_it_was_silent_and_all_of_it_was_read(
    unread: int, ms: int, power: Power
) -> None:
    said = CONNECTION.format(unread=unread, ms=ms, peer=NODE)

    assert fence(nfs_connections=said).status(soon()) is power


def test_connections_of_others_are_no_matter() -> None:
    said = CONNECTION.format(unread=9, ms=1, peer="10.0.0.14")

    assert fence(nfs_connections=said).status(soon()) is Power.OFF


@pytest.mark.parametrize(
    ("address", "name", "power"),
    [
        (NODE, "rpi3", Power.OFF),
        ("10.0.1.13", "rpi3", Power.PARTLY),  # its other network card
        ("10.0.1.13", "rpi3/0a1b", Power.PARTLY),
        ("10.0.1.13", "rpi33", Power.OFF),
    ],
)
def test_a_client_with_the_nodes_name_from_elsewhere_is_the_node(
    address: str, name: str, power: Power
) -> None:
    said = CLIENT.format(address=address, name=name)

    assert fence(nfs_clients=said).status(soon()) is power


def test_an_address_that_is_another_machines_is_never_cut() -> None:
    router = Machine(name="router", address=NODE)

    with pytest.raises(FenceFailed, match=r"10\.0\.0\.13 is router, which stays"):
        fence(router).cut(soon())


def test_its_own_entry_among_the_machines_is_no_other_machine() -> None:
    assert fence(Machine(name="rpi3", address=NODE)).status(soon()) is Power.OFF


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (failing("fence", "opsd-fence: nft is missing: install nftables"), "nft is missing"),
        (failing("fence", "sudo: a password is required"), "sudo refuses it; write to"),
        (failing("fence", "sudo: opsd-fence: command not found"), "install it (docs/remedy.md"),
        (failing("fence", "", 137), "exit status 137"),
        ({"fence": "boot maybe\n"}, "not understood: boot maybe"),
        ({"fence": ""}, "not understood: nothing"),
    ],
)
def test_a_server_that_does_not_say_is_an_error_that_says_why(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(FenceFailed, match="fence files: status rpi3: ") as failed:
        fence(**changes).status(soon())

    assert said in str(failed.value)


def test_an_answer_that_was_cut_off_proves_nothing() -> None:
    whole = dict(ANSWERS)
    del whole[CLIENTS]
    fleet = MemoryFleet((NAS,), {"nas": whole})
    broken = NfsFence(
        table=fence().table, node="rpi3", addresses=(NODE,), open_fleet=lambda _deadline: fleet
    )

    with pytest.raises(FenceFailed, match="cut off"):
        broken.status(soon())


def test_each_file_server_is_asked_once_whom_it_keeps_out() -> None:
    one = fence().table
    other = one.model_copy(update={"name": "more", "nodes": ("x",)})
    gone = one.model_copy(update={"name": "old", "server": "nas2"})
    fleet = MemoryFleet(
        (NAS, Machine(name="nas2", address="10.0.0.6")),
        {"nas": ANSWERS, "nas2": TransientError("log in to nas2: no route")},
    )

    found = list(lists((one, other, gone), lambda _deadline: fleet, soon()))

    assert found[0] == List(server="nas", nodes={"rpi3": frozenset({NODE})})
    assert found[1].problem.endswith("log in to nas2: no route")
    assert len(found) == 2


def test_every_line_of_the_server_is_understood_or_refused() -> None:
    kept = read_status(f"{CUT}kept rpi4 10.0.0.14\nkept rpi4 10.244.0.0/24\n")

    assert (kept.boots, kept.rules, kept.dropped) == (True, True, frozenset({NODE}))
    assert kept.nodes["rpi4"] == frozenset({"10.0.0.14", "10.244.0.0/24"})
    for wrong in (f"{CUT}what\n", "boot yes\n", "rule yes\n", f"{CUT}in a b\n"):
        with pytest.raises(ValueError, match=r"."):
            read_status(wrong)
