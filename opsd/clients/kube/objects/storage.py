"""Volumes, the claims that hold them, and what happens to the data when a claim is deleted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from opsd.clients.kube.objects.base import Object, Reference, Resource, Struct
from opsd.clients.kube.objects.pods import HostPath, NfsSource


class CsiSource(Struct):
    """A volume of a storage driver."""

    driver: str = ""  #: ``nfs.csi.k8s.io``
    volume_handle: str = ""
    volume_attributes: Mapping[str, str] = {}  #: of csi-driver-nfs: server, share, subdir
    read_only: bool = False


class PersistentVolumeSpec(Struct):
    """Where the data lies, and who may have it."""

    capacity: Mapping[str, str] = {}  #: ``storage`` as a quantity: ``8Gi``
    access_modes: tuple[str, ...] = ()
    claim_ref: Reference | None = None
    persistent_volume_reclaim_policy: str = ""  #: Retain, Delete
    storage_class_name: str = ""
    volume_mode: str = ""
    mount_options: tuple[str, ...] = ()
    nfs: NfsSource | None = None
    csi: CsiSource | None = None
    host_path: HostPath | None = None
    local: HostPath | None = None


class PersistentVolumeStatus(Struct):
    """What became of it."""

    phase: str = ""  #: Pending, Available, Bound, Released, Failed
    reason: str = ""
    message: str = ""
    last_phase_transition_time: datetime | None = None


class PersistentVolume(Object):
    """A volume."""

    resource: ClassVar[Resource] = Resource(
        "v1", "persistentvolumes", "PersistentVolume", namespaced=False
    )

    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PersistentVolumeStatus = PersistentVolumeStatus()


class Requests(Struct):
    """How much is asked for."""

    requests: Mapping[str, str] = {}


class PersistentVolumeClaimSpec(Struct):
    """What is asked for, and what was given."""

    volume_name: str = ""  #: of the bound volume
    storage_class_name: str | None = None  #: None: the default class; empty: none
    access_modes: tuple[str, ...] = ()
    volume_mode: str = ""
    resources: Requests = Requests()


class PersistentVolumeClaimStatus(Struct):
    """What became of it."""

    phase: str = ""  #: Pending, Bound, Lost
    capacity: Mapping[str, str] = {}


class PersistentVolumeClaim(Object):
    """A claim."""

    resource: ClassVar[Resource] = Resource(
        "v1", "persistentvolumeclaims", "PersistentVolumeClaim"
    )

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: PersistentVolumeClaimStatus = PersistentVolumeClaimStatus()


class StorageClass(Object):
    """How volumes are made, and what their end is."""

    resource: ClassVar[Resource] = Resource(
        "storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False
    )

    provisioner: str = ""
    parameters: Mapping[str, str] = {}
    reclaim_policy: str = ""
    volume_binding_mode: str = ""
    mount_options: tuple[str, ...] = ()


class AttachmentSource(Struct):
    """What is attached."""

    persistent_volume_name: str = ""


class VolumeAttachmentSpec(Struct):
    """What is to be attached where."""

    attacher: str = ""
    node_name: str = ""
    source: AttachmentSource = AttachmentSource()


class VolumeError(Struct):
    """Why it did not work."""

    message: str = ""
    time: datetime | None = None


class VolumeAttachmentStatus(Struct):
    """Whether it is attached."""

    attached: bool = False
    attach_error: VolumeError | None = None
    detach_error: VolumeError | None = None


class VolumeAttachment(Object):
    """A volume that a node has, where the driver has such a step; NFS has none."""

    resource: ClassVar[Resource] = Resource(
        "storage.k8s.io/v1", "volumeattachments", "VolumeAttachment", namespaced=False
    )

    spec: VolumeAttachmentSpec = VolumeAttachmentSpec()
    status: VolumeAttachmentStatus = VolumeAttachmentStatus()
