"""Real servers as children of the test process: they cannot outlive it, not even SIGKILL.

Each server gets the parent-death signal, a process group and a log of its own. The signal is
tied to the thread that starts it, so servers are started from the main thread only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.rig.parts import program

HOST = "127.0.0.1"
LOWEST_PORT, HIGHEST_PORT = 12000, 32000
START_S = 60.0  # on a loaded machine; an idle one needs a tenth


class Server:
    """One running server process, with the faults that a process can have."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        as_user: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start `argv`; `as_user` is a user name, empty for oneself."""
        self.log = log
        become = [f"--reuid={as_user}", "--regid=nogroup", "--clear-groups"] if as_user else []
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                [program("setpriv"), *become, "--pdeathsig", "KILL", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, and id of the process group."""
        return self._popen.pid

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._popen.poll() is None

    def await_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` is true; fail with the log when the server ends or takes too long."""
        give_up_at = time.monotonic() + START_S
        while not ready():
            if not self.running() or time.monotonic() > give_up_at:
                self.kill()
                raise RuntimeError(
                    f"server did not start:\n{self.log.read_text(errors='replace')}"
                )
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def freeze(self) -> None:
        """Stop the group: connections are accepted by the kernel, and nothing answers."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        self.send(signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = 10.0) -> None:
        """Ask the server to end; kill what has not ended in time."""
        self.thaw()
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=within_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the group, as a power cut would."""
        self.send(signal.SIGKILL)
        self._popen.wait()


def free_port() -> int:
    """A port that nothing listens on, below those that the kernel hands out by itself."""
    while True:
        port = LOWEST_PORT + secrets.randbelow(HIGHEST_PORT - LOWEST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
