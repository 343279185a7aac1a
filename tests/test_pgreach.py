"""How a found server is reached, told by where opsd runs and by what answers there."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

import pytest

from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import NotFound
from opsd.clients.kube.objects import Metadata, Object, Pod, PodStatus
from opsd.clients.pgserver import Server
from opsd.cluster.postgres import Found, Pods
from opsd.cluster.postgres_reach import beside, reached
from opsd.cluster.postgres_services import Address
from opsd.errors import TransientError
from tests.pgobjects import cnpg, only, service, workload, zalando
from tests.rig.server import HOST, free_port

BY_NAME = Server(name="db.pg", host="pg.db.svc", port=5432)


class NoPods:
    """A cluster in which pods leave and start and none stays; asking for one is seen."""

    def get(self, _kind: type[Object], name: str, *, namespace: str) -> Object:
        raise NotFound(f"get pod {namespace}/{name}: 404 NotFound")

    def list(self, _kind: type[Object], *, namespace: str, labels: str) -> Iterator[Object]:
        assert namespace == "db"
        assert labels
        leaving = Metadata(name="leaving", deletion_timestamp=datetime(2026, 11, 1, tzinfo=UTC))
        yield Pod(metadata=leaving, status=PodStatus(phase="Running"))
        yield Pod(metadata=Metadata(name="starting"), status=PodStatus(phase="Pending"))


NO_PODS = cast("Kube", NoPods())


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def at(port: int, *, cluster_ip: str = HOST) -> tuple[Server, Found]:
    found = only(workload(), service())
    address = Address(host="pg.db.svc", port=port, cluster_ip=cluster_ip)
    server = dataclasses.replace(BY_NAME, port=port)
    return server, dataclasses.replace(found, address=address)


def test_in_a_pod_the_name_of_the_service_leads_there() -> None:
    server, found = at(free_port())

    with reached(NO_PODS, server, found, in_cluster=True) as near:
        assert near == server
    assert beside(server, found, in_cluster=True) == server


def test_on_a_node_the_cluster_address_does(listening: int) -> None:
    server, found = at(listening)

    with reached(NO_PODS, server, found, in_cluster=False) as near:
        assert (near.host, near.port) == (HOST, listening)
    assert beside(server, found, in_cluster=False).host == HOST


def test_elsewhere_a_pod_is_asked_for() -> None:
    server, found = at(free_port())

    with (
        pytest.raises(NotFound, match="get pod db/pg-0"),
        reached(NO_PODS, server, found, in_cluster=False),
    ):
        pass


def test_a_service_without_an_address_of_its_own_needs_a_pod_too(listening: int) -> None:
    server, found = at(listening, cluster_ip="")

    with pytest.raises(NotFound), reached(NO_PODS, server, found, in_cluster=False):
        pass


def test_an_external_name_is_followed_from_everywhere() -> None:
    server, found = at(free_port(), cluster_ip="")
    outside = dataclasses.replace(server, host="pg.example.org")
    address = Address(host="pg.example.org", port=server.port)
    found = dataclasses.replace(found, address=address)

    with reached(NO_PODS, outside, found, in_cluster=False) as near:
        assert near == outside


def test_a_primary_that_runs_nowhere_is_told_with_its_labels() -> None:
    _, found = at(free_port(), cluster_ip="")
    found = dataclasses.replace(found, pods=Pods(labels={"role": "primary", "app": "pg"}))

    with (
        pytest.raises(TransientError, match="no pod with app=pg,role=primary runs"),
        reached(NO_PODS, BY_NAME, found, in_cluster=False),
    ):
        pass


def test_the_pod_is_that_of_the_server_that_takes_writes() -> None:
    follows = service("pg-primary", selector={"app": "pg", "role": "master"})

    assert only(workload(), service()).pods.name == "pg-0"
    assert only(workload(kind="Deployment"), service()).pods == Pods(labels={"app": "pg"})
    assert only(workload(replicas=2), follows).pods.labels == {"app": "pg", "role": "master"}
    assert only(cnpg()).pods.labels["cnpg.io/instanceRole"] == "primary"
    assert only(zalando()).pods.labels["spilo-role"] == "master"
