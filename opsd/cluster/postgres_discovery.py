"""The PostgreSQL servers of a cluster as somebody would have written them down.

With each that cannot be used comes what is wrong with it. A server that somebody did write down
is left to what stands there. One that cannot be used stops none of the others.

Limits: a server that is written down by an address which the cluster does not know (a node
port, a load balancer) is not recognised and backed up twice; ``opsd.dev/backup: "false"`` on it
ends that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from opsd.clients.pgserver import Server
from opsd.cluster.postgres import Discovery, Found, Problem, find
from opsd.cluster.postgres_reach import beside, reached
from opsd.cluster.postgres_reading import LoginReader, Namespaces, Unresolved, read_objects
from opsd.cluster.unreadable import unreadable
from opsd.errors import ConfigError, OpsdError, PermanentError, TransientError
from opsd.model import Finding, Severity
from opsd.text import printable, shortened

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

SUMMARY_CHARACTERS = 120
PLACE = "cluster/databases"  # the subject of what concerns the search itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A server, and what of it is wanted."""

    server: Server
    databases: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A server, or the search itself, that could not be had."""

    finding: Finding
    may_pass: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """That a server exists, whether or not it can be used."""

    name: str
    created_at: datetime | None  #: by the API server's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search came to."""

    located: tuple[Located, ...] = ()
    refused: tuple[Refused, ...] = ()
    known: tuple[Known, ...] = ()  #: every server that should have backups


def search(
    kube: Kube,
    namespaces: Namespaces,
    *,
    configured: Sequence[Server],
    in_cluster: bool = True,
    only: str = "",
    stack: ExitStack | None = None,
) -> Search:
    """Find the servers that nobody wrote down.

    Args:
        kube: the cluster.
        namespaces: where to look.
        configured: the servers that are written down; what is found of them is left out.
        in_cluster: opsd runs in a pod, so that the names of Services lead somewhere.
        stack: keeps ports of pods forwarded where that is needed; None: none is forwarded.
        only: the name of the one server that is wanted; no other's Secrets are read then.

    Raises:
        DeadlineExceeded: no time is left.
    """
    try:
        reading = read_objects(kube, namespaces)
    except ConfigError as exc:
        return Search(refused=(_unreadable([exc]),))
    found = find(reading.objects)
    refused = [_unreadable(reading.errors)] if reading.errors else []
    known = [
        Known(name=one.name, created_at=one.created_at) for one in _foreign(found, configured)
    ]
    located, logins = [], LoginReader(kube)
    way = _Way(kube=kube, in_cluster=in_cluster, stack=stack)
    for one in _told_apart(found, configured):
        if only not in ("", one.name):
            continue
        result = _unclear(one) if isinstance(one, Problem) else _locate(one, logins, way)
        if isinstance(result, Located):
            located.append(result)
        else:
            refused.append(result)
    return Search(located=tuple(located), refused=tuple(refused), known=tuple(known))


def _foreign(found: Discovery, configured: Sequence[Server]) -> Iterator[Found | Problem]:
    """What was found and is not written down."""
    for one in found.servers:
        if not any(one.is_at(server.host, server.port) for server in configured):
            yield one
    yield from found.problems


def _told_apart(found: Discovery, configured: Sequence[Server]) -> Iterator[Found | Problem]:
    """The same, with a problem in place of a server whose name is taken; idle ones left out."""
    names = {server.name for server in configured}
    for one in _foreign(found, configured):
        if isinstance(one, Found) and one.name in names:
            yield Problem(
                name=one.name,
                workload=one.workload,
                reason=f"the configuration has another server with its name, {one.name}",
                remedy="rename that server, or correct its host",
            )
        elif isinstance(one, Problem) or one.is_running:
            yield one


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """From where servers must be reached."""

    kube: Kube
    in_cluster: bool
    stack: ExitStack | None

    def to(self, server: Server, found: Found) -> Server:
        if self.stack is None:
            return beside(server, found, in_cluster=self.in_cluster)
        return self.stack.enter_context(
            reached(self.kube, server, found, in_cluster=self.in_cluster)
        )


def _locate(found: Found, logins: LoginReader, way: _Way) -> Located | Refused:
    try:
        credentials = logins.credentials(found)
    except Unresolved as exc:
        return Refused(finding=_no_credentials(found, exc.reason, exc.remedy))
    except TransientError as exc:
        remedy = "is the API server well? kubectl get --raw /readyz"
        return Refused(finding=_no_credentials(found, str(exc), remedy), may_pass=True)
    server = Server(
        name=found.name,
        host=found.address.host,
        port=found.address.port,
        user=credentials.user,
        password=credentials.password,
    )
    try:
        server = way.to(server, found)
    except (TransientError, PermanentError) as exc:
        return Refused(finding=_out_of_reach(found, exc), may_pass=isinstance(exc, TransientError))
    return Located(server=server, databases=found.databases, exclude=found.exclude)


def _out_of_reach(found: Found, exc: OpsdError) -> Finding:
    text = printable(str(exc))
    return Finding(
        check="postgres.unreachable",
        subject=f"server/{found.name}",
        severity=Severity.CRITICAL,
        summary=shortened(f"cannot be backed up: {text}", SUMMARY_CHARACTERS),
        remedy="run opsd in the cluster, or give it the rights of docs/discovery.md#rights",
        facts={"error": text, "workload": found.workload},
    )


def _no_credentials(found: Found, reason: str, remedy: str) -> Finding:
    text = printable(reason)
    return Finding(
        check="postgres.no_credentials",
        subject=f"server/{found.name}",
        severity=Severity.CRITICAL,
        summary=shortened(f"cannot be backed up: {text}", SUMMARY_CHARACTERS),
        remedy=remedy,
        facts={"error": text, "workload": found.workload},
    )


def _unclear(problem: Problem) -> Refused:
    text = printable(problem.reason)
    finding = Finding(
        check="postgres.unclear",
        subject=f"server/{problem.name}",
        severity=Severity.CRITICAL,
        summary=shortened(f"cannot be backed up: {text}", SUMMARY_CHARACTERS),
        remedy=problem.remedy,
        facts={"error": text, "workload": problem.workload},
    )
    return Refused(finding=finding)


def _unreadable(errors: Sequence[OpsdError]) -> Refused:
    """Not all of the cluster could be looked at: there may be databases that nobody saw."""
    finding = unreadable(
        errors,
        subject=PLACE,
        what="databases",
        if_misconfigured="name the cluster in [kubernetes], or set discover = false",
    )
    may_pass = any(isinstance(error, TransientError) for error in errors)
    return Refused(finding=finding, may_pass=may_pass)
