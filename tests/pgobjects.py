"""PostgreSQL in a cluster as charts, operators and people put it there, as the API returns it."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from opsd.clients.kube.answers import decoder
from opsd.clients.kube.objects import (
    CnpgCluster,
    Deployment,
    Object,
    Service,
    StatefulSet,
    ZalandoPostgresql,
)
from opsd.cluster.postgres import Discovery, Found, Objects, Problem, find

Json = dict[str, Any]
ObjectT = TypeVar("ObjectT", bound=Object)

CREATED = "2026-11-01T10:00:00Z"
KINDS: dict[str, type[Object]] = {
    "StatefulSet": StatefulSet,
    "Deployment": Deployment,
    "Service": Service,
    "Cluster": CnpgCluster,
    "postgresql": ZalandoPostgresql,
}


def metadata(name: str, namespace: str, **more: Any) -> Json:
    uid = f"uid-{namespace}-{name}"
    known = {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": CREATED}
    return {**known, **more}


def container(image: str = "postgres:17", **more: Any) -> Json:
    ports = [{"containerPort": 5432}]
    env = [secret_variable("POSTGRES_PASSWORD", "pg", "password")]
    return {"name": "postgres", "image": image, "ports": ports, "env": env, **more}


def secret_variable(variable: str, secret: str, key: str) -> Json:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def workload(
    *containers: Json,
    kind: str = "StatefulSet",
    name: str = "pg",
    namespace: str = "db",
    labels: Json | None = None,
    annotations: Json | None = None,
    replicas: int = 1,
    volumes: tuple[Json, ...] = (),
    own: Json | None = None,
) -> Json:
    """A StatefulSet or Deployment; `labels` are those of its pods and its own."""
    labels = labels or {"app": name}
    spec: Json = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": list(containers or (container(),)), "volumes": list(volumes)},
        },
    }
    if kind == "StatefulSet":
        spec["serviceName"] = f"{name}-hl"
    meta = metadata(name, namespace, labels=labels, annotations=annotations or {}, **(own or {}))
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": spec}


def service(
    name: str = "pg", *, namespace: str = "db", selector: Json | None = None, **spec: Any
) -> Json:
    known = {
        "type": "ClusterIP",
        "clusterIP": "10.96.7.7",
        "selector": {"app": "pg"} if selector is None else selector,
        "ports": [{"port": 5432, "targetPort": 5432, "protocol": "TCP"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, namespace),
        "spec": {**known, **spec},
    }


def headless(name: str = "pg-hl", **more: Any) -> Json:
    return service(name, clusterIP="None", **more)


def decoded(*items: Json) -> Objects:
    """The objects as the client hands them over."""
    by_kind: dict[str, list[Object]] = {kind: [] for kind in KINDS}
    for item in items:
        read = decoder(KINDS[item["kind"]]).decode(json.dumps(item).encode())
        by_kind[item["kind"]].append(read)
    return Objects(
        stateful_sets=_of(StatefulSet, by_kind),
        deployments=_of(Deployment, by_kind),
        services=_of(Service, by_kind),
        cnpg_clusters=_of(CnpgCluster, by_kind),
        zalando=_of(ZalandoPostgresql, by_kind),
    )


def _of(kind: type[ObjectT], by_kind: dict[str, list[Object]]) -> tuple[ObjectT, ...]:
    items = by_kind[kind.resource.kind]
    return tuple(item for item in items if isinstance(item, kind))


def found(*items: Json) -> Discovery:
    return find(decoded(*items))


def only(*items: Json) -> Found:
    """The one server among these, about which there is no problem."""
    discovery = found(*items)
    assert discovery.problems == ()
    [server] = discovery.servers
    return server


def only_problem(*items: Json) -> Problem:
    discovery = found(*items)
    assert discovery.servers == ()
    [problem] = discovery.problems
    return problem


BITNAMI_LABELS = {
    "app.kubernetes.io/component": "primary",
    "app.kubernetes.io/instance": "grafana-db",
    "app.kubernetes.io/managed-by": "Helm",
    "app.kubernetes.io/name": "postgresql",
}


def bitnami(*, files: bool, component: str = "primary", name: str = "grafana-db") -> Json:
    """bitnami/postgresql with a user of one's own, passwords in variables or in files."""
    secret = "grafana-db"
    env: list[Json] = [
        {"name": "POSTGRESQL_PORT_NUMBER", "value": "5432"},
        {"name": "PGDATA", "value": "/bitnami/postgresql/data"},
        {"name": "POSTGRES_USER", "value": "grafana"},
        {"name": "POSTGRES_DATABASE", "value": "grafana"},
    ]
    place = "/opt/bitnami/postgresql/secrets"
    if files:
        env += [
            {"name": "POSTGRES_PASSWORD_FILE", "value": f"{place}/password"},
            {"name": "POSTGRES_POSTGRES_PASSWORD_FILE", "value": f"{place}/postgres-password"},
        ]
    else:
        env += [
            secret_variable("POSTGRES_PASSWORD", secret, "password"),
            secret_variable("POSTGRES_POSTGRES_PASSWORD", secret, "postgres-password"),
        ]
    main = {
        "name": "postgresql",
        "image": "registry.lan:5000/bitnami/postgresql:17.6.0-debian-12-r4@sha256:" + "0" * 64,
        "ports": [{"name": "tcp-postgresql", "containerPort": 5432}],
        "env": env,
        "volumeMounts": [
            {"name": "postgresql-password", "mountPath": f"{place}/"},
            {"name": "data", "mountPath": "/bitnami/postgresql"},
        ],
    }
    metrics = {
        "name": "metrics",
        "image": "docker.io/bitnami/postgres-exporter:0.17",
        "ports": [{"name": "http-metrics", "containerPort": 9187}],
    }
    return workload(
        main,
        metrics,
        name=name,
        namespace="monitoring",
        labels={**BITNAMI_LABELS, "app.kubernetes.io/component": component},
        volumes=({"name": "postgresql-password", "secret": {"secretName": secret}},),
    )


