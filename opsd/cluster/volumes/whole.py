"""Volumes, claims and classes with every field, so that they can be made again exactly so.

Elsewhere only the fields that opsd uses are decoded. What is put back after a loss must have
all of them, those of API versions to come included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from opsd.clients.kube.objects import (
    Deployment,
    Metadata,
    Object,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
    PersistentVolumeStatus,
    Pod,
    Resource,
    StorageClass,
    ValidatingAdmissionPolicyBinding,
)
from opsd.cluster.volumes.storage import Storage, provisioners_among, users_among

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

Manifest = dict[str, Any]  #: an object as `kubectl apply` takes it

GUARD = "protect.opsd.dev"  # name of the policy and its binding in deploy/policy/protect.yaml
POLICY_BEFORE = "opsd.dev/reclaim-policy-before"  # annotation: the policy that Retain replaced
_OF_THE_BINDING = ("pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller")
_OF_THE_MOMENT = frozenset(
    {
        *_OF_THE_BINDING,  # with them, a claim made again counts as one that lost its volume
        "kubectl.kubernetes.io/last-applied-configuration",
        "volume.kubernetes.io/selected-node",
    }
)


class WholeVolume(Object):
    """A volume."""

    resource: ClassVar[Resource] = PersistentVolume.resource

    spec: Mapping[str, Any] = {}
    status: PersistentVolumeStatus = PersistentVolumeStatus()

    def known(self) -> PersistentVolume:
        """The fields that opsd uses."""
        spec = msgspec.convert(self.spec, PersistentVolumeSpec)
        return PersistentVolume(metadata=self.metadata, spec=spec, status=self.status)

    def manifest(self) -> Manifest:
        """To be applied: bound to its claim by name, and kept when that is deleted."""
        spec = dict(self.spec)
        policy = str(spec.get("persistentVolumeReclaimPolicy", ""))
        spec["persistentVolumeReclaimPolicy"] = "Retain"
        if owner := spec.pop("claimRef", None):
            spec["claimRef"] = {key: owner[key] for key in ("namespace", "name") if key in owner}
        made = _manifest(self, spec=spec)
        if policy and policy != "Retain":
            made["metadata"].setdefault("annotations", {})[POLICY_BEFORE] = policy
        return made


class WholeClaim(Object):
    """A claim."""

    resource: ClassVar[Resource] = PersistentVolumeClaim.resource

    spec: Mapping[str, Any] = {}

    def known(self) -> PersistentVolumeClaim:
        """The fields that opsd uses."""
        spec = msgspec.convert(self.spec, PersistentVolumeClaimSpec)
        return PersistentVolumeClaim(metadata=self.metadata, spec=spec)

    def manifest(self) -> Manifest:
        """To be applied: it asks for the volume that it had, not for a new one."""
        spec = {key: value for key, value in self.spec.items() if not key.startswith("dataSource")}
        return _manifest(self, spec=spec)


class WholeClass(Object):
    """A class."""

    resource: ClassVar[Resource] = StorageClass.resource

    provisioner: str = ""
    parameters: Mapping[str, str] = {}
    reclaim_policy: str = ""
    volume_binding_mode: str = ""
    mount_options: tuple[str, ...] = ()
    allow_volume_expansion: bool | None = None
    allowed_topologies: tuple[Mapping[str, Any], ...] = ()

    def known(self) -> StorageClass:
        """The fields that opsd uses."""
        return StorageClass(
            metadata=self.metadata,
            provisioner=self.provisioner,
            parameters=self.parameters,
            reclaim_policy=self.reclaim_policy,
            volume_binding_mode=self.volume_binding_mode,
            mount_options=self.mount_options,
        )

    def manifest(self) -> Manifest:
        """To be applied."""
        fields = {
            "provisioner": self.provisioner,
            "parameters": dict(self.parameters),
            "reclaimPolicy": self.reclaim_policy,
            "volumeBindingMode": self.volume_binding_mode,
            "mountOptions": list(self.mount_options),
            "allowVolumeExpansion": self.allow_volume_expansion,
            "allowedTopologies": list(self.allowed_topologies),
        }
        return _manifest(self, **{key: value for key, value in fields.items() if value})


def read(kube: Kube) -> tuple[Storage, tuple[Manifest, ...]]:
    """What there is, and the same as manifests: classes, then volumes, then claims.

    Raises:
        Forbidden: the role of opsd lacks what the text names.
        TransientError, PermanentError: as `Kube.list`.
    """
    classes = tuple(kube.list(WholeClass))
    volumes = tuple(kube.list(WholeVolume))
    claims = tuple(kube.list(WholeClaim))
    storage = Storage(
        now=kube.server_time(),
        volumes=tuple(one.known() for one in volumes),
        claims=tuple(one.known() for one in claims),
        classes={one.name: one.known() for one in classes},
        users=tuple(users_among(kube.list(Pod))),
        provisioners=tuple(provisioners_among(kube.list(Deployment))),
        guarded=kube.find(ValidatingAdmissionPolicyBinding, GUARD) is not None,
    )
    manifests = (
        *(one.manifest() for one in classes),
        *(one.manifest() for one in volumes),
        *(one.manifest() for one in claims),
    )
    return storage, manifests


def _manifest(one: Object, **fields: Any) -> Manifest:
    kind = one.resource
    metadata = _metadata(one.metadata)
    return {"apiVersion": kind.group_version, "kind": kind.kind, "metadata": metadata, **fields}


def _metadata(one: Metadata) -> dict[str, Any]:
    notes = {key: text for key, text in one.annotations.items() if key not in _OF_THE_MOMENT}
    told = {
        "namespace": one.namespace,
        "name": one.name,
        "labels": dict(one.labels),
        "annotations": notes,
    }
    return {key: value for key, value in told.items() if value}
