"""What a cluster says about its volumes, read once: the facts from which the rest is told.

Volumes, claims, classes, who uses which claim, and which provisioner acts when one is deleted.

Limits: pods are read as they are now; a claim that a pod uses only at night looks unused by day.
A provisioner is known by the variables of its Deployment; one that is run otherwise is not seen.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from opsd.clients.kube.objects import (
    Deployment,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodSpec,
    StorageClass,
)

PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
PROTECT = "opsd.dev/protect"  # the label by which deploy/policy/protect.yaml refuses a deletion
CSI_NFS = "nfs.csi.k8s.io"

# The last part of an image's name. Operators' images stand beside the plain ones.
DATABASES = re.compile(
    r"postgres|postgis|pgvector|timescale|spilo|mysql|mariadb|percona|mongo|etcd|influxdb|"
    r"clickhouse|cockroach|cassandra|redis|valkey|elasticsearch|opensearch|victoria-metrics|"
    r"prometheus$|loki$|neo4j|couchdb|rabbitmq|kafka|vault$"
)
# Take dumps, connect, or watch: they hold no data of their own.
NOT_DATABASES = re.compile(r"exporter|operator|backup|client|adminer|admin|ui$|proxy|bouncer")

_QUANTITY = re.compile(r"([0-9.]+)(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E|)")
_UNITS = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A pod that uses claims and has not ended."""

    namespace: str
    name: str
    claims: tuple[str, ...]  #: names in its namespace
    is_database: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioner:
    """A Deployment that makes and deletes directories of an NFS server."""

    name: str  #: what classes call it: the value of PROVISIONER_NAME
    image: str
    server: str
    path: str  #: exported directory in which it works

    @property
    def version(self) -> tuple[int, int, int] | None:
        """Of nfs-subdir-external-provisioner, by the image's tag; None: another, or unknown."""
        found = re.search(r"nfs-subdir-external-provisioner:v(\d+)\.(\d+)\.(\d+)", self.image)
        return (int(found[1]), int(found[2]), int(found[3])) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory of an NFS server."""

    server: str
    path: str  #: absolute, without a slash at its end

    def __str__(self) -> str:
        return f"{self.server}:{self.path}"

    def holds(self, other: Place) -> bool:
        """Whether `other` is the same directory or lies below it."""
        base = self.path.rstrip("/") + "/"
        return self.server == other.server and (other.path + "/").startswith(base)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A cluster's volumes and all that decides about their data.

    Without slots, as the two indexes are made once, when they are asked for: each volume asks.
    """

    now: datetime  #: by the API server's clock
    volumes: tuple[PersistentVolume, ...] = ()
    claims: tuple[PersistentVolumeClaim, ...] = ()
    classes: Mapping[str, StorageClass] = field(default_factory=dict)
    users: tuple[User, ...] = ()
    provisioners: tuple[Provisioner, ...] = ()
    guarded: bool = False  #: the API server refuses to delete claims with the label `PROTECT`

    def users_of(self, claim: str) -> tuple[User, ...]:
        """The pods that use a claim, which is given as ``namespace/claim``."""
        return self._users_by_claim.get(claim, ())

    def is_protected(self, volume: PersistentVolume) -> bool:
        """Whether the deletion of the volume's claim is refused."""
        return self.guarded and claim_of(volume) in self._protected

    @functools.cached_property
    def _users_by_claim(self) -> Mapping[str, tuple[User, ...]]:
        found: dict[str, tuple[User, ...]] = {}
        for user in self.users:
            for name in user.claims:
                claim = f"{user.namespace}/{name}"
                found[claim] = (*found.get(claim, ()), user)
        return found

    @functools.cached_property
    def _protected(self) -> frozenset[str]:
        return frozenset(
            f"{claim.namespace}/{claim.name}"
            for claim in self.claims
            if claim.labels.get(PROTECT, "false") != "false"
        )


def place_of(volume: PersistentVolume) -> Place | None:
    """Where its data lies on an NFS server; None: elsewhere."""
    if volume.spec.nfs is not None:
        return _place(volume.spec.nfs.server, volume.spec.nfs.path)
    csi = volume.spec.csi
    if csi is None or csi.driver != CSI_NFS:
        return None
    told = {key.lower(): value for key, value in csi.volume_attributes.items()}
    return _place(told.get("server", ""), f"{told.get('share', '')}/{told.get('subdir', '')}")


def _place(server: str, path: str) -> Place:
    return Place(server=server, path=posixpath.normpath("/" + path.strip("/")))


def claim_of(volume: PersistentVolume) -> str:
    """``namespace/claim`` that has the volume or had it last; empty: none yet."""
    owner = volume.spec.claim_ref
    return f"{owner.namespace}/{owner.name}" if owner else ""


def size_bytes(quantity: str) -> int:
    """``8Gi`` as a number; 0 for what is none."""
    found = _QUANTITY.fullmatch(quantity)
    return int(float(found[1]) * _UNITS[found[2]]) if found else 0


def capacity_bytes(volume: PersistentVolume) -> int:
    """How large the volume is said to be. NFS does not enforce it."""
    return size_bytes(volume.spec.capacity.get("storage", ""))


def users_among(pods: Iterable[Pod]) -> Iterator[User]:
    """Those pods that use claims and have not ended."""
    for pod in pods:
        if pod.status.phase in ("Succeeded", "Failed"):
            continue
        claims = tuple(_claims(pod))
        if claims:
            yield User(
                namespace=pod.namespace,
                name=pod.name,
                claims=claims,
                is_database=is_database(pod.spec),
            )


def _claims(pod: Pod) -> Iterator[str]:
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is not None:
            yield volume.persistent_volume_claim.claim_name
        elif volume.ephemeral is not None:
            yield f"{pod.name}-{volume.name}"


def is_database(spec: PodSpec) -> bool:
    """Whether a container of it is a database, by the name of its image."""
    names = [image_name(container.image) for container in spec.containers]
    return any(DATABASES.search(one) and not NOT_DATABASES.search(one) for one in names)


def image_name(image: str) -> str:
    """``registry.test:5000/team/app:1@sha256:…`` as ``app``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def provisioners_among(deployments: Iterable[Deployment]) -> Iterator[Provisioner]:
    """Those Deployments that say that they are provisioners of NFS directories."""
    for deployment in deployments:
        for container in deployment.spec.template.spec.containers:
            told = {one.name: one.value for one in container.env}
            if told.get("PROVISIONER_NAME") and told.get("NFS_PATH"):
                yield Provisioner(
                    name=told["PROVISIONER_NAME"],
                    image=container.image,
                    server=told.get("NFS_SERVER", ""),
                    path=_place("", told["NFS_PATH"]).path,
                )
