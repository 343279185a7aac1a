"""What a real machine says of its mounts, however these behave; nothing hangs with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsd.hosts.fleet import Visit
from opsd.hosts.machine import Machine
from opsd.hosts.nfs import answers, probes
from opsd.hosts.nfs.answers import Answers, Look, Sight
from opsd.hosts.script import Script
from tests.conftest import Machines
from tests.rig import cgroups, nfsmount
from tests.rig.fleets import fleet_of
from tests.rig.home import ROOT
from tests.rig.machines import RealMachine
from tests.rig.nfsmount import KIND, Mode, NfsMount

pytestmark = pytest.mark.real

POD = "0a1b2c3d-0000-4000-8000-000000000001"
VOLUME = f"/var/lib/kubelet/pods/{POD}/volumes/kubernetes.io~nfs/pvc-7"
KINDS = ("nfs", "nfs4", KIND)
LOOKS = f"ps -eo stat,args | grep -c '[s]tat -f -c %T -- {VOLUME}'"


@pytest.fixture
def rpi1(real_machines: Machines) -> RealMachine:
    (machine,) = real_machines(1)
    machine.run(f"mkdir -p {VOLUME} && chmod 700 /var/lib/kubelet/pods", check=True)
    return machine


@pytest.fixture
def mount(rpi1: RealMachine) -> Iterator[NfsMount]:
    with nfsmount.mounted(rpi1, VOLUME, source="nas:/export/db") as mounted:
        yield mounted


def asked(machine: RealMachine) -> Answers:
    fleet = fleet_of([machine])
    (visit,) = fleet.visit(fleet.roster().machines, Script.of(probes.probes(KINDS)))
    assert visit.problem is None
    return answers.read(visit)


def looked(machine: RealMachine) -> Look:
    found = asked(machine)
    (mounted,) = found.mounts
    return found.look(mounted)


@pytest.mark.parametrize(
    ("mode", "sight", "detail"),
    [
        (Mode.ANSWER, Sight.ANSWERED, ""),
        (Mode.SLOW, Sight.ANSWERED, ""),
        (Mode.STALE, Sight.STALE, "Stale file handle"),
        (Mode.DELETED, Sight.STALE, "Stale file handle"),
        (Mode.FAIL, Sight.ERROR, "Input/output error"),
        (Mode.HANG, Sight.HUNG, "no answer within 5 s"),
    ],
)
def test_each_way_to_fail_is_told_from_the_others(
    rpi1: RealMachine, mount: NfsMount, mode: Mode, sight: Sight, detail: str
) -> None:
    mount.become(mode)

    look = looked(rpi1)

    assert (look.sight, look.detail) == (sight, detail)
    assert (look.seconds >= nfsmount.SLOW_S) == (mode is Mode.SLOW)


def test_a_look_that_cannot_be_ended_is_the_only_one(rpi1: RealMachine, mount: NfsMount) -> None:
    mount.become(Mode.HANG)
    first, second, third = looked(rpi1), looked(rpi1), looked(rpi1)
    left = rpi1.run(LOOKS).out.split()

    mount.become(Mode.ANSWER)
    released = looked(rpi1)

    assert not first.is_waiting
    assert second.is_waiting
    assert third.is_waiting
    assert left == ["1"]
    assert released.sight is Sight.ANSWERED
    assert rpi1.run(LOOKS).out.split() == ["0"]


def test_a_look_leaves_no_files_behind(rpi1: RealMachine, mount: NfsMount) -> None:
    mount.become(Mode.HANG)

    looked(rpi1)

    assert rpi1.run("ls -A /dev/shm /tmp | grep opsd").out == ""


def test_a_mount_that_hangs_hides_no_other(rpi1: RealMachine, mount: NfsMount) -> None:
    with nfsmount.mounted(rpi1, "/mnt/a b", source="nas:/export/other"):
        mount.become(Mode.HANG)
        found = asked(rpi1)

    sights = {one.export: found.look(one).sight for one in found.mounts}
    assert sights == {"/export/db": Sight.HUNG, "/export/other": Sight.ANSWERED}


def test_without_the_right_a_look_is_refused_and_no_mount_counts_as_well(
    rpi1: RealMachine, mount: NfsMount
) -> None:
    rpi1.sudoers("opsd ALL=(root) NOPASSWD: /bin/true")

    look = looked(rpi1)

    assert mount.mode is Mode.ANSWER
    assert look.sight is Sight.REFUSED
    assert "password is required" in look.detail


def test_the_line_of_the_documentation_is_enough(rpi1: RealMachine, mount: NfsMount) -> None:
    line = f"opsd ALL=(root) NOPASSWD: {probes.RIGHT}"
    assert f"\n{line}\n" in (ROOT / "docs/nodes.md").read_text()
    rpi1.sudoers(line)

    assert mount.mode is Mode.ANSWER
    assert looked(rpi1).sight is Sight.ANSWERED


def test_a_machine_without_mounts_says_so_and_is_not_unreadable(rpi1: RealMachine) -> None:
    found = asked(rpi1)

    assert (found.mounts, found.unreadable) == ((), ())


def test_a_process_that_waits_is_told_with_its_pod(rpi1: RealMachine, mount: NfsMount) -> None:
    with cgroups.cgroup(f"kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice") as group:
        mount.become(Mode.HANG)
        # Killed, it waits on, as a program on a dead file server does.
        rpi1.run(f"ls {VOLUME} >/dev/null 2>&1 & echo $! >/run/ls.pid")
        group.take(rpi1, "ls")
        rpi1.run("kill -KILL $(cat /run/ls.pid)", check=True)
        found = asked(rpi1)
        mount.become(Mode.ANSWER)

    assert [(task.name, task.pod) for task in found.tasks] == [("ls", POD)]


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox ash"])
def test_every_shell_understands_the_questions(
    rpi1: RealMachine, mount: NfsMount, shell: str
) -> None:
    mount.become(Mode.STALE)
    script = Script.of(probes.probes(KINDS))

    said = rpi1.run(shell, stdin=script.text)

    found = answers.read(
        Visit(
            machine=Machine(name="rpi1", address=rpi1.address),
            sections=script.read(said.out.encode(), said.err.encode()),
        )
    )
    (mounted,) = found.mounts
    assert found.unreadable == ()
    assert found.look(mounted).sight is Sight.STALE
