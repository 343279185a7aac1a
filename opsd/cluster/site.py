"""What is there to write a first configuration from: NFS exports, nodes, databases. Pure.

An export is known from the provisioner that hands out its directories, from a storage class, or
from volumes that lie on it; the text says which, because every guess must show its source.

Limits: an export that nothing in the cluster uses is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from opsd.clients.kube.objects import (
    Container,
    Deployment,
    Node,
    PersistentVolume,
    StorageClass,
)
from opsd.cluster.postgres import Discovery

CSI_NFS = "nfs.csi.k8s.io"


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
        return place is not None and place[0] == self.server and is_below(place[1], self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster, as far as a configuration is about it."""

    nodes: tuple[str, ...] = ()
    exports: tuple[Export, ...] = ()
    databases: Discovery = field(default_factory=Discovery)


def place_of(volume: PersistentVolume) -> tuple[str, str] | None:
    """(server, path) of a volume on NFS; None when it is on something else."""
    spec = volume.spec
    if spec.nfs:
        return (spec.nfs.server, spec.nfs.path)
    if spec.csi and spec.csi.driver == CSI_NFS:
        known = spec.csi.volume_attributes
        share, inside = known.get("share", ""), known.get("subdir", "")
        return (known.get("server", ""), str(PurePosixPath(share) / inside.lstrip("/")))
    return None


def is_below(path: str, top: str) -> bool:
    """Whether `path` is `top` or lies in it."""
    return PurePosixPath(path).is_relative_to(PurePosixPath(top))


def exports_of(
    deployments: Iterable[Deployment],
    classes: Iterable[StorageClass],
    volumes: Sequence[PersistentVolume],
) -> tuple[Export, ...]:
    """Every NFS export that the cluster uses, each once, by server and path."""
    known: dict[tuple[str, str], str] = {}
    for server, path, source in (*_provisioners(deployments), *_classes(classes)):
        known.setdefault((server, path), source)
    for volume in volumes:
        place = place_of(volume)
        if place and not any(
            place[0] == server and is_below(place[1], path) for server, path in known
        ):
            known[(place[0], str(PurePosixPath(place[1]).parent))] = str(volume)
    found = [Export(server=one[0], path=one[1], source=known[one]) for one in sorted(known)]
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


def _provisioners(deployments: Iterable[Deployment]) -> Iterator[tuple[str, str, str]]:
    """nfs-subdir-external-provisioner tells its server in two variables."""
    for deployment in sorted(deployments, key=str):
        for container in deployment.spec.template.spec.containers:
            server, path = _value(container, "NFS_SERVER"), _value(container, "NFS_PATH")
            if server and path:
                yield server, path, str(deployment)


def _classes(classes: Iterable[StorageClass]) -> Iterator[tuple[str, str, str]]:
    for one in sorted(classes, key=str):
        server, share = one.parameters.get("server", ""), one.parameters.get("share", "")
        if one.provisioner == CSI_NFS and server and share:
            yield server, share, str(one)


def _value(container: Container, name: str) -> str:
    return next((one.value for one in container.env if one.name == name), "")
