"""Which claims on NFS are in no backup? Those whose directory is on no share that is backed up.

A share is compared with the volumes by the directory of the file server that it is: as it is
mounted, or as its owner says. Pure, but for `search`.

Limits: what a file server calls one directory and a volume another (a link, a bind mount on the
server) are two to opsd. Whether a claim's data may be lost is not known; its owner says so with
``opsd.dev/backup: "false"`` on the claim.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.clients.kube.objects import PersistentVolume, PersistentVolumeClaim
from opsd.cluster.unreadable import unreadable
from opsd.cluster.volumes.directories import Export, export_of, volumes_on
from opsd.cluster.volumes.storage import Place, Storage, claim_of, place_of
from opsd.errors import OpsdError
from opsd.model import Finding, Severity
from opsd.text import printable, shortened

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

BACKUP = "opsd.dev/backup"
PLACE = "cluster/claims"  # the subject of what concerns the search itself
SUMMARY_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class BackedUp:
    """A share that is backed up."""

    name: str
    path: Path  #: on this machine
    export: str = ""  #: ``nas:/export`` or ``/export``, as its owner says; empty: as mounted
    source: str = ""  #: ``nas:/export`` of the mount; empty: it is no NFS mount
    exclude: tuple[str, ...] = ()  #: patterns: a name anywhere, or a /path from its root


def read_storage(kube: Kube) -> Storage:
    """The volumes and claims.

    Raises:
        as `Kube.list`.
    """
    return Storage(
        volumes=tuple(kube.list(PersistentVolume)),
        claims=tuple(kube.list(PersistentVolumeClaim)),
        now=kube.server_time(),
    )


def uncovered(
    storage: Storage, shares: Sequence[BackedUp], *, older_than: timedelta
) -> Iterator[Finding]:
    """Name every bound claim on NFS that no share holds.

    Args:
        storage: the cluster's volumes and claims.
        shares: what is backed up.
        older_than: a claim that is younger may still get its share.

    Raises:
        ConfigError: a share cannot be told from others; the text says what to set.
    """
    covered = {volume for share in shares for volume in _volumes_in(share, storage)}
    claims = {f"{one.namespace}/{one.name}": one for one in storage.claims}
    for volume in sorted(storage.volumes, key=claim_of):
        place, claim = place_of(volume), claims.get(claim_of(volume))
        if place is None or claim is None or volume.name in covered:
            continue
        made_at = claim.metadata.creation_timestamp
        is_young = made_at is not None and storage.now - made_at <= older_than
        if claim.annotations.get(BACKUP) != "false" and not is_young:
            yield _not_covered(claim, volume, place)


def not_seen(exc: OpsdError) -> Finding:
    """The claims could not be looked at: there may be some that nobody backs up."""
    return unreadable(
        [exc],
        subject=PLACE,
        what="claims",
        if_misconfigured="correct the configuration, or set claims = false",
    )


def _volumes_in(share: BackedUp, storage: Storage) -> Iterator[str]:
    if not (share.export or share.source):
        return  # a local directory: no volume lies on it
    export: Export = export_of(
        share.name, share.path, told=share.export, source=share.source, storage=storage
    )
    for path, volumes in volumes_on(export, storage).items():
        if not _is_excluded(path, share.exclude):
            yield from (volume.name for volume in volumes)


def _is_excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a directory, or one above it, is left out of the share's backup."""
    parts = path.split("/")
    above = [posixpath.join(*parts[: count + 1]) for count in range(len(parts))]
    for pattern in patterns:
        candidates = above if "/" in pattern.rstrip("/") else parts
        if any(fnmatch.fnmatchcase(one, pattern.strip("/")) for one in candidates):
            return True
    return False


def _not_covered(claim: PersistentVolumeClaim, volume: PersistentVolume, place: Place) -> Finding:
    where = printable(str(place))
    return Finding(
        check="backup.not_covered",
        subject=f"claim/{claim.namespace}/{claim.name}",
        severity=Severity.WARNING,
        summary=shortened(f"no share that is backed up holds {where}", SUMMARY_CHARACTERS),
        remedy=f'add its share to nfs-backup, or annotate the claim with {BACKUP}: "false"',
        facts={"volume": volume.name, "directory": where},
    )