def bitnami_services() -> tuple[Json, ...]:
    selector = {
        key: BITNAMI_LABELS[key]
        for key in ("app.kubernetes.io/component", "app.kubernetes.io/instance")
    }
    port = [{"name": "tcp-postgresql", "port": 5432, "targetPort": "tcp-postgresql"}]
    return (
        service("grafana-db", namespace="monitoring", selector=selector, ports=port),
        headless("grafana-db-hl", namespace="monitoring", selector=selector, ports=port),
        service(
            "grafana-db-metrics",
            namespace="monitoring",
            selector=selector,
            ports=[{"name": "http", "port": 9187, "targetPort": "http-metrics"}],
        ),
    )


def cnpg(name: str = "main", *, spec: Json | None = None, **meta: Any) -> Json:
    known = {"instances": 3, "imageName": "ghcr.io/cloudnative-pg/postgresql:17.5"}
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": metadata(name, "db", **meta),
        "spec": {**known, **(spec or {})},
        "status": {"phase": "Cluster in healthy state", "writeService": f"{name}-rw"},
    }


def zalando(name: str = "acid-minimal", *, instances: int = 2, **meta: Any) -> Json:
    return {
        "apiVersion": "acid.zalan.do/v1",
        "kind": "postgresql",
        "metadata": metadata(name, "db", **meta),
        "spec": {
            "teamId": "acid",
            "numberOfInstances": instances,
            "postgresql": {"version": "17"},
        },
        "status": {"PostgresClusterStatus": "Running"},
    }


def spilo(name: str = "acid-minimal") -> Json:
    labels = {"application": "spilo", "cluster-name": name, "team": "acid"}
    login = f"postgres.{name}.credentials.postgresql.acid.zalan.do"
    env = [
        {"name": "PGUSER_SUPERUSER", "value": "postgres"},
        secret_variable("PGPASSWORD_SUPERUSER", login, "password"),
        {"name": "SPILO_CONFIGURATION", "value": "{}"},
    ]
    image = "ghcr.io/zalando/spilo-17:4.0-p2"
    return workload(container(image, env=env), name=name, labels=labels, replicas=2)


def crunchy(instance: str, *, cluster: str = "hippo") -> Json:
    labels = {
        "postgres-operator.crunchydata.com/cluster": cluster,
        "postgres-operator.crunchydata.com/data": "postgres",
    }
    image = "registry.developers.crunchydata.com/crunchydata/crunchy-postgres:ubi9-17.5-2520"
    main = {
        "name": "database",
        "image": image,
        "command": ["patroni", "/etc/patroni"],
        "ports": [{"name": "postgres", "containerPort": 5432}],
    }
    return workload(main, name=f"{cluster}-{instance}", labels=labels)
