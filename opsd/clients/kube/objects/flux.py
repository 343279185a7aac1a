"""What Flux keeps in the cluster, as far as an upgrade is concerned.

Source: fluxcd.io, API references of kustomize-controller and helm-controller.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from opsd.clients.kube.objects.base import Condition, Object, Resource, Struct


class FluxSpec(Struct):
    """Whether it is reconciled."""

    suspend: bool = False
    path: str = ""
    target_namespace: str = ""


class InventoryEntry(Struct):
    """One object that Flux applied: ``NAMESPACE_NAME_GROUP_KIND``, and its version."""

    id: str = msgspec.field(default="", name="id")
    version: str = msgspec.field(default="", name="v")


class Inventory(Struct):
    """All objects that Flux applied."""

    entries: tuple[InventoryEntry, ...] = ()


class FluxStatus(Struct):
    """How it went."""

    conditions: tuple[Condition, ...] = ()
    inventory: Inventory | None = None
    last_applied_revision: str = ""


class Kustomization(Object):
    """A directory of a Git repository that Flux applies."""

    resource: ClassVar[Resource] = Resource(
        "kustomize.toolkit.fluxcd.io/v1", "kustomizations", "Kustomization"
    )

    spec: FluxSpec = FluxSpec()
    status: FluxStatus = FluxStatus()


class HelmRelease(Object):
    """A chart that Flux installs."""

    resource: ClassVar[Resource] = Resource(
        "helm.toolkit.fluxcd.io/v2", "helmreleases", "HelmRelease"
    )

    spec: FluxSpec = FluxSpec()
    status: FluxStatus = FluxStatus()
