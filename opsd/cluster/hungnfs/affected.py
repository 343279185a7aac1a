"""Which pods, claims and databases are on these mounts? Pure, but for `read`.

The kubelet mounts a volume below the UID of its pod, so the machine's own list of mounts says
who uses it; the cluster only gives the names.

Limits: a pod that uses a directory of the node which lies on a file server is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opsd.clients.kube.objects import PersistentVolume, Pod
from opsd.cluster.volumes.storage import claim_of, is_database, place_of
from opsd.errors import OpsdError
from opsd.hosts.nfs.mounts import Mount
from opsd.text import printable

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A pod that has a volume on a file server."""

    namespace: str
    name: str
    is_database: bool = False
    is_leaving: bool = False  #: it is being deleted

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The names of what is on file servers."""

    users: Mapping[str, User] = field(default_factory=dict)  #: by UID of the pod
    claims: Mapping[str, str] = field(default_factory=dict)  #: ``namespace/claim`` by volume
    sources: Mapping[str, str] = field(default_factory=dict)  #: name of the volume by source
    problem: str = ""  #: why there are no names


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Who waits."""

    users: tuple[User, ...] = ()  #: databases first
    claims: tuple[str, ...] = ()
    unnamed: int = 0  #: pods whose names the cluster did not tell

    @property
    def databases(self) -> tuple[User, ...]:
        """Those of them that are databases."""
        return tuple(user for user in self.users if user.is_database)

    @property
    def staying(self) -> tuple[User, ...]:
        """Those that are not being deleted."""
        return tuple(user for user in self.users if not user.is_leaving)

    @property
    def leaving(self) -> tuple[User, ...]:
        """Those that are being deleted, and hang."""
        return tuple(user for user in self.users if user.is_leaving)

    def __str__(self) -> str:
        """``database db/pg-0 and 2 other pods``; empty when nobody is known to wait."""
        databases = self.databases
        others = len(self.users) - len(databases) + self.unnamed
        told = []
        if databases:
            more = f" and {len(databases) - 1} more" if len(databases) > 1 else ""
            told.append(f"database {databases[0]}{more}")
        if others:
            told.append(f"{others} {'other ' if databases else ''}pod{'s' if others > 1 else ''}")
        return " and ".join(told)


def read(kube: Kube) -> Cluster:
    """Ask the cluster; that it could not be asked is part of the answer.

    Raises:
        DeadlineExceeded: no time is left.
    """
    try:
        pods, volumes = tuple(kube.list(Pod)), tuple(kube.list(PersistentVolume))
    except OpsdError as exc:
        return Cluster(problem=printable(str(exc)))
    places = ((volume, place_of(volume)) for volume in volumes)
    return Cluster(
        users={
            pod.uid: User(
                namespace=pod.namespace,
                name=pod.name,
                is_database=is_database(pod.spec),
                is_leaving=pod.metadata.deletion_timestamp is not None,
            )
            for pod in pods
        },
        claims={volume.name: claim_of(volume) for volume in volumes if claim_of(volume)},
        sources={str(place): volume.name for volume, place in places if place},
    )


def affected(mounts: Iterable[Mount], cluster: Cluster) -> Affected:
    """Who is on these mounts."""
    uids, volumes = set[str](), set[str]()
    for mount in mounts:
        uids |= mount.pods
        volumes |= mount.volumes
        if mount.source in cluster.sources:
            volumes.add(cluster.sources[mount.source])
    known = [cluster.users[uid] for uid in uids if uid in cluster.users]
    return Affected(
        users=tuple(sorted(known, key=lambda user: (not user.is_database, str(user)))),
        claims=tuple(sorted({cluster.claims[name] for name in volumes if name in cluster.claims})),
        unnamed=len(uids) - len(known),
    )
