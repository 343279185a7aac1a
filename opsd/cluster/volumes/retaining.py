"""Set volumes to Retain, so that deleting a claim deletes no data; only where the owner said so.

The policy before stands in an annotation of the volume, so that it can be undone. A volume whose
policy somebody set back is left alone from then on: the annotation says that it was decided.

Limits: a claim that is created tonight is safe from the next run on, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import structlog

from opsd.clients.kube.errors import Conflict, NotFound
from opsd.clients.kube.objects import PersistentVolume
from opsd.cluster.volumes.storage import Storage, claim_of
from opsd.cluster.volumes.whole import POLICY_BEFORE

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A volume that is to be kept."""

    volume: PersistentVolume
    refused: str = ""  #: why it is left alone; empty: it is set


def wanted(storage: Storage, patterns: Sequence[str]) -> Iterator[Wanted]:
    """The volumes of the claims that a pattern names and whose policy is not Retain.

    Args:
        storage: what there is.
        patterns: ``namespace/claim`` with ``*`` and ``?``.
    """
    for volume in storage.volumes:
        owner = claim_of(volume)
        if volume.spec.persistent_volume_reclaim_policy == "Retain" or not any(
            fnmatchcase(owner, pattern) for pattern in patterns
        ):
            continue
        yield Wanted(volume=volume, refused=_refusal(volume))


def _refusal(volume: PersistentVolume) -> str:
    if POLICY_BEFORE in volume.annotations:
        return f"somebody set it back: its annotation {POLICY_BEFORE} is there"
    if volume.status.phase != "Bound":
        return f"it is {volume.status.phase or 'not bound'}"
    return ""


def retain(kube: Kube, one: Wanted) -> PersistentVolume | None:
    """Set one volume to Retain, if it is still as it was seen; None: it was left alone.

    Raises:
        Forbidden: opsd may not patch volumes.
        TransientError, PermanentError: as `Kube.patch_merge`.
    """
    volume = one.volume
    if one.refused:
        log.info("volume.retention_refused", volume=volume.name, reason=one.refused)
        return None
    before = volume.spec.persistent_volume_reclaim_policy
    change = {
        "metadata": {"annotations": {POLICY_BEFORE: before}},
        "spec": {"persistentVolumeReclaimPolicy": "Retain"},
    }
    try:
        done = kube.patch_merge(volume, change, unchanged=True)
    except (Conflict, NotFound) as exc:
        log.info("volume.retention_refused", volume=volume.name, reason=str(exc))
        return None
    log.info("volume.retained", volume=volume.name, claim=claim_of(volume), before=before)
    return done
