"""Nodes of the test control plane that are real machines: what one says, the other is.

The kubelet is the fake one; the machine behind it has the node's address, boot id and machine id,
so that whoever logs in finds what the cluster says.

Limits: the machines have no systemd and no control groups of their own. What systemd would say of
the kubelet is printed by a program in its place; a container is a process of the machine in a
real control group of the host.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rig.kubeapi import eventually
from tests.rig.kubelet import FakeNode
from tests.rig.machines import Network, RealMachine

CGROUPS = Path("/sys/fs/cgroup/pids")
SYSTEMCTL = "#!/bin/sh\nprintf 'LoadState=loaded\\nActiveState={state}\\n'\n"


@dataclass(frozen=True, slots=True)
class RealNode:
    """One of them."""

    node: FakeNode
    machine: RealMachine

    @property
    def name(self) -> str:
        """Of both."""
        return self.node.name

    def lose_power(self) -> None:
        """Both are gone."""
        self.node.lose_power()
        self.machine.kill()

    def reboot(self) -> None:
        """The machine is up again; its kubelet is not."""
        self.machine.start()
        self._set_up()

    def come_back(self) -> None:
        """So is its kubelet, which tells of the boot."""
        self.node.boot_id = self.machine.boot_id
        self.node.come_back()

    def kubelet_is(self, state: str) -> None:
        """What systemd says."""
        self.machine.write("/usr/bin/systemctl", SYSTEMCTL.format(state=state), mode=0o755)

    def _set_up(self) -> None:
        self.machine.run("mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir /sys/fs/cgroup/kubepods")
        self.kubelet_is("active")


def real_node(network: Network, node: FakeNode) -> RealNode:
    """Give a node a machine; its kubelet tells of it at the next beat."""
    machine = network.machine(node.name)
    machine.write("/etc/machine-id", f"{uuid.uuid5(uuid.NAMESPACE_DNS, node.name).hex}\n")
    node.ip, node.boot_id = machine.address, machine.boot_id
    node.contradict()
    made = RealNode(node, machine)
    made._set_up()
    return made


@contextlib.contextmanager
def container(machine: RealMachine, pod_uid: str) -> Iterator[None]:
    """A process of a pod."""
    group = CGROUPS / f"kubepods-{secrets.token_hex(4)}" / f"pod{pod_uid}"
    group.mkdir(parents=True)
    procs = group / "cgroup.procs"
    into = f'echo $$ >{procs} && exec "$@"'
    process = subprocess.Popen(["sh", "-c", into, "sh", *machine.entering(), "sleep", "600"])
    try:
        eventually(lambda: len(procs.read_text().split()) > 1)  # and the one on the machine
        yield
    finally:
        for pid in procs.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        process.wait()
        eventually(lambda: not procs.read_text())
        group.rmdir()
        group.parent.rmdir()
