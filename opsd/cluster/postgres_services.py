"""By which address is a workload reached, and which other addresses are the same server?

Pods come and go, so the way is always a Service; of several, the one that leads to the server
that takes writes. Pure.

Limits: a Service that balances several replicas is never used, because a dump's connections
must meet one server; the first pod of the set is taken then, which may lag behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opsd.clients.kube.objects import Container, Service

HEADLESS = "None"
EXTERNAL = "ExternalName"
#: Labels that an operator moves from pod to pod; templates do not have them.
ROLE_LABELS = frozenset(
    {"role", "spilo-role", "cnpg.io/instanceRole", "postgres-operator.crunchydata.com/role"}
)
PRIMARY = frozenset({"master", "primary", "leader", "main"})
_READ_ONLY = re.compile(r"-(r|ro|read|readonly|repl|replica|replicas|standby)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is."""

    host: str  #: ``pg.databases.svc``
    port: int
    #: Of the Service, for who has no DNS of the cluster; the name means the same.
    cluster_ip: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the way must lead to."""

    namespace: str
    name: str
    labels: Mapping[str, str]  #: of its pods
    port: int  #: on which the container serves
    container: Container
    replicas: int = 1
    governing: str = ""  #: the Service that gives its pods their names


def leading_to(workload: Workload, services: Iterable[Service]) -> tuple[Service, ...]:
    """The Services that lead to its port, the best first."""
    usable = [
        service
        for service in services
        if service.namespace == workload.namespace
        and _selects(service, workload.labels)
        and (port_to(service, workload) or service.spec.cluster_ip == HEADLESS)
    ]
    return tuple(sorted(usable, key=lambda service: _rank(service, workload)))


def choose(workload: Workload, services: Sequence[Service]) -> Address | None:
    """The way to the server, by the Services that lead to it; None when none does."""
    for service in services:
        if service.spec.cluster_ip != HEADLESS and (workload.replicas <= 1 or is_primary(service)):
            return address_of(service, port_to(service, workload))
    governing = [one for one in services if one.name == workload.governing]
    headless = [one for one in services if one.spec.cluster_ip == HEADLESS]
    for service in (*governing, *headless):
        host = f"{service.name}.{service.namespace}.svc"
        if workload.replicas > 1:
            if not workload.governing:
                continue
            host = f"{workload.name}-0.{host}"
        return Address(host=host, port=workload.port)
    return None


def address_of(service: Service, port: int) -> Address:
    """A Service's own address; of an ExternalName, where it leads."""
    if service.spec.type == EXTERNAL:
        return Address(host=service.spec.external_name, port=port)
    host = f"{service.name}.{service.namespace}.svc"
    own_ip = service.spec.cluster_ip
    return Address(host=host, port=port, cluster_ip="" if own_ip == HEADLESS else own_ip)


def port_to(service: Service, workload: Workload) -> int:
    """The Service's port that leads to the server; 0 when none does."""
    names = {one.name for one in workload.container.ports if one.container_port == workload.port}
    for one in service.spec.ports:
        target = one.target_port or one.port
        if one.protocol == "TCP" and (target == workload.port or target in names - {""}):
            return one.port
    return 0


def known_as(workload: Workload, services: Iterable[Service]) -> frozenset[tuple[str, int]]:
    """Every (host, port) that means this server, as `plain_host` writes hosts."""
    known = set()
    for service in services:
        name = f"{service.name}.{service.namespace}"
        headless = service.spec.cluster_ip == HEADLESS
        port = workload.port if headless else port_to(service, workload)
        known |= {(name, port), (service.spec.cluster_ip.lower(), port)}
        known |= {
            (f"{workload.name}-{ordinal}.{name}", workload.port)
            for ordinal in range(workload.replicas)
        }
    return frozenset((host, port) for host, port in known if host not in ("", HEADLESS.lower()))


def plain_host(host: str) -> str:
    """``pg.databases`` for each of the names that Kubernetes gives a Service."""
    name, _, _ = host.lower().rstrip(".").partition(".svc")
    return name


def is_primary(service: Service) -> bool:
    """Whether a Service follows the server that takes writes."""
    return any(
        key in ROLE_LABELS and value.lower() in PRIMARY
        for key, value in service.spec.selector.items()
    )


def _selects(service: Service, labels: Mapping[str, str]) -> bool:
    selector = service.spec.selector
    return bool(selector) and all(
        labels.get(key) == value or (key in ROLE_LABELS and value.lower() in PRIMARY)
        for key, value in selector.items()
    )


def _rank(service: Service, workload: Workload) -> tuple[object, ...]:
    """Smaller is better; the name decides between equals, so that the choice is always one."""
    return (
        not is_primary(service),
        service.spec.cluster_ip == HEADLESS,
        bool(_READ_ONLY.search(service.name)),
        service.name != workload.name,
        len(service.name),
        service.name,
    )
