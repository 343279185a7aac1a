"""Which servers the configuration names, and which of their databases are wanted.

What is done with them is elsewhere and takes `Target`s, so that servers found in a cluster
can join those that somebody wrote down.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from opsd.backup.postgres.source import SCRATCH_PREFIX
from opsd.clients.pginspect import Database
from opsd.clients.pgserver import Server, SslMode
from opsd.config import SecretRef, Table


class ServerTable(Table):
    """One PostgreSQL server."""

    name: str = Field(
        min_length=1, max_length=60, description="part of the backups' names; never change it"
    )
    host: str = Field(
        min_length=1,
        description="name, address, or absolute path of a socket directory; not a pooler",
        examples=["postgres.databases.svc"],
    )
    port: int = Field(5432, ge=1, le=65535, description="TCP port, or number of the socket")
    user: str = Field(
        "opsd_backup", min_length=1, description="role; its least rights: docs/postgres.md"
    )
    password: SecretRef | None = Field(
        None, description="of the role; none for peer or trust", examples=["env:OPSD_PG_PASSWORD"]
    )
    sslmode: Literal[
        "auto", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"
    ] = Field(
        "auto",
        description="as in libpq; auto is verify-full with ca_file, and prefer without",
    )
    ca_file: Path | None = Field(
        None,
        description="certificates of the authority that signed the server's",
        examples=["/etc/opsd/postgres-ca.pem"],
    )
    maintenance_database: str = Field(
        "postgres", min_length=1, description="where the list of databases is asked for"
    )
    databases: tuple[str, ...] = Field(
        ("*",), min_length=1, description="names or patterns (* ?) of what is dumped"
    )
    exclude: tuple[str, ...] = Field((), description="names or patterns of what is not")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server and which of its databases are wanted."""

    server: Server
    databases: tuple[str, ...] = ("*",)  #: names or patterns
    exclude: tuple[str, ...] = ()

    def wants(self, database: str) -> bool:
        """Whether the configuration asks for this database."""
        return _matches(database, self.databases) and not _matches(database, self.exclude)


def targets(tables: Iterable[ServerTable]) -> tuple[Target, ...]:
    """The servers of the configuration."""
    return tuple(
        Target(server=server_of(table), databases=table.databases, exclude=table.exclude)
        for table in tables
    )


def server_of(table: ServerTable) -> Server:
    """The server that a table of the configuration describes."""
    automatic: SslMode = "verify-full" if table.ca_file else "prefer"
    return Server(
        name=table.name,
        host=table.host,
        port=table.port,
        user=table.user,
        password=table.password,
        sslmode=automatic if table.sslmode == "auto" else table.sslmode,
        sslrootcert=table.ca_file,
        maintenance_database=table.maintenance_database,
    )


def is_dumped(database: Database) -> bool:
    """Whether a database is one of its owner's: no template, open for connections."""
    return (
        database.allows_connections
        and not database.is_template
        and not database.name.startswith(SCRATCH_PREFIX)
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == one or fnmatch.fnmatchcase(name, one) for one in patterns)
