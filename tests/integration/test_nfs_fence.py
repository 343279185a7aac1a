"""A node is kept from a real server by real rules, and only what holds is believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from opsd.clock import Deadline
from opsd.cluster.remedy.fences import FenceFailed, Power
from opsd.cluster.remedy.nfsfence import NfsFence
from opsd.cluster.remedy.settings import FenceTable
from opsd.errors import DeadlineExceeded
from tests.rig.fileserver import PROGRAM, SUDOERS, Service, boot, serving
from tests.rig.fleets import access_to, fleet_with, within
from tests.rig.machines import Network, RealMachine

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture
def rpi3(network: Network) -> RealMachine:
    return network.machine("rpi3")


@pytest.fixture
def nas(network: Network) -> RealMachine:
    return network.machine("nas")


@pytest.fixture
def files(nas: RealMachine) -> Iterator[Service]:
    with serving(nas) as service:
        yield service


def fence(nas: RealMachine, node: RealMachine, **changes: Any) -> NfsFence:
    """The fence for a node, by a fleet that knows both machines."""
    table = {"name": "files", "type": "nfs", "nodes": ("rpi*",), "server": nas.name}
    access = access_to([nas, node])
    return NfsFence(
        table=FenceTable.model_validate(table | {"serves": (nas.address,)} | changes),
        node=node.name,
        addresses=(node.address,),
        open_fleet=lambda deadline: fleet_with(access).until(deadline),
    )


def soon() -> Deadline:
    return within(60)


def test_an_open_connection_is_dead_and_a_new_one_hears_nothing(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    client = files.client(rpi3)
    client.write("before")
    assert files.gets("before")

    fence(nas, rpi3).cut(soon())
    client.write("while cut off")

    assert not files.gets("while", within_s=2)
    assert files.connects(rpi3) == "silence"
    assert fence(nas, rpi3).status(soon()) is Power.OFF


def test_what_was_queued_is_written_as_soon_as_the_fence_is_lifted(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    client = files.client(rpi3)
    fence(nas, rpi3).cut(soon())
    client.write("queued")
    assert not files.gets("queued", within_s=1)

    fence(nas, rpi3).give_back(soon())

    assert files.gets("queued")  # why it is lifted only after a reboot
    assert fence(nas, rpi3).status(soon()) is Power.ON
    assert files.connects(rpi3) == "open"


def test_only_the_files_are_cut_and_only_from_this_node(
    files: Service, network: Network, nas: RealMachine, rpi3: RealMachine
) -> None:
    other = network.machine("rpi4")

    fence(nas, rpi3).cut(soon())

    assert files.connects(other) == "open"
    assert rpi3.run(f"timeout 2 bash -c 'exec 3<>/dev/tcp/{nas.address}/22'").status == 0


def test_a_node_that_is_cut_off_already_is_only_looked_at(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    del files
    fence(nas, rpi3).cut(soon())
    nas.sudoers("opsd ALL=(root) NOPASSWD: " + PROGRAM + " status *", *SUDOERS[1:])

    fence(nas, rpi3).cut(soon())  # which could not change anything now

    assert fence(nas, rpi3).status(soon()) is Power.OFF


def test_two_nodes_are_kept_out_and_given_back_each_for_itself(
    files: Service, network: Network, nas: RealMachine, rpi3: RealMachine
) -> None:
    other = network.machine("rpi4")
    fence(nas, rpi3).cut(soon())
    fence(nas, other).cut(soon())

    fence(nas, rpi3).give_back(soon())

    assert files.connects(rpi3) == "open"
    assert files.connects(other) == "silence"
    assert fence(nas, other).keeps_out(soon()) == {"rpi4": frozenset({other.address})}


def test_a_server_that_boots_keeps_out_whom_it_kept_out_before(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    fence(nas, rpi3).cut(soon())
    files.close()
    nas.kill()
    nas.start()
    files.start()

    lost = fence(nas, rpi3).status(soon())
    boot(nas)

    assert lost is Power.PARTLY  # this rig has no systemd that would have run the unit
    assert fence(nas, rpi3).status(soon()) is Power.OFF
    assert files.connects(rpi3) == "silence"


def test_a_fence_that_the_server_lost_is_set_again(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    fence(nas, rpi3).cut(soon())
    nas.run("nft flush ruleset", check=True)
    lost = (fence(nas, rpi3).status(soon()), files.connects(rpi3))

    fence(nas, rpi3).cut(soon())

    assert lost == (Power.PARTLY, "open")
    assert files.connects(rpi3) == "silence"


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("systemctl disable opsd-fence.service", "a reboot of nas would let it in again"),
        ("mv /usr/sbin/nft /usr/sbin/nft.gone", "nft is missing: install nftables"),
        (f"rm {PROGRAM}", "command not found"),
        (
            "rm /etc/sudoers.d/opsd",
            "sudo refuses it; write to /etc/sudoers.d/opsd-fence: opsd ALL",
        ),
        ("pkill -f '[c]reate_server'", "nothing listens on port 2049"),
        ("mv /bin/ss /bin/ss.gone", "nothing listens on port 2049"),
        (f"printf '#!/bin/sh\\necho what\\n' >{PROGRAM}", "answered what is not understood: what"),
    ],
)
def test_what_would_make_it_no_proof_is_an_error_and_nothing_is_done(
    files: Service, nas: RealMachine, rpi3: RealMachine, broken: str, said: str
) -> None:
    del files
    nas.run(broken, check=True)

    with pytest.raises(FenceFailed, match="files: off rpi3") as failed:
        fence(nas, rpi3).cut(soon())

    assert said in str(failed.value)
    assert "opsd" not in nas.run("nft list ruleset || nft.gone list ruleset").out
    assert nas.run("ls /var/lib/opsd-fence").out == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"serves": ("10.99.99.99",)}, "10.99.99.99 is not an address of nas"),
        ({"serves": ("127.0.0.1",)}, "127.0.0.1 is not an address of nas"),
        ({"serves": ("fd00::5",)}, "fd00::5 is not an IPv4 address only"),
        ({"serves": ("no-such-name.invalid",)}, "no-such-name.invalid is not an IPv4"),
        ({"server": "other"}, "there is no machine other"),
        ({"server": "rpi3"}, "there is no machine rpi3 to do it"),
    ],
)
def test_a_wrong_server_is_an_error_and_nothing_is_done(
    files: Service, nas: RealMachine, rpi3: RealMachine, changes: dict[str, Any], said: str
) -> None:
    del files

    with pytest.raises(FenceFailed) as failed:
        fence(nas, rpi3, **changes).cut(soon())

    assert said in str(failed.value)
    assert nas.run("nft list ruleset").out == ""


def test_the_file_server_itself_is_never_kept_out(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    del files
    mine = fence(nas, rpi3)
    by_name = dataclasses.replace(mine, addresses=(nas.address,))
    by_network = dataclasses.replace(mine, addresses=(rpi3.address, nas.address[:-2] + "0/24"))

    for wrong in (by_name, by_network, dataclasses.replace(mine, addresses=())):
        with pytest.raises(FenceFailed):
            wrong.cut(soon())

    assert nas.run(f"{PROGRAM} cut rpi3 {nas.address}").status == 1
    assert nas.run("nft list ruleset").out == ""


def test_a_cut_that_does_not_hold_is_an_error(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    """Another program puts a rule before ours the moment that they are made."""
    del files
    nas.run("mv /usr/sbin/nft /usr/sbin/nft.real", check=True)
    wrapper = (
        '#!/bin/sh\n/usr/sbin/nft.real "$@"; status=$?\n'
        '[ "$1" = -f ] && /usr/sbin/nft.real insert rule inet opsd prerouting accept\n'
        "exit $status\n"
    )
    nas.write("/usr/sbin/nft", wrapper, mode=0o755)

    with pytest.raises(FenceFailed, match="the rules on nas are not those of opsd-fence"):
        fence(nas, rpi3).cut(soon())

    assert fence(nas, rpi3).status(soon()) is Power.PARTLY


def test_a_server_that_does_not_answer_is_an_error_in_time(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    del files
    mine = fence(nas, rpi3, timeout="3s")
    nas.unplug()

    with pytest.raises(FenceFailed, match="files: status rpi3"):
        mine.status(soon())
    with pytest.raises(DeadlineExceeded):
        mine.status(within(1))


def test_a_connection_that_still_brings_data_is_no_proof(
    files: Service, nas: RealMachine, rpi3: RealMachine
) -> None:
    """The node has another address, which nobody told opsd of: here its real one."""
    client = files.client(rpi3)
    nas.run(f"{PROGRAM} cut rpi3 10.99.0.3", check=True)
    mine = dataclasses.replace(fence(nas, rpi3), addresses=("10.99.0.3",))
    known = dataclasses.replace(mine, addresses=(rpi3.address,))

    client.write("alive")
    assert files.gets("alive")
    said = known.status(soon())

    assert said is Power.PARTLY
