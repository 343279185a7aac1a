"""Find the pg_dump that fits a server, and run it without telling anybody the password.

A pg_dump older than its server refuses; a newer one writes an archive that may not go back
into that server. So the client of the server's own major version is chosen, else the next
newer one and the manifest says so. Nothing from the world stands in an argument: a database
named ``host=evil dbname=x`` would be obeyed there. Names and addresses travel in libpq's
environment variables, the password in a file that exists only in memory.

Limits: the programs are those of Debian's packages (``/usr/lib/postgresql/N/bin``), of
the directories in ``client_dirs``, or on PATH; one of each major version is used.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opsd.clients.pgserver import APPLICATION, CONNECT_TIMEOUT_S, Server
from opsd.clients.process import run
from opsd.clock import Deadline
from opsd.errors import ConfigError, PermanentError

DEBIAN_DIRS = "/usr/lib/postgresql"
PROGRAMS = ("pg_dump", "pg_dumpall", "pg_restore")
# A server whose machine lost its power is noticed within two minutes, not after two hours.
KEEPALIVE = "keepalives_idle=30 keepalives_interval=10 keepalives_count=6 tcp_user_timeout=90000"
ZSTD, GZIP = "zstd:1", "gzip:1"

_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)[^ \n]*)")
_COMPRESS_METHOD_SINCE = 16  # major version of --compress=METHOD

_compression_lock = threading.Lock()
_compression: dict[Path, str] = {}


class ClientMissing(PermanentError):
    """No usable pg_dump for this server is installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The client programs of one PostgreSQL version."""

    bin_dir: Path
    major: int
    version: str  #: ``18.6``

    def program(self, name: str) -> str:
        """The path of ``pg_dump`` and its like."""
        return str(self.bin_dir / name)


def installed(client_dirs: Sequence[Path], *, deadline: Deadline) -> tuple[Tools, ...]:
    """Every usable set of client programs, newest first, one per major version.

    Args:
        client_dirs: directories with programs, before Debian's and PATH.
        deadline: for asking the programs their versions.
    """
    found: dict[int, Tools] = {}
    for bin_dir in _candidates(client_dirs):
        tools = _ask(bin_dir, deadline)
        if tools is not None:
            found.setdefault(tools.major, tools)
    return tuple(found[major] for major in sorted(found, reverse=True))


def for_dump(tools: Sequence[Tools], server_major: int) -> Tools:
    """The programs that dump a server best: its own major, else the next newer.

    Raises:
        ClientMissing: only older ones are installed, or none; the text names the package.
    """
    usable = [one for one in tools if one.major >= server_major]
    if not usable:
        have = ", ".join(one.version for one in tools) or "none"
        raise ClientMissing(
            f"no pg_dump {server_major} or newer is installed (found: {have});"
            f" apt-get install postgresql-client-{server_major}"
        )
    return min(usable, key=lambda one: one.major)


def for_restore(tools: Sequence[Tools], *, dumped_with: int, server_major: int) -> Tools:
    """The pg_restore that reads an archive and speaks to a server best.

    It must not be older than the pg_dump that wrote the archive; one of the server's own
    major is best, because newer ones set parameters that older servers do not know.

    Raises:
        ClientMissing: only older ones are installed, or none.
    """
    usable = [one for one in tools if one.major >= dumped_with]
    if not usable:
        have = ", ".join(one.version for one in tools) or "none"
        raise ClientMissing(
            f"no pg_restore {dumped_with} or newer is installed (found: {have});"
            f" apt-get install postgresql-client-{dumped_with}"
        )
    return min(usable, key=lambda one: (abs(one.major - server_major), one.major))


def compression(tools: Tools, *, deadline: Deadline) -> str:
    """``zstd:1`` when these programs can, else ``gzip:1``; asked once per process.

    Measured: zstd:1 is five times faster than gzip:1 and smaller.
    """
    if tools.major < _COMPRESS_METHOD_SINCE:
        return GZIP
    with _compression_lock:
        known = _compression.get(tools.bin_dir)
    if known is None:
        # The build's abilities are checked before the connection, which goes nowhere.
        probe = [tools.program("pg_dump"), "-Fc", f"--compress={ZSTD}", "--no-password"]
        done = run(probe, deadline=deadline, env={"PGHOST": "/nonexistent", "PGDATABASE": "x"})
        known = GZIP if "compress" in done.stderr else ZSTD
        with _compression_lock:
            _compression[tools.bin_dir] = known
    return known


def compress_option(tools: Tools, method: str) -> str:
    """The option as these programs write it: before 16 there is only gzip's level."""
    if tools.major < _COMPRESS_METHOD_SINCE:
        return f"--compress={method.removeprefix('gzip:')}"
    return f"--compress={method}"


def conninfo(database: str) -> str:
    """A connection string that names `database` and nothing else, whatever its name holds.

    For the one option of pg_dumpall that cannot come from the environment.
    """
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


@contextlib.contextmanager
def environment(server: Server, database: str) -> Iterator[Mapping[str, str]]:
    """What a libpq program needs to reach `database`; valid while the context is open.

    Raises:
        ConfigError: the password cannot be read, or cannot stand in a password file.
    """
    env = {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.user,
        "PGDATABASE": database,
        "PGSSLMODE": server.sslmode,
        "PGAPPNAME": APPLICATION,
        "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_S),
        "PGPASSFILE": "/dev/null",  # not the one in our home directory
    }
    if server.sslrootcert is not None:
        env["PGSSLROOTCERT"] = str(server.sslrootcert)
    if server.password is None:
        yield env
        return
    with _password_file(server.name, server.password.reveal()) as path:
        yield {**env, "PGPASSFILE": path}


@contextlib.contextmanager
def _password_file(server: str, password: str) -> Iterator[str]:
    """A password file that is nowhere on disk and ends with this process, however it ends."""
    if "\n" in password or "\r" in password:
        raise ConfigError(f"server {server}: the password holds a line break, libpq takes none")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    descriptor = os.memfd_create("pgpass", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)  # libpq ignores files that others may read
        os.write(descriptor, f"*:*:*:*:{escaped}\n".encode())
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _candidates(client_dirs: Sequence[Path]) -> Iterator[Path]:
    yield from client_dirs
    with contextlib.suppress(OSError):
        yield from sorted(path / "bin" for path in Path(DEBIAN_DIRS).iterdir())
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        if entry:
            yield Path(entry)


def _ask(bin_dir: Path, deadline: Deadline) -> Tools | None:
    """The programs in `bin_dir`, or None when they are not all there or do not run."""
    if not all(os.access(bin_dir / program, os.X_OK) for program in PROGRAMS):
        return None
    if (bin_dir / "pg_dump").resolve().name != "pg_dump":
        return None  # Debian's wrapper script chooses a version by itself
    done = run([str(bin_dir / "pg_dump"), "--version"], deadline=deadline)
    match = _VERSION.search(done.stdout.decode("ascii", "replace"))
    if done.returncode != 0 or match is None:
        return None
    return Tools(bin_dir=bin_dir, major=int(match[2]), version=match[1])
