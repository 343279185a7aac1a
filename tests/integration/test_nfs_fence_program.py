"""The program on the file server does what it says in every shell, whatever it is told."""

from __future__ import annotations

import pytest

from tests.rig.fileserver import PROGRAM, furnish
from tests.rig.machines import Network, RealMachine

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SHELLS = ("dash", "bash", "busybox sh")


@pytest.fixture
def nas(network: Network) -> RealMachine:
    machine = network.machine("nas")
    furnish(machine)
    return machine


def test_it_cuts_tells_and_lifts_in_every_shell(nas: RealMachine) -> None:
    said = {}
    for shell in SHELLS:
        program = f"{shell} {PROGRAM}"
        nas.run(f"{program} cut rpi3 10.0.0.13 10.244.3.0/24", check=True)
        cut = nas.run(f"{program} status 10.0.0.13 10.0.0.14 10.244.3.0/24", check=True).out
        nas.run(f"{program} lift rpi3", check=True)
        said[shell] = cut.split("\n"), nas.run(f"{program} status 10.0.0.13", check=True).out

    cut_lines = [
        "boot yes",
        "rule yes",
        "in 10.0.0.13",
        "in 10.244.3.0/24",
        "kept rpi3 10.0.0.13",
        "kept rpi3 10.244.3.0/24",
        "",
    ]
    assert said == dict.fromkeys(SHELLS, (cut_lines, "boot yes\nrule no\n"))


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_no_node_or_no_address_of_one_changes_nothing(
    nas: RealMachine, shell: str
) -> None:
    addresses = (
        *("0.0.0.0/0", "10.0.0.0/8", "10.0.0.13/33", "10.0.0.13/", "10.0.0.13/24/24", "''"),
        *("127.0.0.1", "239.1.1.1", "0.1.2.3", "255.255.255.255", "10.0.0", "10.0.0.1.2"),
        *("10.0.0.256", "010.0.0.1", "fd00::13", "'10.0.0.13; flush ruleset'", "'10.0.0.13 }'"),
        *(nas.address, f"{nas.address}/24", f"{nas.address}/16"),
    )
    names = ("''", "../x", "'a b'", "-x", ".x", "X", "'*'", "'a\nb'")
    calls = [f"cut rpi3 {one}" for one in addresses]
    calls += [f"cut rpi3 10.0.0.13 {one}" for one in addresses]
    calls += [f"{verb} {name}" for name in names for verb in ("lift", "cut")]
    calls += [f"cut {name} 10.0.0.13" for name in names]
    calls += ["", "what", "cut", "cut rpi3", "lift", "lift a b", "status '$(reboot)'"]

    accepted = [call for call in calls if nas.run(f"{shell} {PROGRAM} {call}").status == 0]

    assert accepted == []
    assert nas.run("nft list ruleset").out == ""
    assert nas.run("ls -A /var/lib/opsd-fence").out == ""


def test_other_rules_of_the_server_stay_as_they_are(nas: RealMachine) -> None:
    nas.run("nft add table inet mine && nft add chain inet mine c", check=True)
    before = nas.run("nft list ruleset").out

    nas.run(f"{PROGRAM} cut rpi3 10.0.0.13", check=True)
    nas.run(f"{PROGRAM} lift rpi3", check=True)

    assert before
    assert nas.run("nft list ruleset").out == before


def test_it_takes_root(nas: RealMachine) -> None:
    refused = nas.run(f"su opsd -s /bin/sh -c '{PROGRAM} cut rpi3 10.0.0.13'")

    assert refused.status == 1
    assert "only root may do this" in refused.err


def test_a_call_that_is_overtaken_takes_nothing_back(nas: RealMachine) -> None:
    """The first reads what is to be, stands still, and would make it so after the second."""
    nas.run("mv /usr/sbin/nft /usr/sbin/nft.real", check=True)
    slow_once = (
        "#!/bin/sh\n"
        'if [ "$1" = -f ] && mkdir /run/first 2>/dev/null; then\n'
        'rules=$(cat); sleep 1; echo "$rules" | /usr/sbin/nft.real -f -\n'
        'else exec /usr/sbin/nft.real "$@"; fi\n'
    )
    nas.write("/usr/sbin/nft", slow_once, mode=0o755)
    begun = "while [ ! -d /run/first ]; do sleep 0.05; done"

    nas.run(
        f"{PROGRAM} cut rpi3 10.0.0.13 & {begun}; {PROGRAM} cut rpi4 10.0.0.14; wait", check=True
    )

    said = nas.run(f"{PROGRAM} status 10.0.0.13 10.0.0.14").out
    assert "in 10.0.0.13\nin 10.0.0.14\n" in said


def test_the_unit_is_understood_by_systemd(nas: RealMachine) -> None:
    verified = nas.run("systemd-analyze verify opsd-fence.service")

    assert verified.status == 0
    assert "opsd-fence" not in verified.err
