"""Which PostgreSQL servers are there? Nobody should have to write down what the cluster knows.

From the objects of the API: StatefulSets and Deployments that run PostgreSQL, and the
resources of operators. Replicas of one server are that server. Pure.

A server's name, ``NAMESPACE.WORKLOAD``, is part of its backups' names. It depends on nothing but
the workload's own name, so it never changes by itself; a namespace has no dot in its name, so
no two workloads share one. Where a Deployment and a StatefulSet of one name are two servers,
one is backed up and the other is told.

Limits: servers outside of the cluster, and those that bare pods or DaemonSets run, are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from opsd.clients.kube.objects import (
    CnpgCluster,
    Deployment,
    PodTemplate,
    Service,
    StatefulSet,
    ZalandoPostgresql,
)
from opsd.cluster import postgres_hints as hints_of
from opsd.cluster import postgres_images as images
from opsd.cluster import postgres_logins as logins_of
from opsd.cluster import postgres_services as services_of
from opsd.cluster.postgres_hints import Hints, Unclear
from opsd.cluster.postgres_logins import Login
from opsd.cluster.postgres_services import Address, Workload

CRUNCHY = "postgres-operator.crunchydata.com/cluster"
ZALANDO_LOGIN = "{user}.{name}.credentials.postgresql.acid.zalan.do"
_CNPG_HIBERNATION = "cnpg.io/hibernation"
_ZALANDO_CLUSTER = "cluster-name"

AnyWorkload = StatefulSet | Deployment
Source = CnpgCluster | ZalandoPostgresql | AnyWorkload
SourceT = TypeVar("SourceT", bound=Source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What was read from the API."""

    stateful_sets: tuple[StatefulSet, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    services: tuple[Service, ...] = ()
    cnpg_clusters: tuple[CnpgCluster, ...] = ()
    zalando: tuple[ZalandoPostgresql, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Where the server that takes writes runs, for who cannot use a Service."""

    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""  #: of the one pod, if it has a lasting name
    port: int = images.PORT  #: of the container


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One PostgreSQL server of the cluster."""

    name: str  #: ``databases.pg``: never changes
    namespace: str
    workload: str  #: for people: ``statefulset databases/pg``
    address: Address
    pods: Pods
    known_as: frozenset[tuple[str, int]]  #: (host, port); see `postgres_services.plain_host`
    logins: tuple[Login, ...]  #: best first
    databases: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    is_running: bool = True  #: false: scaled to nothing, on purpose
    created_at: datetime | None = None  #: by the API server's clock

    def is_at(self, host: str, port: int) -> bool:
        """Whether this address, as somebody wrote it down, is this server."""
        plain = services_of.plain_host(host)
        return (plain, port) in self.known_as or self.address == Address(host=host, port=port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A PostgreSQL that was seen and cannot be backed up as it is."""

    name: str  #: as `Found.name`
    workload: str
    reason: str
    remedy: str
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What the cluster has."""

    servers: tuple[Found, ...] = ()  #: by name
    problems: tuple[Problem, ...] = ()
    declined: tuple[str, ...] = ()  #: names of those that shall not be backed up


def find(objects: Objects) -> Discovery:
    """Every PostgreSQL server, each once."""
    servers: dict[str, Found] = {}
    problems: list[Problem] = []
    declined: list[str] = []
    for one in _Finder(objects).each():
        match one:
            case str():
                declined.append(one)
            case Problem():
                problems.append(one)
            case Found():
                _join(one, servers, problems)
    ordered = tuple(servers[name] for name in sorted(servers))
    return Discovery(servers=ordered, problems=tuple(problems), declined=tuple(declined))


def _join(one: Found, servers: dict[str, Found], problems: list[Problem]) -> None:
    """Take it up, unless it is one that is there, or has a name that is taken."""
    if any(one.address == other.address for other in servers.values()):
        return
    taken = servers.setdefault(one.name, one)
    if taken is not one:
        problems.append(
            Problem(
                name=f"{one.name}.{one.workload.partition(' ')[0]}",
                workload=one.workload,
                reason=f"its name, {one.name}, is taken by {taken.workload}",
                remedy=f'set {hints_of.BACKUP}: "false" on one of the two, or rename it',
                created_at=one.created_at,
            )
        )


class _Finder:
    """Looks at each kind, those that own others first."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def each(self) -> Iterator[Found | Problem | str]:
        objects = self._objects
        for cnpg in objects.cnpg_clusters:
            yield from self._judged(cnpg, self._cnpg)
        for zalando in objects.zalando:
            yield from self._judged(zalando, self._zalando)
        owned = {(one.namespace, one.name) for one in objects.zalando}
        crunchy: set[tuple[str, str]] = set()
        for workload in sorted(objects.stateful_sets, key=_place):
            place = (workload.namespace, workload.labels.get(_ZALANDO_CLUSTER, workload.name))
            cluster = (workload.namespace, workload.labels.get(CRUNCHY, ""))
            if place in owned or cluster in crunchy:
                continue
            if cluster[1] and _serves(workload.spec.template):
                crunchy.add(cluster)
                yield from self._judged(workload, self._crunchy)
            else:
                yield from self._judged(workload, self._workload)
        for deployment in sorted(objects.deployments, key=_place):
            yield from self._judged(deployment, self._workload)

    def _judged(
        self, source: SourceT, look: Callable[[SourceT, Hints], Iterator[Found | Problem]]
    ) -> Iterator[Found | Problem | str]:
        """Follow the owner's hints, then look."""
        template = source.spec.template if isinstance(source, AnyWorkload) else None
        annotations = [source.annotations, *([template.metadata.annotations] if template else [])]
        try:
            hints = hints_of.read(*annotations)
        except Unclear as exc:
            if template and not (_serves(template) or hints_of.is_asked(*annotations)):
                return  # not a database: somebody else's note
            remedy = f"kubectl -n {source.namespace} annotate --overwrite {_kubectl(source)} ..."
            yield _problem(source, str(exc), remedy)
            return
        if hints.backup is False:
            yield _name(source)
            return
        yield from look(source, hints)

    def _workload(self, source: AnyWorkload, hints: Hints) -> Iterator[Found | Problem]:
        template = source.spec.template
        container = images.server_in(template, insisted=bool(hints.backup))
        if container is None or (images.is_replica(template, container) and not hints.backup):
            return
        workload = Workload(
            namespace=source.namespace,
            name=source.name,
            labels=template.metadata.labels,
            port=images.serving_port(container),
            container=container,
            replicas=source.spec.replicas,
            governing=source.spec.service_name if isinstance(source, StatefulSet) else "",
        )
        leading = services_of.leading_to(workload, self._objects.services)
        address = services_of.choose(workload, leading)
        logins = logins_of.of_workload(container, template.spec)
        known_as = services_of.known_as(workload, leading)
        yield self._found(
            source,
            hints,
            address=address,
            pods=_pods_of(workload, leading),
            known_as=known_as,
            logins=logins,
            is_running=source.spec.replicas > 0,
        )

    def _cnpg(self, source: CnpgCluster, hints: Hints) -> Iterator[Found | Problem]:
        spec, status = source.spec, source.status
        service = status.write_service or f"{source.name}-rw"
        secrets = []
        if spec.enable_superuser_access or spec.superuser_secret:
            own = spec.superuser_secret.name if spec.superuser_secret else ""
            secrets.append(own or f"{source.name}-superuser")
        first = spec.bootstrap.initdb if spec.bootstrap else None
        secrets.append(
            (first.secret.name if first and first.secret else "") or f"{source.name}-app"
        )
        yield self._of_operator(
            source,
            hints,
            service=service,
            pods={"cnpg.io/cluster": source.name, "cnpg.io/instanceRole": "primary"},
            logins=[
                logins_of.of_secret(name, users=("username",), key="password") for name in secrets
            ],
            is_running=source.annotations.get(_CNPG_HIBERNATION) != "on",
        )

    def _zalando(self, source: ZalandoPostgresql, hints: Hints) -> Iterator[Found | Problem]:
        name = ZALANDO_LOGIN.format(user=logins_of.SUPERUSER, name=source.name)
        yield self._of_operator(
            source,
            hints,
            service=source.name,
            pods={_ZALANDO_CLUSTER: source.name, "spilo-role": "master"},
            logins=[logins_of.of_secret(name, users=("username",), key="password")],
            is_running=source.spec.number_of_instances > 0,
        )

    def _crunchy(self, source: AnyWorkload, hints: Hints) -> Iterator[Found | Problem]:
        """Each instance is a StatefulSet; the cluster's name stands in a label."""
        cluster = source.labels[CRUNCHY]
        yield self._of_operator(
            source,
            hints,
            service=f"{cluster}-primary",
            pods={CRUNCHY: cluster, "postgres-operator.crunchydata.com/role": "master"},
            logins=[
                logins_of.of_secret(f"{cluster}-pguser-{user}", users=("user",), key="password")
                for user in (logins_of.SUPERUSER, cluster)
            ],
            is_running=source.spec.replicas > 0,
        )

    def _of_operator(
        self,
        source: Source,
        hints: Hints,
        *,
        service: str,
        pods: Mapping[str, str],
        logins: Iterable[Login],
        is_running: bool,
    ) -> Found | Problem:
        """An operator's Services have no selectors that could be followed, but fixed names."""
        address = self._service(source.namespace, service) or Address(
            host=f"{service}.{source.namespace}.svc", port=images.PORT
        )
        return self._found(
            source,
            hints,
            address=address,
            pods=Pods(labels=pods),
            known_as=frozenset({(f"{service}.{source.namespace}", address.port)}),
            logins=tuple(logins),
            is_running=is_running,
        )

    def _found(
        self,
        source: Source,
        hints: Hints,
        *,
        address: Address | None,
        pods: Pods,
        known_as: frozenset[tuple[str, int]],
        logins: tuple[Login, ...],
        is_running: bool,
    ) -> Found | Problem:
        if hints.service:
            address = self._service(source.namespace, hints.service)
            if address is None:
                reason = f"there is no Service {hints.service} in its namespace"
                return _problem(source, reason, f"correct the annotation {hints_of.PREFIX}service")
        if address is None:
            reason = "no Service leads to it"
            remedy = f"make a Service, or name it: {hints_of.PREFIX}service on {_kubectl(source)}"
            return _problem(source, reason, remedy)
        if hints.port:
            address = replace(address, port=hints.port)
        if hints.secret:
            named = logins_of.of_secret(hints.secret, key=hints.password_key, user=hints.user)
            logins = (named,)
        elif hints.user:
            logins = tuple(
                Login(user=(logins_of.Plain(hints.user),), password=one.password) for one in logins
            )
        return Found(
            name=_name(source),
            namespace=source.namespace,
            workload=str(source),
            address=address,
            pods=pods,
            known_as=known_as | {(services_of.plain_host(address.host), address.port)},
            logins=logins,
            databases=hints.databases or ("*",),
            exclude=hints.exclude,
            is_running=is_running,
            created_at=source.metadata.creation_timestamp,
        )

    def _service(self, namespace: str, name: str) -> Address | None:
        """The address of a Service, with its port for SQL; None when it is not there."""
        for service in self._objects.services:
            if (service.namespace, service.name) == (namespace, name):
                ports = [one for one in service.spec.ports if one.protocol == "TCP"]
                named = [one.port for one in ports if one.name in images.PORT_NAMES]
                usual = [one.port for one in ports if one.port == images.PORT]
                likely = usual or named or [one.port for one in ports] or [images.PORT]
                return services_of.address_of(service, likely[0])
        return None


def _pods_of(workload: Workload, services: Iterable[Service]) -> Pods:
    """The pod that a Service for the primary selects, else the first, else the only one."""
    primary = next((one.spec.selector for one in services if services_of.is_primary(one)), None)
    if primary is not None:
        return Pods(labels=primary, port=workload.port)
    name = f"{workload.name}-0" if workload.governing else ""
    return Pods(labels=workload.labels, name=name, port=workload.port)


def _serves(template: PodTemplate) -> bool:
    return images.server_in(template, insisted=False) is not None


def _name(source: Source) -> str:
    name = source.labels.get(CRUNCHY, "") if isinstance(source, StatefulSet) else ""
    return f"{source.namespace}.{name or source.name}"


def _place(source: Source) -> tuple[str, str]:
    return (source.namespace, source.name)


def _kubectl(source: Source) -> str:
    return f"{source.resource.noun}/{source.name}"


def _problem(source: Source, reason: str, remedy: str) -> Problem:
    return Problem(
        name=_name(source),
        workload=str(source),
        reason=reason,
        remedy=remedy,
        created_at=source.metadata.creation_timestamp,
    )
