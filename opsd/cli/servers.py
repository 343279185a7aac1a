"""Which PostgreSQL server a restore or a drill goes to, and with which programs.

A server is named as in the configuration, as it is found in the cluster or, on a borrowed
laptop, by its address: ``postgres://USER@HOST:PORT`` with the password in ``PGPASSWORD``.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from jobs import postgres_backup
from opsd.backup.postgres import servers as pgservers
from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.restore import Into
from opsd.clients.pgserver import Server
from opsd.clients.postgres import PsycopgPostgres
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError
from opsd.progress import Progress
from opsd.secrets import Secret

if TYPE_CHECKING:
    from opsd.configfile import Config

PASSWORD_VARIABLE = "PGPASSWORD"  # noqa: S105 - the name of a variable
SCHEMES = ("postgres", "postgresql")
DEFAULT_PORT = 5432
_OR_ADDRESS = "or give an address: --server postgres://USER@HOST:PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a restore works with besides its server."""

    config: Config | None
    deadline: Deadline
    progress: Progress
    identity: Path | None = None  #: age identity file
    owners: bool = True


def target(name: str, means: Means) -> Into:
    """The server of this name or address.

    Raises:
        ConfigError: the configuration has no such server.
        click.UsageError: not an address.
    """
    server = _from_address(name) if "://" in name else _by_name(name, means)
    return _into(server, _client_dirs(means.config), means)


@contextlib.contextmanager
def scratch(name: str, means: Means) -> Iterator[Into]:
    """A server for drills: the named one, or an embedded one that is gone afterwards."""
    if name:
        yield target(name, means)
        return
    from opsd.clients.embedded import embedded_postgres  # noqa: PLC0415 - an extra

    with tempfile.TemporaryDirectory(prefix="opsd-drill-") as directory:
        Path(directory).chmod(0o755)  # the server runs as nobody when root runs opsd
        place = Path(directory) / "pg"
        means.progress.update("start the embedded PostgreSQL")
        settings = ("fsync=off", "full_page_writes=off")
        with embedded_postgres(place, deadline=means.deadline, settings=settings) as embedded:
            means.progress.finish("start the embedded PostgreSQL")
            server = Server(
                name="embedded",
                host=str(embedded.socket_dir),
                port=embedded.port,
                user=embedded.user,
                sslmode="disable",
            )
            dirs = (embedded.bin_dir, *_client_dirs(means.config))
            yield _into(server, dirs, means)


def _into(server: Server, client_dirs: tuple[Path, ...], means: Means) -> Into:
    return Into(
        postgres=PsycopgPostgres(),
        server=server,
        tools=pgtools.installed(client_dirs, deadline=means.deadline),
        deadline=means.deadline,
        progress=means.progress,
        identity=means.identity,
        owners=means.owners,
    )


def _settings(config: Config | None) -> postgres_backup.Settings | None:
    entry = config.jobs.get(postgres_backup.JOB.name) if config else None
    settings = entry.settings if entry else None
    return settings if isinstance(settings, postgres_backup.Settings) else None


def _client_dirs(config: Config | None) -> tuple[Path, ...]:
    settings = _settings(config)
    return settings.client_dirs if settings else ()


def _by_name(name: str, means: Means) -> Server:
    settings = _settings(means.config)
    servers = {table.name: table for table in settings.servers} if settings else {}
    if name in servers:
        return pgservers.server_of(servers[name])
    if means.config and settings and settings.searches_cluster():
        return _in_cluster(name, means.config, settings, means.deadline)
    known = ", ".join(servers) or "none"
    raise ConfigError(f"there is no server {name}; configured: {known}; {_OR_ADDRESS}")


def _in_cluster(
    name: str, config: Config, settings: postgres_backup.Settings, deadline: Deadline
) -> Server:
    """The server of this name that nobody wrote down."""
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - for clusters only
    from opsd.clients.kube.access import runs_in_cluster  # noqa: PLC0415 - likewise
    from opsd.cluster.postgres_discovery import search  # noqa: PLC0415 - likewise
    from opsd.cluster.postgres_reading import Namespaces  # noqa: PLC0415 - likewise

    found = search(
        Wiring(config, SystemClock()).kube(deadline),
        Namespaces(include=settings.namespaces, exclude=settings.exclude_namespaces),
        configured=[pgservers.server_of(table) for table in settings.servers],
        in_cluster=runs_in_cluster(),
        only=name,
    )
    for one in found.located:
        return one.server
    reasons = [f"{one.finding.summary}; {one.finding.remedy}" for one in found.refused]
    known = ", ".join(one.name for one in found.known) or "none"
    reason = "; ".join(reasons) or f"found in the cluster: {known}"
    raise ConfigError(f"there is no server {name}: {reason}; {_OR_ADDRESS}")


def _from_address(address: str) -> Server:
    parts = urlsplit(address)
    try:
        port = parts.port or DEFAULT_PORT
    except ValueError:
        port = 0
    if parts.scheme not in SCHEMES or not parts.hostname or not port:
        raise click.UsageError(f"{address} is not an address: postgres://USER@HOST:PORT")
    if parts.password:
        raise click.UsageError(f"a password does not stand in an address: set {PASSWORD_VARIABLE}")
    password = Secret(f"env:{PASSWORD_VARIABLE}") if os.environ.get(PASSWORD_VARIABLE) else None
    return Server(
        name=parts.hostname,
        host=unquote(parts.hostname),
        port=port,
        user=unquote(parts.username or "postgres"),
        password=password,
    )
