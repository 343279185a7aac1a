"""Machines with trouble of their own, read over real SSH as a user without rights, or with few.

The kernel is that of the host: its log is shared, and so are its disks. A disk with SMART and a
sensor exist only as files that are mounted over `/sys/block` and `/sys/class/thermal`, with a
program that prints what smartctl would.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs import node_health
from opsd.clock import SystemClock
from opsd.model import Change, Finding, OpenFinding, Outcome, Run, Severity
from opsd.runner import execute
from opsd.testing import context
from opsd.triage import transitions
from tests.conftest import Machines
from tests.rig import fleets, hungfs, sshd
from tests.rig.machines import Network, RealMachine
from tests.rig.parts import program

pytestmark = pytest.mark.real

SMARTCTL = "/usr/sbin/smartctl -n standby -j -i -H -A -l error -l selftest /dev/sd[a-z]"
RIGHTS = [f"opsd ALL=(root) NOPASSWD: {command}" for command in ("/usr/bin/dmesg", SMARTCTL)]
SICK = {
    "smartctl": {"exit_status": 8},
    "model_name": "WDC",
    "serial_number": "1",
    "smart_status": {"passed": False},
}


class Opsd:
    """Runs of the job, one after another, on machines of a test."""

    def __init__(self, scratch: Path, *machines: RealMachine) -> None:
        self.scratch, self.machines = scratch, machines
        self.open: dict[tuple[str, str], OpenFinding] = {}

    def run(self, **settings: object) -> Run:
        ctx = context(
            scratch=self.scratch,
            fleet=fleets.fleet_of(self.machines, connect_timeout_s=3.0),
            clock=SystemClock(),
            job="node-health",
        )
        run = execute(node_health.JOB, node_health.Settings.model_validate(settings), ctx)
        for change in transitions(run, list(self.open.values()), at=datetime.now(UTC)):
            key = change.finding.key
            if change.change is Change.RESOLVED:
                del self.open[key]
            else:
                self.open[key] = OpenFinding(
                    finding=change.finding, job=run.job, opened_at=change.opened_at
                )
        return run

    def found(self, **settings: object) -> dict[tuple[str, str], Finding]:
        """What a run that completed has found, by check and what is below the machine."""
        run = self.run(**settings)
        assert run.outcome is Outcome.COMPLETED, run.error
        return {(one.check, "/".join(one.subject.split("/")[2:])): one for one in run.findings}


@pytest.fixture
def rpi(real_machines: Machines) -> RealMachine:
    (machine,) = real_machines(1)
    machine.sudoers(*RIGHTS)
    return machine


@pytest.fixture
def opsd(tmp_path: Path, rpi: RealMachine) -> Opsd:
    return Opsd(tmp_path, rpi)


@dataclass
class Disk:
    """A small ext4 of a machine, mounted at /srv."""

    machine: RealMachine
    device: str  #: ``loop3``

    def run(self, command: str) -> None:
        self.machine.run(command, check=True)


@contextlib.contextmanager
def small_disk(machine: RealMachine, image: Path) -> Iterator[Disk]:
    """A disk of 24 MiB and 64 files; it goes with the machine that has it mounted."""
    with image.open("wb") as file:
        file.truncate(24 * 2**20)
    options = ("-q", "-F", "-N", "64", "-m", "0", "-O", "^has_journal", "-e", "remount-ro")
    subprocess.run([program("mkfs.ext4"), *options, image], check=True)
    losetup = program("losetup")
    made = subprocess.run(
        [losetup, "--find", "--show", image], check=True, capture_output=True, text=True
    )
    device = made.stdout.strip()
    number = device.removeprefix("/dev/loop")
    try:
        machine.run(f"mknod /dev/loop{number} b 7 {number}", check=True)
        machine.run(f"mkdir -p /srv; mount /dev/loop{number} /srv", check=True)
        machine.write("/etc/fstab", f"/dev/loop{number} /srv ext4 defaults 0 2\n")
    finally:
        # From now on it lives as long as it is mounted somewhere.
        subprocess.run([losetup, "--detach", device], check=True)
    yield Disk(machine, f"loop{number}")


@pytest.fixture
def disk(rpi: RealMachine, tmp_path: Path) -> Iterator[Disk]:
    with small_disk(rpi, tmp_path / "disk.img") as made:
        yield made


def fake_sys(machine: RealMachine, place: str, files: dict[str, str]) -> None:
    """Mount a folder over one of /sys."""
    for name, content in files.items():
        machine.write(f"/fake{place}/{name}", content)
    machine.run(f"mount --bind /fake{place} {place}", check=True)


def fake_smartctl(machine: RealMachine, document: object) -> None:
    """A disk `sda`, and a program that prints what smartctl would."""
    fake_sys(machine, "/sys/block", {"sda/size": "1000\n", "sda/device/model": "WDC\n"})
    machine.write("/usr/sbin/smartctl", f"#!/bin/sh\necho '{json.dumps(document)}'\n", mode=0o755)


class TestFileSystems:
    def test_a_disk_that_is_full_is_told_until_there_is_room(self, opsd: Opsd, disk: Disk) -> None:
        key = ("health.disk_full", "filesystem/srv")
        before = opsd.found()
        disk.run("head -c 30000000 /dev/zero >/srv/big || true")
        full = opsd.found()
        disk.run("rm /srv/big")

        after = opsd.found()

        assert key not in before
        assert full[key].severity is Severity.CRITICAL
        assert full[key].facts["available_mib"] == 0
        assert key not in after
        assert ("health.disk_full", "machine/rpi1/filesystem/srv") not in opsd.open

    def test_a_disk_without_room_for_files_is_told(self, opsd: Opsd, disk: Disk) -> None:
        disk.run("i=0; while [ $i -lt 90 ]; do i=$((i+1)); touch /srv/$i || break; done")

        found = opsd.found()

        assert found["health.inodes_full", "filesystem/srv"].severity is Severity.CRITICAL
        assert ("health.disk_full", "filesystem/srv") not in found

    def test_a_disk_that_was_made_read_only_is_told(self, opsd: Opsd, disk: Disk) -> None:
        disk.run("mount -o remount,ro /srv")

        assert ("health.read_only", "filesystem/srv") in opsd.found()

    def test_damage_that_ext4_finds_is_told_with_what_the_kernel_said(
        self, opsd: Opsd, disk: Disk
    ) -> None:
        before = opsd.found()
        Path(f"/sys/fs/ext4/{disk.device}/trigger_fs_error").write_text("planted by a test")

        found = opsd.found()

        damage = found["health.filesystem_errors", "filesystem/srv"]
        assert ("health.filesystem_errors", "filesystem/srv") not in before
        assert damage.severity is Severity.CRITICAL
        assert ("health.read_only", "filesystem/srv") in found
        assert disk.device in str(found["health.kernel_log", "kernel/filesystem"].facts["line"])

    def test_lines_of_the_kernel_are_counted_once(self, opsd: Opsd, disk: Disk) -> None:
        Path(f"/sys/fs/ext4/{disk.device}/trigger_fs_error").write_text("planted by a test")
        first = opsd.found()["health.kernel_log", "kernel/filesystem"]

        second = opsd.found()["health.kernel_log", "kernel/filesystem"]

        # Other tests on the same kernel can add some, but nobody repeats them.
        more = int(str(second.facts["lines_within_a_day"])) - int(
            str(first.facts["lines_within_a_day"])
        )
        assert more < int(str(first.facts["lines_within_a_day"]))


class TestHardware:
    def test_a_dying_disk_is_told_and_stays_told_between_two_readings(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        fake_smartctl(rpi, SICK)
        first = opsd.found()

        second = opsd.found()

        key = ("health.disk_failing", "machine/rpi1/disk/sda")
        assert first["health.disk_failing", "disk/sda"].severity is Severity.CRITICAL
        assert ("health.disk_failing", "disk/sda") not in second
        assert key in opsd.open

    def test_a_disk_that_was_replaced_is_no_finding_any_more(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        fake_smartctl(rpi, SICK)
        opsd.found()
        rpi.write(
            "/usr/sbin/smartctl",
            "#!/bin/sh\n"
            'echo \'{"smartctl": {"exit_status": 0}, "smart_status": {"passed": true}}\'\n',
            mode=0o755,
        )

        opsd.found(smart_every=timedelta(0))

        assert ("health.disk_failing", "machine/rpi1/disk/sda") not in opsd.open

    def test_the_real_smartctl_knows_what_it_is_asked(self, opsd: Opsd, rpi: RealMachine) -> None:
        fake_sys(rpi, "/sys/block", {"sda/size": "1000\n"})

        unknown = opsd.found()["health.unknown", "health"]

        assert "/dev/sda failed: No such device" in str(unknown.facts["disk_sda"])

    def test_heat_is_read(self, opsd: Opsd, rpi: RealMachine) -> None:
        zone = {"thermal_zone0/type": "cpu-thermal\n", "thermal_zone0/temp": "86000\n"}
        fake_sys(rpi, "/sys/class/thermal", zone)

        found = opsd.found()

        assert found["health.hot", "temperature"].severity is Severity.CRITICAL

    def test_a_worn_chip_is_read(self, opsd: Opsd, rpi: RealMachine) -> None:
        chip = "mmcblk0/device"
        files = {f"{chip}/type": "MMC\n", f"{chip}/name": "BJTD4R\n"}
        fake_sys(rpi, "/sys/block", {**files, f"{chip}/life_time": "0x0b 0x0b\n"})

        found = opsd.found()

        assert found["health.flash_worn", "flash/mmcblk0"].severity is Severity.CRITICAL


class TestRights:
    def test_with_the_few_rights_of_the_page_everything_is_read(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        fake_smartctl(rpi, SICK)

        assert ("health.unknown", "health") not in opsd.found()

    def test_without_rights_the_rest_is_read_and_the_missing_told(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        fake_smartctl(rpi, SICK)
        rpi.write("/usr/local/bin/dmesg", "")  # not executable: never used
        rpi.run("chmod 700 /usr/bin/dmesg", check=True)
        rpi.sudoers()

        found = opsd.found()

        unknown = found["health.unknown", "health"]
        assert "sudo: a password is required" in str(unknown.facts["disk_sda"])
        assert "kernel_log" in unknown.facts
        assert "docs/nodes.md" in unknown.remedy
        assert found["health.state", ""].facts["not_read"] == "kernel log, disk sda"
        assert found["health.state", ""].summary.startswith("nothing found; not read: kernel log")

    def test_a_missing_smartctl_is_told_with_the_package(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        fake_sys(rpi, "/sys/block", {"sda/size": "1000\n"})
        rpi.run("rm -f /usr/sbin/smartctl", check=True)

        unknown = opsd.found()["health.unknown", "health"]

        assert unknown.remedy == "apt-get install smartmontools"

    def test_what_is_left_out_is_neither_read_nor_missed(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        fake_sys(rpi, "/sys/block", {"sda/size": "1000\n"})

        found = opsd.found(leave_out=("disk",))

        assert ("health.unknown", "health") not in found


class TestMachines:
    def test_a_dead_mount_is_not_touched(self, tmp_path: Path) -> None:
        with hungfs.mounted(), sshd.running() as here:  # in this order: here sees the mount
            fleet = fleets.fleet_with(fleets.loopback_access(here, "here"))
            ctx = context(scratch=tmp_path, fleet=fleet, clock=SystemClock(), job="node-health")
            run = execute(node_health.JOB, node_health.Settings(), ctx)

        assert run.outcome is Outcome.COMPLETED
        assert "health.state" in {one.check for one in run.findings}
        assert "machine/here/filesystem" not in run.unseen

    def test_a_question_that_hangs_costs_only_itself(self, opsd: Opsd, rpi: RealMachine) -> None:
        rpi.write("/usr/bin/dmesg", "#!/bin/sh\nexec sleep 600\n", mode=0o755)

        found = opsd.found()

        assert found["health.unknown", "health"].facts == {
            "kernel_log": "it did not answer in time, and was ended"
        }
        assert found["health.state", ""].facts["not_read"] == "kernel log"

    def test_a_machine_that_is_off_hides_nothing_and_spoils_no_other(
        self, network: Network, tmp_path: Path
    ) -> None:
        sick, well = network.machine("rpi1"), network.machine("rpi2")
        fake_smartctl(sick, SICK)
        opsd = Opsd(tmp_path, sick, well)
        opsd.found()
        sick.kill()

        run = opsd.run()

        assert run.outcome is Outcome.COMPLETED
        assert {one.check for one in run.findings if one.subject == "machine/rpi1"} == {
            "machine.unreachable"
        }
        assert ("health.state", "machine/rpi2") in {one.key for one in run.findings}
        assert ("health.disk_failing", "machine/rpi1/disk/sda") in opsd.open
        assert "machine/rpi1" in run.unseen

    def test_a_machine_that_comes_back_is_not_away_any_more(
        self, opsd: Opsd, rpi: RealMachine
    ) -> None:
        opsd.found()
        rpi.kill()
        opsd.run()
        away = ("machine.unreachable", "machine/rpi1") in opsd.open
        rpi.start()

        found = opsd.found()

        assert away
        assert ("machine.unreachable", "machine/rpi1") not in opsd.open
        assert found["health.state", ""].facts["starts_in_a_day"] == 2

    def test_six_machines_are_one_pass(self, real_machines: Machines, tmp_path: Path) -> None:
        machines = real_machines(6)

        run = Opsd(tmp_path, *machines).run()

        states = [one.subject for one in run.findings if one.check == "health.state"]
        assert sorted(states) == [f"machine/rpi{n}" for n in range(1, 7)]
