"""Is this container a PostgreSQL server? Told from its image, ports, variables and labels.

Images are known by the last part of their name, so that mirrors and registries of one's own
do not matter. What only speaks to a server (poolers, exporters, dump jobs, a ``psql`` that
waits) is none, though it often has the same image, port or variables.

Limits: a server in an image that nobody knows, without port 5432 declared, is not seen; the
annotation ``opsd.dev/backup: "true"`` says that it is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from opsd.clients.kube.objects import Container, PodTemplate

PORT = 5432
PORT_NAMES = ("postgresql", "postgres", "tcp-postgresql", "tcp-postgres", "pg", "db")
REPLICA = frozenset({"read", "readonly", "replica", "secondary", "slave", "standby"})

_COMPONENT = "app.kubernetes.io/component"
_NAME = "app.kubernetes.io/name"
_ROLE_LABELS = (_COMPONENT, "role", "component")
_MODES = ("POSTGRES_REPLICATION_MODE", "POSTGRESQL_REPLICATION_MODE", "PG_MODE")
_SERVERS = re.compile(
    r"""(
        postgres(ql)?([-_](repmgr|ha|ssl|alpine|\d[\w.-]*))?   # docker-library, bitnami, sclorg
      | (docker-)?postgis | timescaledb(-ha)? | pgvector | pgvecto-rs | pgvecto\.rs
      | vchord-postgres | vchord-suite | pgautoupgrade | spilo(-cdp)?(-\d+)?
      | crunchy-postgres(-gis)?(-ha)? | edb-postgres(-advanced)? | percona-distribution-postgresql
      | percona-postgresql-operator
    )""",
    re.VERBOSE,
)
_CLIENTS = re.compile(r"bouncer|pgpool|pgcat|odyssey|supavisor|exporter|backup|haproxy|pgadmin")
_STARTS_A_SERVER = re.compile(r"postgres|entrypoint|patroni|run\.sh|launch\.sh|spilo|repmgr")
_WRAPPERS = frozenset({"sh", "bash", "ash", "tini", "dumb-init", "catatonit", "gosu", "su-exec"})
_OWN_VARIABLES = frozenset({"PGDATA", "POSTGRES_INITDB_ARGS", "POSTGRESQL_DATA_DIR"})


def image_name(image: str) -> str:
    """``postgres`` of ``registry.lan:5000/mirror/postgres:17@sha256:…``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()


def is_server_image(image: str) -> bool:
    """Whether programs of this image are PostgreSQL servers unless told otherwise."""
    name = image_name(image)
    return bool(_SERVERS.fullmatch(name)) and not _CLIENTS.search(name)


def server_in(template: PodTemplate, *, insisted: bool) -> Container | None:
    """The container that is a PostgreSQL server; None when there is none.

    Args:
        template: the pods of a workload.
        insisted: somebody says that there is one; the likeliest is taken then.
    """
    containers = template.spec.containers
    by_image = [one for one in containers if is_server_image(one.image) and _starts_it(one)]
    by_port = [one for one in containers if _looks_like_it(one, template.metadata.labels)]
    found = by_image or by_port
    if insisted and not found:
        found = [one for one in containers if _sql_port(one)] or list(containers)
    return found[0] if found else None


def serving_port(container: Container) -> int:
    """The port on which a server's container serves SQL, by the likeliest sign."""
    declared = [port.container_port for port in container.ports if port.protocol == "TCP"]
    only = declared[0] if len(declared) == 1 else 0
    return _sql_port(container) or only or PORT


def _sql_port(container: Container) -> int:
    """The declared port that is PostgreSQL's; 0 when none is."""
    ports = [port for port in container.ports if port.protocol == "TCP"]
    named = [port.container_port for port in ports if port.name in PORT_NAMES]
    usual = [port.container_port for port in ports if port.container_port == PORT]
    return next(iter(usual or named), 0)


def is_replica(template: PodTemplate, container: Container) -> bool:
    """Whether it only follows another server, which is the one to back up."""
    labels = template.metadata.labels
    if any(labels.get(label, "").lower() in REPLICA for label in _ROLE_LABELS):
        return True
    return any(
        variable.name in _MODES and variable.value.lower() in REPLICA for variable in container.env
    )


def _starts_it(container: Container) -> bool:
    """Whether what it runs is the image's server and not some other program of the image."""
    if not container.command:
        return not container.args or _is_server_call(container.args)
    words = [*container.command, *container.args]
    first = words[0].rpartition("/")[2]
    if first in _WRAPPERS:
        return bool(_STARTS_A_SERVER.search(" ".join(words[1:])))
    return bool(_STARTS_A_SERVER.search(first))


def _is_server_call(args: tuple[str, ...]) -> bool:
    """Arguments for the image's entry point: options, or the server by name."""
    return args[0].startswith("-") or bool(_STARTS_A_SERVER.search(args[0]))


def _looks_like_it(container: Container, labels: Mapping[str, str]) -> bool:
    """Port 5432 and a sign that it is the server itself."""
    if _CLIENTS.search(image_name(container.image)) or not _sql_port(container):
        return False
    has_own = any(variable.name in _OWN_VARIABLES for variable in container.env)
    return has_own or labels.get(_NAME, "") in ("postgresql", "postgres")
