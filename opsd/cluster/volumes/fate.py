"""Somebody deletes a claim: what becomes of the data? Told before it happens. Pure.

The answer is spread over the volume, its class, the class's parameters at that time, and the
version of the program that acts. Sources: nfs-subdir-external-provisioner,
cmd/nfs-subdir-external-provisioner/provisioner.go (``Delete``), releases 4.0.2 and master;
csi-driver-nfs, pkg/nfs/controllerserver.go (``DeleteVolume``), docs/driver-parameters.md.

Limits: of a driver that is not known here it is said that Delete destroys, as nearly all do.
csi-driver-nfs may be started with another default than delete, which is not looked at.
"""

from __future__ import annotations

import enum
import posixpath
from dataclasses import dataclass

from opsd.clients.kube.objects import PersistentVolume, StorageClass
from opsd.cluster.volumes.storage import (
    CSI_NFS,
    PROVISIONED_BY,
    Place,
    Provisioner,
    Storage,
    claim_of,
    place_of,
)

FIRST_PATTERN, FIRST_FIXED = (4, 0, 0), (4, 0, 3)  # releases with the basename defect
_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE"})  # Go's strconv.ParseBool
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
_SUBDIR_PARAMETERS = frozenset({"archiveOnDelete", "onDelete", "pathPattern"})
_SUBDIR_NAMES = ("nfs-subdir", "nfs-client", "fuseim.pri/ifs")
_ON_DELETE_AT = 4  # in a volume handle of csi-driver-nfs: server#base#subdir#uuid#onDelete


class Kind(enum.StrEnum):
    """What becomes of the data when the claim is deleted."""

    KEPT = "kept"  #: the volume stays, Released
    LEFT = "left"  #: the data stays; the volume, which says whose it was, goes
    ARCHIVED = "archived"  #: renamed to archived-NAME
    DESTROYED = "destroyed"
    MISDIRECTED = "misdirected"  #: done to the directory of the same name one level up
    FAILS = "fails"  #: nothing can delete it: the data stays, the volume is Failed


RISKS = frozenset({Kind.DESTROYED, Kind.MISDIRECTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one volume's data."""

    kind: Kind
    victim: Place | None = None  #: the directory that is removed or renamed by mistake
    removes: bool = False  #: of MISDIRECTED: removed and not renamed

    def effect(self, volume: PersistentVolume) -> str:
        """The effect in words: ``deleting claim db/data-0 removes nas:/export/a for good``."""
        where = place_of(volume) or f"the data of {volume.name}"
        done = {
            Kind.KEPT: f"keeps {where}; the volume becomes Released",
            Kind.LEFT: f"leaves {where} behind without a volume",
            Kind.ARCHIVED: f"renames {where} to archived-{_base(where)}",
            Kind.DESTROYED: f"removes {where} for good",
            Kind.MISDIRECTED: self._misdirected(),
            Kind.FAILS: f"leaves {where} and a volume that is Failed",
        }[self.kind]
        owner = claim_of(volume)
        return f"deleting {f'claim {owner}' if owner else f'volume {volume.name}'} {done}"

    def _misdirected(self) -> str:
        if self.removes:
            return f"removes {self.victim} for good, if it exists"
        return f"renames {self.victim}, if it exists"


def fate(volume: PersistentVolume, storage: Storage) -> Fate:
    """What deleting the claim of `volume` does to its data."""
    match volume.spec.persistent_volume_reclaim_policy:
        case "Retain" | "":
            return Fate(kind=Kind.KEPT)
        case "Recycle":
            return Fate(kind=Kind.DESTROYED)
    known = storage.classes.get(volume.spec.storage_class_name)
    provisioner = volume.annotations.get(PROVISIONED_BY, "")
    if not provisioner:
        return Fate(kind=Kind.FAILS)
    if volume.spec.csi is not None:
        return Fate(kind=_by_driver(volume.spec.csi.driver, volume.spec.csi.volume_handle))
    if volume.spec.nfs is not None and _is_subdir(provisioner, known, storage):
        return _by_subdir_provisioner(volume, provisioner, known, storage)
    return Fate(kind=Kind.DESTROYED)


def class_kind(one: StorageClass, storage: Storage) -> Kind:
    """What becomes of the data of a volume that the class makes, as far as the class says."""
    if one.reclaim_policy == "Retain":
        return Kind.KEPT
    if one.provisioner == CSI_NFS:
        told = {key.lower(): value for key, value in one.parameters.items()}
        return _on_delete(told.get("ondelete", ""))
    if _is_subdir(one.provisioner, one, storage):
        return _by_parameters(one)
    return Kind.DESTROYED


def is_misdirecting(one: StorageClass, storage: Storage) -> bool:
    """Whether a defective release would act on other directories than those of the class."""
    acting = [each for each in storage.provisioners if each.name == one.provisioner]
    below = "/" in one.parameters.get("pathPattern", "").strip("/")
    acts = class_kind(one, storage) in (Kind.DESTROYED, Kind.ARCHIVED)
    return acts and below and any(map(_is_defective, acting))


def _by_driver(driver: str, handle: str) -> Kind:
    if driver != CSI_NFS:
        return Kind.DESTROYED
    return _on_delete("".join(handle.split("#")[_ON_DELETE_AT : _ON_DELETE_AT + 1]))


def _on_delete(value: str) -> Kind:
    return {"retain": Kind.LEFT, "archive": Kind.ARCHIVED}.get(value.lower(), Kind.DESTROYED)


def _is_subdir(provisioner: str, known: StorageClass | None, storage: Storage) -> bool:
    """Whether it is nfs-subdir-external-provisioner, whose name everyone chooses."""
    named = any(part in provisioner for part in _SUBDIR_NAMES)
    seen = any(one.name == provisioner for one in storage.provisioners)
    return named or seen or bool(known and _SUBDIR_PARAMETERS & known.parameters.keys())


def _by_subdir_provisioner(
    volume: PersistentVolume, provisioner: str, known: StorageClass | None, storage: Storage
) -> Fate:
    if known is None:
        return Fate(kind=Kind.FAILS)  # it reads the class when it deletes
    kind = _by_parameters(known)
    place = place_of(volume)
    acting = next((one for one in storage.provisioners if one.name == provisioner), None)
    victim = _victim(place, acting) if place and acting else None
    if victim and kind in (Kind.DESTROYED, Kind.ARCHIVED):
        return Fate(kind=Kind.MISDIRECTED, victim=victim, removes=kind is Kind.DESTROYED)
    return Fate(kind=kind)


def _by_parameters(one: StorageClass) -> Kind:
    match one.parameters.get("onDelete"):
        case "delete":
            return Kind.DESTROYED
        case "retain":
            return Kind.LEFT
    archive = one.parameters.get("archiveOnDelete", "true")
    if archive in _FALSE:
        return Kind.DESTROYED
    return Kind.ARCHIVED if archive in _TRUE else Kind.FAILS


def _victim(place: Place, acting: Provisioner) -> Place | None:
    """The directory that a defective release takes for the volume's; None: the right one."""
    if not _is_defective(acting):
        return None
    taken = posixpath.join(acting.path, posixpath.basename(place.path))
    return None if taken == place.path else Place(server=place.server, path=taken)


def _is_defective(acting: Provisioner) -> bool:
    return bool(acting.version and FIRST_PATTERN <= acting.version < FIRST_FIXED)


def _base(where: Place | str) -> str:
    return posixpath.basename(where.path) if isinstance(where, Place) else where
