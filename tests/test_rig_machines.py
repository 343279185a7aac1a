"""The machines of the tests are real: apt, sshd, sudo, and faults that machines really have."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.conftest import Machines
from tests.rig.machines import RealMachine
from tests.rig.parts import program

pytestmark = pytest.mark.real

SENTINEL = "/run/reboot-required.pkgs"


def ssh(machine: RealMachine, command: str) -> subprocess.CompletedProcess[str]:
    known_hosts = machine.network.home / "known_hosts"
    known_hosts.write_text("".join(f"{known.known_host}\n" for known in machine.network.machines))
    options = ("StrictHostKeyChecking=yes", "BatchMode=yes", "ConnectTimeout=2")
    return subprocess.run(
        [
            *(program("ssh"), "-F", "none", "-i", machine.identity_file),
            *("-o", f"UserKnownHostsFile={known_hosts}"),
            *(word for option in options for word in ("-o", option)),
            *(f"{machine.user}@{machine.address}", command),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_apt_says_the_same_every_day_of_what_is_pending(real_machines: Machines) -> None:
    (rpi1,) = real_machines(1)

    said = ssh(rpi1, "LC_ALL=C apt-get -s upgrade").stdout

    pending = [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
    assert pending == ["opsd-fx-absorbed", "opsd-fx-app", "opsd-fx-lib"]
    assert "Inst opsd-fx-lib [1.0] (1.1 Debian-Security:12/oldstable-security [all])" in said
    assert "3 upgraded, 0 newly installed, 0 to remove and 8 not upgraded." in said


def test_a_new_kernel_leaves_the_sentinel_that_debian_itself_writes(
    real_machines: Machines,
) -> None:
    (rpi1,) = real_machines(1)
    before = rpi1.run(f"cat {SENTINEL}").status

    rpi1.run("DEBIAN_FRONTEND=noninteractive apt-get -qq -y install linux-image-opsd", check=True)

    assert before == 1
    assert rpi1.run(f"cat {SENTINEL}").out == "linux-image-6.1.0-99-opsd\n"


def test_kubernetes_packages_are_held_and_the_next_minor_is_one_line_away(
    real_machines: Machines,
) -> None:
    (rpi1,) = real_machines(1)

    held = rpi1.run("apt-mark showhold").out.split()
    rpi1.run("sed -i s/v1.36/v1.37/ /etc/apt/sources.list.d/kubernetes.list && apt-get -qq update")

    assert held == ["kubeadm", "kubectl", "kubelet", "opsd-fx-held"]
    assert "1.37.4-1.1" in rpi1.run("apt-cache madison kubeadm").out
    assert rpi1.run("kubelet --version").out == "Kubernetes v1.36.1\n"


def test_its_user_may_do_as_root_what_sudoers_says_and_no_more(real_machines: Machines) -> None:
    (rpi1,) = real_machines(1)
    rpi1.sudoers("opsd ALL=(root) NOPASSWD: /usr/bin/id")

    allowed, refused = ssh(rpi1, "sudo -n /usr/bin/id -u"), ssh(rpi1, "sudo -n /usr/bin/ls")

    assert (allowed.returncode, allowed.stdout) == (0, "0\n")
    assert refused.returncode == 1
    assert "sudo:" in refused.stderr


def test_machines_see_their_own_processes_and_reach_each_other(real_machines: Machines) -> None:
    rpi1, rpi2 = real_machines(2)

    assert rpi1.run("ping -c1 -W2 " + rpi2.address).status == 0
    assert "pytest" not in rpi1.run("ps ax").out
    assert ssh(rpi1, "hostname").stdout == "rpi1\n"
    assert rpi1.host_key != rpi2.host_key


def test_a_machine_that_was_cut_off_comes_back_with_its_disk_and_another_boot_id(
    real_machines: Machines,
) -> None:
    (rpi1,) = real_machines(1)
    rpi1.write("/etc/note", "kept")
    rpi1.write("/run/note", "lost")
    boot_id = rpi1.boot_id

    rpi1.kill()
    dead = ssh(rpi1, "true")
    rpi1.start()

    assert dead.returncode == 255
    assert ssh(rpi1, "cat /etc/note; ls /run/note").stdout == "kept"
    assert ssh(rpi1, "cat /proc/sys/kernel/random/boot_id").stdout.strip() == rpi1.boot_id
    assert rpi1.boot_id != boot_id


@pytest.mark.parametrize(
    ("fault", "mended", "complaint"),
    [
        ("freeze", "thaw", "timed out during banner exchange"),
        ("unplug", "plug_in", "Connection timed out"),
        ("drop_port", "open_ports", "Connection timed out"),
        ("reject_port", "open_ports", "Connection refused"),
    ],
)
def test_each_fault_is_the_real_one_and_can_be_mended(
    real_machines: Machines, fault: str, mended: str, complaint: str
) -> None:
    (rpi1,) = real_machines(1)

    getattr(rpi1, fault)()
    broken = ssh(rpi1, "true")
    getattr(rpi1, mended)()
    works = ssh(rpi1, "true")

    assert complaint in broken.stderr
    assert works.returncode == 0


def test_a_killed_test_process_leaves_neither_machines_nor_network() -> None:
    started = textwrap.dedent("""\
        import time
        from tests.rig import machines
        with machines.network() as network:
            print(network.machine("rpi1").pid, network.number, flush=True)
            time.sleep(100)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", started],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    ) as tests:
        assert tests.stdout
        pid, number = map(int, tests.stdout.readline().split())
        card = f"opsd-t-{number}"
        was_there = card in {name for _, name in socket.if_nameindex()}

        os.kill(tests.pid, signal.SIGKILL)
        tests.wait()

    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at and (
        Path(f"/proc/{pid}").exists() or card in {name for _, name in socket.if_nameindex()}
    ):
        time.sleep(0.05)
    assert was_there
    assert not Path(f"/proc/{pid}").exists()
    assert card not in {name for _, name in socket.if_nameindex()}
