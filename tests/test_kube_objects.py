"""Objects as the API server writes them, and what they must never show."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from opsd import secrets
from opsd.clients.kube import objects
from opsd.clients.kube.objects import (
    CnpgCluster,
    Event,
    Metadata,
    Node,
    Object,
    OwnerReference,
    PersistentVolume,
    Pod,
    Resource,
    Secret,
    StatefulSet,
    StorageClass,
    ZalandoPostgresql,
    condition,
)
from opsd.errors import PermanentError

POD = b"""{"metadata": {"name": "pg-0", "namespace": "db", "uid": "u1", "resourceVersion": "7",
  "creationTimestamp": "2026-11-22T03:00:00Z", "deletionTimestamp": "2026-11-22T03:05:30Z",
  "deletionGracePeriodSeconds": 30, "finalizers": ["a/b"], "labels": {"app": "pg"},
  "ownerReferences": [{"kind": "StatefulSet", "name": "pg", "uid": "u0", "controller": true}],
  "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]},
 "spec": {"nodeName": "rpi3", "containers": [{"name": "app", "image": "postgres:17", "env": [
    {"name": "POSTGRES_PASSWORD", "value": "c4nary"},
    {"name": "PGUSER", "valueFrom": {"secretKeyRef": {"name": "pg", "key": "user"}}}]}],
  "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-pg-0"}},
              {"name": "tmp", "emptyDir": {}}]},
 "status": {"phase": "Running", "podIP": "10.1.2.3", "hostIP": "192.168.1.7",
  "conditions": [{"type": "Ready", "status": "False", "lastProbeTime": null,
                  "lastTransitionTime": null}],
  "containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": 1,
     "startedAt": null, "finishedAt": "2026-11-22T03:01:00Z"}}}]}}"""


def test_a_pod_is_read_as_the_api_server_writes_it() -> None:
    pod = msgspec.json.decode(POD, type=Pod)

    assert (pod.name, pod.namespace, pod.uid, pod.labels) == ("pg-0", "db", "u1", {"app": "pg"})
    assert pod.metadata.deletion_timestamp == datetime(2026, 11, 22, 3, 5, 30, tzinfo=UTC)
    assert pod.controller == OwnerReference(
        kind="StatefulSet", name="pg", uid="u0", controller=True
    )
    assert (pod.status.pod_ip, pod.status.host_ip) == ("10.1.2.3", "192.168.1.7")
    terminated = pod.status.container_statuses[0].state.terminated
    assert terminated
    assert terminated.exit_code == 1
    assert pod.spec.volumes[1].empty_dir is not None
    assert pod.spec.volumes[0].empty_dir is None


def test_a_time_that_the_api_server_does_not_know_is_none() -> None:
    pod = msgspec.json.decode(POD, type=Pod)
    event = msgspec.json.decode(
        b'{"metadata": {"creationTimestamp": null}, "eventTime": null, "count": 3}', type=Event
    )

    ready = condition(pod.status.conditions, "Ready")

    assert ready
    assert ready.last_transition_time is None
    assert (event.event_time, event.metadata.creation_timestamp) == (None, None)
    assert condition(pod.status.conditions, "DisruptionTarget") is None


def test_objects_cannot_be_changed() -> None:
    pod = msgspec.json.decode(POD, type=Pod)

    with pytest.raises(AttributeError):
        pod.spec = Pod().spec


def test_printing_a_pod_shows_no_value_of_a_variable() -> None:
    pod = msgspec.json.decode(POD, type=Pod)

    assert "POSTGRES_PASSWORD" in repr(pod)
    assert "c4nary" not in f"{pod!r} {pod}"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Pod(metadata=Metadata(name="pg-0", namespace="db")), "pod db/pg-0"),
        (Node(metadata=Metadata(name="rpi3")), "node rpi3"),
        (StorageClass(metadata=Metadata(name="nfs")), "storageclass nfs"),
        (
            CnpgCluster(metadata=Metadata(name="a", namespace="b")),
            "cluster.postgresql.cnpg.io b/a",
        ),
    ],
)
def test_an_object_is_called_what_kubectl_takes(item: Object, text: str) -> None:
    assert str(item) == text


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        (Pod, "", "", "/api/v1/pods"),
        (Pod, "db", "", "/api/v1/namespaces/db/pods"),
        (Pod, "db", "pg-0", "/api/v1/namespaces/db/pods/pg-0"),
        (Pod, "..", "../../nodes/x?y#z", "/api/v1/namespaces/../pods/..%2F..%2Fnodes%2Fx%3Fy%23z"),
        (Node, "ignored", "rpi3", "/api/v1/nodes/rpi3"),
        (StatefulSet, "db", "pg", "/apis/apps/v1/namespaces/db/statefulsets/pg"),
        (ZalandoPostgresql, "db", "", "/apis/acid.zalan.do/v1/namespaces/db/postgresqls"),
    ],
)
def test_an_object_lies_where_the_api_has_it(
    kind: type[Object], namespace: str, name: str, path: str
) -> None:
    assert kind.resource.path(namespace, name) == path


def test_a_subresource_lies_below_its_object() -> None:
    assert Node.resource.path(name="rpi3", subresource="status") == "/api/v1/nodes/rpi3/status"


def test_every_kind_lies_somewhere_else() -> None:
    kinds = [
        kind
        for kind in vars(objects).values()
        if isinstance(kind, type) and issubclass(kind, Object) and kind is not Object
    ]

    assert len(kinds) > 20
    assert len({kind.resource.path() for kind in kinds}) == len(kinds)
    assert all(isinstance(kind.resource, Resource) for kind in kinds)


def test_a_revealed_secret_is_masked_and_never_printed() -> None:
    secret = msgspec.json.decode(
        b'{"metadata": {"name": "pg", "namespace": "db"}, "data": {"password": "czNjcmV0IQ=="}}',
        type=Secret,
    )

    value = secret.reveal("password")

    assert value == "s3cret!"
    assert secrets.redact("it is s3cret!") == "it is [redacted]"
    assert "czNjcmV0IQ" not in f"{secret!r} {secret} {secret.metadata!r}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"user": "YQ=="}, r"secret db/pg: it has no key password \(has: user\)"),
        ({}, r"no key password \(has: none\)"),
        ({"password": "/w=="}, "the value of password is no text"),
        ({"password": "%%%%"}, "the value of password is no text"),
    ],
)
def test_a_secret_that_lacks_the_value_says_what_it_has(data: dict[str, str], text: str) -> None:
    secret = Secret(metadata=Metadata(name="pg", namespace="db"), data=data)

    with pytest.raises(PermanentError, match=text):
        secret.reveal("password")


def test_fields_of_volumes_and_operators_have_the_names_of_the_api() -> None:
    volume = msgspec.json.decode(
        b"""{"spec": {"persistentVolumeReclaimPolicy": "Delete", "nfs": {"server": "nas",
        "path": "/export/db"}, "claimRef": {"namespace": "db", "name": "data-pg-0"},
        "mountOptions": ["soft"]}, "status": {"phase": "Released",
        "lastPhaseTransitionTime": "2026-11-22T03:00:00Z"}}""",
        type=PersistentVolume,
    )
    cluster = msgspec.json.decode(
        b"""{"spec": {"imageName": "postgresql:17", "superuserSecret": {"name": "su"}},
        "status": {"currentPrimary": "a-1", "writeService": "a-rw"}}""",
        type=CnpgCluster,
    )
    zalando = msgspec.json.decode(
        b"""{"spec": {"numberOfInstances": 2, "databases": {"app": "owner"}, "users": {"o": []}},
        "status": {"PostgresClusterStatus": "Running"}}""",
        type=ZalandoPostgresql,
    )

    assert volume.spec.persistent_volume_reclaim_policy == "Delete"
    assert volume.spec.nfs
    assert volume.spec.claim_ref
    assert (volume.spec.nfs.path, volume.spec.claim_ref.name) == ("/export/db", "data-pg-0")
    assert volume.status.last_phase_transition_time == datetime(2026, 11, 22, 3, tzinfo=UTC)
    assert cluster.spec.superuser_secret
    assert (cluster.spec.image_name, cluster.status.write_service) == ("postgresql:17", "a-rw")
    assert (zalando.spec.databases, zalando.status.phase) == ({"app": "owner"}, "Running")
