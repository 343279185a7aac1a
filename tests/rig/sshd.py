"""A real sshd on a loopback port, for the current user, with keys made for this test process."""

from __future__ import annotations

import contextlib
import getpass
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rig import scratch
from tests.rig.parts import program
from tests.rig.server import HOST, Server, free_port, listens

PRIVILEGE_SEPARATION = Path("/run/sshd")  # sshd refuses to start as root without it

CONFIG = """\
ListenAddress {host}
Port {port}
HostKey {home}/host_key
AuthorizedKeysFile {home}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
MaxStartups 100
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshServer:
    """A running sshd that lets one key in."""

    host: str
    port: int
    user: str  #: the user that runs the tests
    identity_file: Path
    known_hosts: Path
    server: Server

    @property
    def options(self) -> list[str]:
        """Arguments for ssh(1) that make it use only the keys made here."""
        return [
            *("-F", "none", "-p", str(self.port), "-i", str(self.identity_file)),
            *("-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"),
            *("-o", "IdentitiesOnly=yes"),
        ]


@contextlib.contextmanager
def running() -> Iterator[SshServer]:
    """An sshd of its own."""
    sshd = program("sshd")
    with scratch.directory("sshd") as home:
        port = free_port()
        _write_files(home, port)
        server = Server([sshd, "-D", "-e", "-f", home / "sshd_config"], log=home / "log")
        try:
            server.await_ready(lambda: listens(port))
            yield SshServer(
                host=HOST,
                port=port,
                user=getpass.getuser(),
                identity_file=home / "client_key",
                known_hosts=home / "known_hosts",
                server=server,
            )
        finally:
            server.stop()


def _write_files(home: Path, port: int) -> None:
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "client_key"):
        subprocess.run(
            [
                program("ssh-keygen"),
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                name,
                "-f",
                home / name,
            ],
            check=True,
        )
    (home / "authorized_keys").write_text((home / "client_key.pub").read_text())
    (home / "known_hosts").write_text(f"[{HOST}]:{port} {(home / 'host_key.pub').read_text()}")
    (home / "sshd_config").write_text(CONFIG.format(host=HOST, port=port, home=home))
