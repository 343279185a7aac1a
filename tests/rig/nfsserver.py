"""A real NFS server on a real machine: NFS-Ganesha, which needs no kernel of its own.

Frozen, it accepts connections and answers nobody; killed, its port is closed.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.rig.machines import RealMachine
from tests.rig.server import START_S

PORT = 2049
EXPORT = "/export"
_CONFIG = f"""\
NFS_CORE_PARAM {{
    NFS_Port = {PORT}; Protocols = 4; Enable_UDP = false; Enable_NLM = false;
    Enable_RQUOTA = false; mount_path_pseudo = true;
}}
NFSv4 {{
    Grace_Period = 2; Lease_Lifetime = 10; RecoveryBackend = fs; RecoveryRoot = /var/lib/ganesha;
    Graceless = true; UseGetpwnam = true; Only_Numeric_Owners = true;
}}
EXPORT {{
    Export_Id = 1; Path = {EXPORT}; Pseudo = {EXPORT}; Access_Type = RW; SecType = sys;
    Squash = No_Root_Squash; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


@dataclass(frozen=True, slots=True)
class NfsServer:
    """A running server."""

    machine: RealMachine

    @property
    def address(self) -> str:
        """Of its machine."""
        return self.machine.address

    def freeze(self) -> None:
        """Let it accept connections and be silent."""
        self._signal("STOP")

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal("CONT")

    def kill(self) -> None:
        """End it; its port is closed then."""
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        self.machine.run(f"pkill -{name} -x ganesha.nfsd", check=True)


@contextlib.contextmanager
def serving(machine: RealMachine) -> Iterator[NfsServer]:
    """An NFS server, version 4 only, with one export. It ends with its machine."""
    machine.write("/etc/ganesha/opsd.conf", _CONFIG)
    machine.run(f"mkdir -p {EXPORT} /var/lib/ganesha /run/ganesha", check=True)
    # The layers of the machine's own file system have no handles that outlive a restart.
    machine.run(f"mountpoint -q {EXPORT} || mount -t tmpfs tmpfs {EXPORT}", check=True)
    command = "ganesha.nfsd -F -f /etc/ganesha/opsd.conf -L /var/log/ganesha.log -p /run/nfs.pid"
    with subprocess.Popen(
        [*machine.entering(), *command.split()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as starter:
        try:
            _await_export(machine, starter)
            yield NfsServer(machine)
        finally:
            machine.run("pkill -KILL -x ganesha.nfsd")
            starter.kill()


def _await_export(machine: RealMachine, starter: subprocess.Popen[bytes]) -> None:
    url = f"nfs://{machine.address}{EXPORT}?version=4&nfsport={PORT}"
    give_up_at = time.monotonic() + START_S
    while machine.run(f"timeout 2 nfs-ls '{url}'").status != 0:
        if starter.poll() is not None or time.monotonic() > give_up_at:
            log = machine.run("tail -n 20 /var/log/ganesha.log").out
            raise RuntimeError(f"no NFS server on {machine.name}:\n{log}")
        time.sleep(0.05)
