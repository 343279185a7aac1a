"""What is there to write a first configuration from: NFS exports, nodes, databases. Pure.

An export is known from the provisioner that hands out its directories, from a storage class, or
from volumes that lie on it; the text says which, because every guess must show its source.

Limits: an export that nothing in the cluster uses is not seen.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from opsd.clients.kube.objects import (
    Container,
    Deployment,
    Node,
    PersistentVolume,
    StorageClass,
)
from opsd.cluster.postgres import Discovery
from opsd.cluster.volumes.storage import CSI_NFS, Place, place_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A directory of an NFS server, with the volumes of the cluster below it."""

    server: str
    path: str
    source: str  #: ``deployment nfs/nfs-subdir-external-provisioner``
    volumes: int = 0

    def holds(self, volume: PersistentVolume) -> bool:
        """Whether the volume's directory is in it."""
        place = place_of(volume)
        return place is not None and Place(server=self.server, path=self.path).holds(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster, as far as a configuration is about it."""

    nodes: tuple[str, ...] = ()
    exports: tuple[Export, ...] = ()
    databases: Discovery = field(default_factory=Discovery)


def exports_of(
    deployments: Iterable[Deployment],
    classes: Iterable[StorageClass],
    volumes: Sequence[PersistentVolume],
) -> tuple[Export, ...]:
    """Every NFS export that the cluster uses, each once, by server and path."""
    known: dict[Place, str] = {}
    for place, source in (*_provisioners(deployments), *_classes(classes)):
        known.setdefault(place, source)
    for volume in volumes:
        lies = place_of(volume)
        if lies and not any(place.holds(lies) for place in known):
            known[Place(server=lies.server, path=posixpath.dirname(lies.path))] = str(volume)
    found = [
        Export(server=place.server, path=place.path, source=known[place])
        for place in sorted(known, key=lambda one: (one.server, one.path))
    ]
    return tuple(
        Export(
            server=one.server,
            path=one.path,
            source=one.source,
            volumes=sum(1 for volume in volumes if one.holds(volume)),
        )
        for one in found
    )


def names_of(nodes: Iterable[Node]) -> tuple[str, ...]:
    """The nodes, sorted."""
    return tuple(sorted(node.name for node in nodes))


def _provisioners(deployments: Iterable[Deployment]) -> Iterator[tuple[Place, str]]:
    """nfs-subdir-external-provisioner tells its server in two variables."""
    for deployment in sorted(deployments, key=str):
        for container in deployment.spec.template.spec.containers:
            server, path = _value(container, "NFS_SERVER"), _value(container, "NFS_PATH")
            if server and path:
                yield Place(server=server, path=path), str(deployment)


def _classes(classes: Iterable[StorageClass]) -> Iterator[tuple[Place, str]]:
    for one in sorted(classes, key=str):
        server, share = one.parameters.get("server", ""), one.parameters.get("share", "")
        if one.provisioner == CSI_NFS and server and share:
            yield Place(server=server, path=share), str(one)


def _value(container: Container, name: str) -> str:
    return next((one.value for one in container.env if one.name == name), "")
