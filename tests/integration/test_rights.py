"""The lines for sudo in docs/nodes.md: all that opsd asks for, on a real machine, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsd.hosts.entrance import entrances
from opsd.hosts.machine import Role
from opsd.hosts.rights import RIGHTS
from opsd.hosts.roster import Entry
from tests.rig import machines as rig
from tests.rig.fleets import asked, fleet_of
from tests.rig.machines import AUTHORIZED_KEYS, RealMachine

pytestmark = pytest.mark.real

PAGE = Path(__file__).resolve().parents[2] / "docs/nodes.md"
EVERYWHERE = frozenset(Role)


def block(kind: str, beginning: str = "") -> str:
    """The block of the page, of a language, in which this stands."""
    fenced = PAGE.read_text().split("```")[1::2]
    texts = [text.partition("\n")[2] for text in fenced if text.startswith(f"{kind}\n")]
    (one,) = (text for text in texts if beginning in text)
    return one


def public_key(machine: RealMachine) -> str:
    lines = machine.run(f"cat /{AUTHORIZED_KEYS}", check=True).out
    return lines[lines.index("ssh-ed25519") :].strip()


@pytest.fixture(scope="module")
def rpi() -> Iterator[RealMachine]:
    """A machine on which every program is there, if only by its name."""
    with rig.network() as network:
        made = network.machine("rpi1")
        for path in sorted(set(re.findall(r"NOPASSWD: (\S+)", block("sudoers")))):
            made.run(f"test -x {path} || (echo '#!/bin/sh' >{path}; chmod 755 {path})", check=True)
        made.write("/etc/sudoers.d/opsd", block("sudoers"), mode=0o440)
        yield made


def entry_of(machine: RealMachine) -> Entry:
    return Entry(name=machine.name, address=machine.address, roles=EVERYWHERE)


def test_sudo_understands_the_lines(rpi: RealMachine) -> None:
    checked = rpi.run("visudo -cf /etc/sudoers.d/opsd")

    assert (checked.status, checked.out) == (0, "/etc/sudoers.d/opsd: parsed OK\n")


def test_the_lines_allow_all_that_opsd_asks_for(rpi: RealMachine) -> None:
    fleet = fleet_of([rpi], machines=(entry_of(rpi),))

    (entrance,) = entrances(fleet, fleet.roster().machines)

    assert entrance.problem is None
    assert [right.command for right in entrance.missing] == []
    assert entrance.allowed == RIGHTS
    assert (entrance.user, entrance.is_root) == ("opsd", False)


def test_without_the_lines_everything_is_missing(rpi: RealMachine) -> None:
    fleet = fleet_of([rpi], machines=(entry_of(rpi),))
    rpi.sudoers("opsd ALL=(root) NOPASSWD: /usr/bin/dmesg")

    (entrance,) = entrances(fleet, fleet.roster().machines)
    rpi.write("/etc/sudoers.d/opsd", block("sudoers"), mode=0o440)

    assert [right.command for right in entrance.allowed] == ["dmesg"]
    assert len(entrance.missing) == len(RIGHTS) - 1


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/shadow",
        "dmesg --clear",
        "smartctl -s off /dev/sda",
        "smartctl -n standby -j -i -H -A -l error -l selftest /dev/sda -s off",
        "smartctl -n standby -j -i -H -A -l error -l selftest /dev/../etc/shadow",
        "tail -n 100 /etc/shadow",
        "needrestart -b -l -w -r a",
        "timeout -s KILL 5 cat /etc/shadow",
        "timeout -s KILL 5 stat -f -c %T -- /var/lib/kubelet/pods/x /etc/shadow",
        "grep -s . /etc/shadow",
        "grep -r . /etc",
        "sed -n p /etc/shadow",
        "find / -delete",
        "tar -xf - -C /",
    ],
)
def test_the_lines_allow_nothing_else(rpi: RealMachine, command: str) -> None:
    visit = asked(fleet_of([rpi]), f"$root {command}")["rpi1"]

    assert visit.sections["q0"].is_refused


def test_the_way_to_set_a_user_up_works_as_it_stands_there(rpi: RealMachine) -> None:
    key = public_key(rpi)
    rpi.run("userdel -r opsd")
    text = block("sh", "useradd").replace("ssh-ed25519 AAAA... opsd", key)

    rpi.run(text.replace("10.0.0.0/24", "10.213.0.0/16"), check=True)
    visit = asked(fleet_of([rpi]), "id -un")["rpi1"]

    assert visit.problem is None
    assert visit.sections["q0"].stdout == "opsd\n"


def test_the_forced_command_changes_nothing_for_opsd(rpi: RealMachine) -> None:
    line = block("", 'command="sh -s"').replace("ssh-ed25519 AAAA... opsd", public_key(rpi))

    rpi.write(f"/{AUTHORIZED_KEYS}", line.replace("10.0.0.4", "10.213.0.0/16"))
    rpi.run(f"chown opsd /{AUTHORIZED_KEYS}", check=True)
    visit = asked(fleet_of([rpi]), "id -un")["rpi1"]

    assert visit.problem is None
    assert visit.sections["q0"].stdout == "opsd\n"


def test_the_stricter_wrapper_runs_what_was_read_and_nothing_else(rpi: RealMachine) -> None:
    rpi.write("/usr/local/bin/opsd-only", block("sh", "opsd-only: auth"), mode=0o755)
    forced = 'command="/usr/local/bin/opsd-only",restrict'
    rpi.write(f"/{AUTHORIZED_KEYS}", f"{forced} {public_key(rpi)}\n")
    rpi.run(f"chown opsd /{AUTHORIZED_KEYS}", check=True)

    refused = str(asked(fleet_of([rpi]), "id -un")["rpi1"].problem)
    digest = refused.partition("not allowed: ")[2][:64]
    rpi.write("/etc/opsd-scripts", f"{digest}\n")
    allowed = asked(fleet_of([rpi]), "id -un")["rpi1"]
    other = asked(fleet_of([rpi]), "id -u")["rpi1"]

    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert allowed.problem is None
    assert allowed.sections["q0"].stdout == "opsd\n"
    assert "not allowed" in str(other.problem)
