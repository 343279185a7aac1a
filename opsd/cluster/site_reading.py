"""Read from the API what a first configuration is written from: lists only, no Secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from opsd.clients.kube.objects import Node, Object, PersistentVolume, StorageClass
from opsd.cluster.postgres import find
from opsd.cluster.postgres_reading import Namespaces, read_objects
from opsd.cluster.site import Site, exports_of, names_of
from opsd.errors import OpsdError, PermanentError

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

ObjectT = TypeVar("ObjectT", bound=Object)


def read_site(kube: Kube) -> tuple[Site, tuple[OpsdError, ...]]:
    """What the cluster has, and why some of it could not be seen.

    Raises:
        ConfigError, TransientError: the cluster does not answer.
        DeadlineExceeded: no time is left.
    """
    kube.version()  # does it answer at all?
    errors: list[OpsdError] = []

    def all_of(kind: type[ObjectT]) -> tuple[ObjectT, ...]:
        try:
            return tuple(kube.list(kind))
        except PermanentError as exc:
            errors.append(exc)
            return ()

    reading = read_objects(kube, Namespaces())
    volumes, classes = all_of(PersistentVolume), all_of(StorageClass)
    site = Site(
        nodes=names_of(all_of(Node)),
        exports=exports_of(reading.objects.deployments, classes, volumes),
        databases=find(reading.objects),
    )
    return site, (*reading.errors, *errors)
