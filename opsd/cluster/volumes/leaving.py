"""What is on its way out: deleted claims that a pod still holds, volumes that nobody has.

Pure. A deleted claim that a pod uses looks healthy until that pod ends; then its data goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from opsd.clients.kube.objects import PersistentVolumeClaim
from opsd.cluster.volumes.fate import RISKS, Fate
from opsd.cluster.volumes.storage import Storage, User, capacity_bytes, claim_of
from opsd.cluster.volumes.telling import CLUSTER, PAGE, finding, others, retain_command
from opsd.model import Finding, Severity

WAITS_AFTER = timedelta(minutes=5)  # a deletion that takes longer waits for something
_PVC_PROTECTION = "kubernetes.io/pvc-protection"


def leaving(storage: Storage, fates: Mapping[str, Fate]) -> Iterator[Finding]:
    """Findings about claims and volumes that are deleted, released or failed.

    Args:
        storage: what there is.
        fates: of every volume, by its name.
    """
    yield from _claims_waiting(storage, fates)
    yield from _volumes_waiting(storage)
    yield from _in_phase(storage)


def _claims_waiting(storage: Storage, fates: Mapping[str, Fate]) -> Iterator[Finding]:
    """Per namespace: claims that were deleted and are held only by the pods that use them."""
    by_namespace: dict[str, list[PersistentVolumeClaim]] = defaultdict(list)
    for claim in storage.claims:
        if _waits(claim.metadata.deletion_timestamp, storage):
            by_namespace[claim.namespace].append(claim)
    volumes = {volume.name: volume for volume in storage.volumes}
    for namespace, claims in sorted(by_namespace.items()):
        doomed = [
            claim
            for claim in claims
            if (volume := volumes.get(claim.spec.volume_name)) and fates[volume.name].kind in RISKS
        ]
        worst = (doomed or claims)[0]
        users = storage.users_of(f"{namespace}/{worst.name}")
        yield finding(
            "volumes.claim_waits",
            f"namespace/{namespace}",
            Severity.CRITICAL if doomed else Severity.WARNING,
            _waiting_words(worst, users, is_doomed=bool(doomed)) + others(len(claims) - 1),
            retain_command(volumes[worst.spec.volume_name])
            if doomed
            else f"kubectl describe pvc -n {namespace} {worst.name}",
            claims=len(claims),
            pods=", ".join(user.name for user in users),
            finalizers=", ".join(worst.metadata.finalizers),
            deleted_at=_text(worst.metadata.deletion_timestamp),
        )


def _waiting_words(
    claim: PersistentVolumeClaim, users: tuple[User, ...], *, is_doomed: bool
) -> str:
    goes = "is gone with its data" if is_doomed else "goes"
    if users:
        return f"claim {claim.name} was deleted and {goes} as soon as pod {users[0].name} ends"
    if claim.metadata.finalizers == (_PVC_PROTECTION,):
        return f"claim {claim.name} was deleted and stays, though no pod uses it"
    return f"claim {claim.name} was deleted and is held by {', '.join(claim.metadata.finalizers)}"


def _volumes_waiting(storage: Storage) -> Iterator[Finding]:
    waiting = [
        volume for volume in storage.volumes if _waits(volume.metadata.deletion_timestamp, storage)
    ]
    if waiting:
        first = waiting[0]
        owner = claim_of(first)
        held = f"goes with claim {owner}" if owner else f"is held by {first.metadata.finalizers}"
        yield finding(
            "volumes.volume_waits",
            CLUSTER,
            Severity.WARNING,
            f"volume {first.name} was deleted and {held}{others(len(waiting) - 1)}",
            f"back up what is in it; to bind it again: {PAGE}#getting-a-volume-back",
            volumes=len(waiting),
            deleted_at=_text(first.metadata.deletion_timestamp),
        )


def _waits(deleted_at: datetime | None, storage: Storage) -> bool:
    return deleted_at is not None and storage.now - deleted_at >= WAITS_AFTER


def _in_phase(storage: Storage) -> Iterator[Finding]:
    """Volumes that nobody has any more, and those that could not be deleted."""
    for phase, check, severity, remedy in (
        ("Released", "volumes.released", Severity.INFO, f"bind again, or remove: {PAGE}"),
        ("Failed", "volumes.failed", Severity.WARNING, f"{PAGE}#failed-volumes"),
    ):
        found = [volume for volume in storage.volumes if volume.status.phase == phase]
        if found:
            since = [volume.status.last_phase_transition_time or storage.now for volume in found]
            oldest = found[since.index(min(since))]
            said = f": {oldest.status.message}" if oldest.status.message else ""
            yield finding(
                check,
                CLUSTER,
                severity,
                f"volume {oldest.name} of {claim_of(oldest) or 'no claim'} is {phase}"
                f"{others(len(found) - 1)}{said}",
                remedy,
                volumes=len(found),
                capacity_bytes=sum(map(capacity_bytes, found)),
                oldest_days=(storage.now - min(since)).days,
                message=oldest.status.message,
            )


def _text(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds") if moment else ""
