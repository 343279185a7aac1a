"""Which data is one command away from its end: told per class, with the worst case named.

Pure. Each finding counts the other cases, and ends when its cause is gone.

Limits: whether data is worth keeping is not known here; a scratch volume counts as any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from opsd.clients.kube.objects import PersistentVolume, StorageClass
from opsd.cluster.volumes.fate import RISKS, Fate, Kind, class_kind, is_misdirecting
from opsd.cluster.volumes.storage import (
    Place,
    Storage,
    User,
    capacity_bytes,
    claim_of,
    place_of,
)
from opsd.cluster.volumes.telling import (
    PAGE,
    databases,
    finding,
    others,
    retain_command,
    worst_of,
)
from opsd.model import Finding, Severity

_PAST = frozenset({"Released", "Failed"})  # their claim is deleted already
_SOFT, _HARD = frozenset({"soft", "softerr"}), "hard"


def risks(storage: Storage, fates: Mapping[str, Fate]) -> Iterator[Finding]:
    """Findings about data that a deletion, or a slow file server, would destroy.

    Args:
        storage: what there is.
        fates: of every volume, by its name.
    """
    yield from _destroying(storage, fates)
    yield from _misdirected(storage, fates)
    yield from _shared(storage, fates)
    yield from _soft(storage)


def _destroying(storage: Storage, fates: Mapping[str, Fate]) -> Iterator[Finding]:
    """Per class: claims whose deletion destroys data, or would."""
    by_class: dict[str, list[PersistentVolume]] = defaultdict(list)
    for volume in storage.volumes:
        if fates[volume.name].kind is Kind.DESTROYED and volume.status.phase not in _PAST:
            by_class[volume.spec.storage_class_name].append(volume)
    for name, volumes in sorted(by_class.items()):
        open_ = [volume for volume in volumes if not storage.is_protected(volume)]
        if open_:
            worst = worst_of(open_, storage)
            yield finding(
                "volumes.deletion_destroys",
                f"storageclass/{name or '-'}",
                Severity.WARNING,
                f"deleting a claim destroys its data at once: {claim_of(worst) or worst.name}"
                + others(len(open_) - 1),
                f"retain = [...] in [jobs.pv-guard], or: {retain_command(worst)}",
                effect=fates[worst.name].effect(worst),
                volumes=len(open_),
                capacity_bytes=sum(map(capacity_bytes, open_)),
                protected=len(volumes) - len(open_),
            )
    for one in storage.classes.values():
        if one.name not in by_class and class_kind(one, storage) is Kind.DESTROYED:
            yield _unused(one)


def _unused(one: StorageClass) -> Finding:
    return finding(
        "volumes.deletion_destroys",
        f"storageclass/{one.name}",
        Severity.INFO,
        "deleting a claim of this class would destroy its data at once",
        f"a class with reclaimPolicy: Retain; {PAGE}",
        volumes=0,
    )


def _misdirected(storage: Storage, fates: Mapping[str, Fate]) -> Iterator[Finding]:
    """Per class: volumes in whose place a defective provisioner deletes another directory."""
    places = {str(place): volume for volume in storage.volumes if (place := place_of(volume))}
    by_class: dict[str, list[PersistentVolume]] = defaultdict(list)
    for volume in storage.volumes:
        if fates[volume.name].kind is Kind.MISDIRECTED:
            by_class[volume.spec.storage_class_name].append(volume)
    for name, volumes in sorted(by_class.items()):
        hit = [volume for volume in volumes if str(fates[volume.name].victim) in places]
        worst = worst_of(hit or volumes, storage)
        yield finding(
            "volumes.provisioner_misdirected",
            f"storageclass/{name or '-'}",
            Severity.CRITICAL if hit else Severity.WARNING,
            f"deleting claim {claim_of(worst) or worst.name} hits "
            + _victim_words(places.get(str(fates[worst.name].victim)))
            + others(len(volumes) - 1),
            f"delete no claim of the class; set Retain: {PAGE}#the-provisioner-that-misses",
            effect=fates[worst.name].effect(worst),
            volumes=len(volumes),
            hits=len(hit),
        )
    for one in storage.classes.values():
        if one.name not in by_class and is_misdirecting(one, storage):
            yield finding(
                "volumes.provisioner_misdirected",
                f"storageclass/{one.name}",
                Severity.INFO,
                "the provisioner would take other directories for those of this class",
                f"a newer provisioner, or a pathPattern without /: {PAGE}",
                path_pattern=one.parameters["pathPattern"],
                volumes=0,
            )


def _victim_words(victim: PersistentVolume | None) -> str:
    if victim is None:
        return "another directory than its own"
    return f"the data of {claim_of(victim) or victim.name}"


def _shared(storage: Storage, fates: Mapping[str, Fate]) -> Iterator[Finding]:
    """Volumes that lie in the same directory, or one in the other."""
    for outer, inside in _nests(storage.volumes):
        risky = [one for one in inside if fates[one.name].kind in RISKS | {Kind.ARCHIVED}]
        named = " and ".join(sorted(claim_of(one) or one.name for one in inside)[:2])
        yield finding(
            "volumes.directory_shared",
            f"directory/{outer}",
            Severity.WARNING if risky else Severity.INFO,
            f"{len(inside)} volumes are the same data: {named}{others(len(inside) - 2)}",
            f"set Retain for each: {PAGE}" if risky else "fine if it is meant so",
            effect=fates[risky[0].name].effect(risky[0]) if risky else "",
            volumes=len(inside),
        )


def _nests(
    volumes: Iterable[PersistentVolume],
) -> Iterator[tuple[Place, list[PersistentVolume]]]:
    """Outermost directories with all volumes in them, where there are several."""
    placed = [(place, volume) for volume in volumes if (place := place_of(volume))]
    placed.sort(key=lambda one: (one[0].server, one[0].path.split("/"), one[1].name))
    outer: Place | None = None
    inside: list[PersistentVolume] = []
    for place, volume in placed:
        if outer is not None and outer.holds(place):
            inside.append(volume)
            continue
        if outer is not None and len(inside) > 1:
            yield outer, inside
        outer, inside = place, [volume]
    if outer is not None and len(inside) > 1:
        yield outer, inside


def _soft(storage: Storage) -> Iterator[Finding]:
    """Per class: databases whose file system answers with errors when the server is slow."""
    by_class: dict[str, list[tuple[PersistentVolume, User]]] = defaultdict(list)
    for volume in storage.volumes:
        users = databases(volume, storage)
        if users and _is_soft(volume):
            by_class[volume.spec.storage_class_name].append((volume, users[0]))
    for name, pairs in sorted(by_class.items()):
        worst = worst_of([volume for volume, _ in pairs], storage)
        user = next(user for volume, user in pairs if volume is worst)
        yield finding(
            "volumes.soft_mount",
            f"storageclass/{name or '-'}",
            Severity.WARNING,
            f"database pod {user.namespace}/{user.name} is on a soft mount: a slow server "
            f"corrupts it{others(len(pairs) - 1)}",
            f"hard in the mountOptions of the class and of volume {worst.name}, then new pods",
            mount_options=",".join(worst.spec.mount_options),
            volumes=len(pairs),
        )


def _is_soft(volume: PersistentVolume) -> bool:
    """The last of hard and soft counts, as for mount(8)."""
    options = ",".join(volume.spec.mount_options).split(",")
    spoken = [option for option in options if option in _SOFT or option == _HARD]
    return bool(spoken) and spoken[-1] in _SOFT
