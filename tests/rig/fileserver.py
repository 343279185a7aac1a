"""A file server with the fence of opsd, and clients that write to it over one TCP connection.

The kernel of the tests has no NFS, so what listens on the port of NFS keeps every byte that it is
sent; what a client wrote while it was cut off is queued by its kernel, as a real client's is.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.machines import RealMachine

NFS_PORT = 2049
PROGRAM = "/usr/local/sbin/opsd-fence"
UNIT = "/etc/systemd/system/opsd-fence.service"
FILES = Path(__file__).parents[2] / "deploy/fence"
SUDOERS = (
    f"opsd ALL=(root) NOPASSWD: {PROGRAM}",
    "opsd ALL=(root) NOPASSWD: /usr/bin/find /proc/fs/nfsd/clients -name info -exec cat {} +",
)
TRIES_S = 20.0
LOOK_S = 0.1

_SERVE = """\
import socket, threading
def keep(connection):
    with open("/srv/received", "ab", buffering=0) as kept:
        while data := connection.recv(65536):
            kept.write(data)
server = socket.create_server(("", 2049))
while True:
    threading.Thread(target=keep, args=(server.accept()[0],), daemon=True).start()
"""
_WRITE = """\
import socket, sys
connection = socket.create_connection((sys.argv[1], 2049), timeout=5)
connection.settimeout(None)
print("connected", flush=True)
for line in sys.stdin:
    connection.sendall(line.encode())
"""


def furnish(machine: RealMachine) -> None:
    """Install the fence, as the documentation says."""
    machine.write(PROGRAM, (FILES / "opsd-fence").read_bytes(), mode=0o755)
    machine.write(UNIT, (FILES / "opsd-fence.service").read_bytes())
    machine.run("systemctl enable opsd-fence.service", check=True)
    machine.sudoers(*SUDOERS)


def boot(machine: RealMachine) -> None:
    """What systemd would do with the unit after a boot."""
    machine.run(f"{PROGRAM} apply", check=True)


@dataclass
class Service:
    """The server program on a machine; it ends with its machine."""

    machine: RealMachine
    _processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self) -> None:
        """Listen."""
        self._run(self.machine, _SERVE)
        self._await(lambda: f":{NFS_PORT} " in self.machine.run("ss -Hltn").out)

    @property
    def received(self) -> str:
        """All that was ever written."""
        return self.machine.run("cat /srv/received 2>/dev/null").out

    def client(self, machine: RealMachine) -> Client:
        """A connection of another machine that is open already."""
        process = self._run(machine, _WRITE, self.machine.address)
        assert process.stdout
        assert process.stdout.readline() == "connected\n"
        return Client(process)

    def connects(self, machine: RealMachine) -> str:
        """What becomes of a new connection."""
        knock = f"exec 3<>/dev/tcp/{self.machine.address}/{NFS_PORT}"
        done = machine.run(f"timeout 2 bash -c '{knock}'")
        return {0: "open", 124: "silence"}.get(done.status, done.err)

    def gets(self, text: str, *, within_s: float = TRIES_S) -> bool:
        """Whether something arrives in time."""
        give_up_at = time.monotonic() + within_s
        while text not in self.received:
            if time.monotonic() > give_up_at:
                return False
            time.sleep(LOOK_S)
        return True

    def close(self) -> None:
        """End the program and all clients."""
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert stream
                    stream.close()

    def _run(self, machine: RealMachine, program: str, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*machine.entering(), "python3", "-c", program, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def _await(self, is_so: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + TRIES_S
        while not is_so():
            assert time.monotonic() < give_up_at
            time.sleep(LOOK_S)


@dataclass
class Client:
    """An open connection."""

    process: subprocess.Popen[str]

    def write(self, text: str) -> None:
        """Hand it to the client's kernel, which sends it as soon as it can."""
        assert self.process.stdin
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def serving(machine: RealMachine) -> Iterator[Service]:
    """A file server with the fence installed."""
    furnish(machine)
    service = Service(machine)
    try:
        service.start()
        yield service
    finally:
        service.close()
