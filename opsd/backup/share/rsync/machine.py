"""Run the same few commands here or on another machine over SSH.

Limits: the other machine needs a POSIX shell with GNU coreutils and findutils (not busybox)
and a login that may run them. Host keys are never accepted unseen.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from opsd.clients.process import Completed, Process, run
from opsd.clock import Deadline
from opsd.errors import ConfigError, PermanentError, TransientError

CONNECT_S = 10
ALIVE_S = 15  # between two keep-alives; four without an answer end the connection
SSH_FAILED = 255
_URL = re.compile(r"ssh://(?:(?P<user>[^@/]+)@)?(?P<host>[^:/]+)(?::(?P<port>\d+))?(?P<path>/.+)")
_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^:/]+):(?P<path>/.+)")
_HARMLESS = re.compile(r"[A-Za-z0-9_.%-]+")
_FOR_GOOD = ("Permission denied", "Host key verification failed", "Could not resolve hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This machine, or one that is reached over SSH."""

    host: str = ""  #: empty: this one
    user: str = ""
    port: int = 22
    identity: Path | None = None  #: private key file
    known_hosts: Path | None = None  #: the only host keys that are trusted

    @property
    def is_remote(self) -> bool:
        """Whether commands go over SSH."""
        return bool(self.host)

    def name(self, path: str) -> str:
        """How rsync and people write `path` on this machine."""
        who = f"{self.user}@" if self.user else ""
        return f"{who}{self.host}:{path}" if self.host else path

    def ssh(self) -> tuple[str, ...]:
        """The SSH command without host, with every question answered beforehand."""
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(CONNECT_S),
            "ServerAliveInterval": str(ALIVE_S),
            "ServerAliveCountMax": "4",
        }
        if self.known_hosts:
            options |= {
                "UserKnownHostsFile": str(self.known_hosts),
                "GlobalKnownHostsFile": "/dev/null",
            }
        if self.identity:
            options |= {"IdentitiesOnly": "yes"}
        given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        identity = ("-i", str(self.identity)) if self.identity else ()
        return ("ssh", "-p", str(self.port), *given, *identity)

    def argv(self, *command: str) -> tuple[str, ...]:
        """`command` as this machine must be told it."""
        if not self.host:
            return command
        who = f"{self.user}@{self.host}" if self.user else self.host
        return (*self.ssh(), "--", who, shlex.join(command))

    def start(self, *command: str, deadline: Deadline, stdin: bool = False) -> Process:
        """A running command."""
        return Process(self.argv(*command), deadline=deadline, stdin=stdin)

    def ask(self, *command: str, deadline: Deadline) -> Completed:
        """Run a command whose exit status the caller judges.

        Raises:
            TransientError, PermanentError: the machine could not be reached.
        """
        done = run(self.argv(*command), deadline=deadline)
        if self.host and done.returncode == SSH_FAILED:
            raise self.unreachable(done.complaint())
        return done

    def do(self, *command: str, deadline: Deadline) -> bytes:
        """Run a command that must succeed; returns its stdout.

        Raises:
            TransientError: it failed; the text has its last complaint.
        """
        done = self.ask(*command, deadline=deadline)
        if done.returncode:
            raise TransientError(f"{self.name(command[0])}: {done.complaint()}")
        return done.stdout

    def unreachable(self, complaint: str) -> PermanentError | TransientError:
        """The error for an SSH connection that failed."""
        if any(reason in complaint for reason in _FOR_GOOD):
            return PermanentError(
                f"ssh to {self.host}: {complaint}; try: ssh -p {self.port} {self.host}, and "
                "check ssh_identity and known_hosts"
            )
        return TransientError(f"ssh to {self.host}: {complaint}")


def parse_destination(
    text: str, *, identity: Path | None, known_hosts: Path | None
) -> tuple[Machine, str]:
    """``/path``, ``user@host:/path`` or ``ssh://user@host:2222/path``.

    Raises:
        ConfigError: neither; or a file's path that cannot be passed through rsync.
    """
    if text.startswith("/"):
        return Machine(), text.rstrip("/")
    match = _URL.fullmatch(text) or _SCP.fullmatch(text)
    if match is None or not all(
        _HARMLESS.fullmatch(match[part] or "x") for part in ("user", "host")
    ):
        raise ConfigError(
            f"destination {text!r}: expected /path, user@host:/path or ssh://user@host:port/path"
        )
    for path in (identity, known_hosts):
        if path is not None and re.search(r"[\s'\"]", str(path)):
            raise ConfigError(f"{path}: the path of an SSH file must not contain spaces or quotes")
    fields = match.groupdict()
    machine = Machine(
        host=fields["host"],
        user=fields["user"] or "",
        port=int(fields.get("port") or 22),
        identity=identity,
        known_hosts=known_hosts,
    )
    return machine, fields["path"].rstrip("/")
