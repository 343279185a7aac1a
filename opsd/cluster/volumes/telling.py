"""How findings about volumes are worded: which case is named, and the command to run first."""

from __future__ import annotations

from collections.abc import Sequence

from opsd.clients.kube.objects import PersistentVolume
from opsd.cluster.volumes.storage import Storage, User, capacity_bytes, claim_of
from opsd.model import Fact, Finding, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120
CLUSTER = "cluster/volumes"  # subject of what belongs to no class
PAGE = "docs/volumes.md"


def finding(
    check: str,
    subject: str,
    severity: Severity,
    summary: str,
    remedy: str,
    **facts: Fact,
) -> Finding:
    """A finding whose texts fit on the screen, whatever the names in them are."""
    return Finding(
        check=check,
        subject=printable(subject),
        severity=severity,
        summary=shortened(printable(summary), SUMMARY_CHARACTERS),
        remedy=printable(remedy),
        facts={
            key: printable(value) if isinstance(value, str) else value
            for key, value in facts.items()
        },
    )


def others(count: int) -> str:
    """`` and 3 more``; nothing when there are none."""
    return f" and {count} more" if count else ""


def worst_of(volumes: Sequence[PersistentVolume], storage: Storage) -> PersistentVolume:
    """A database's before others, then the largest."""

    def rank(volume: PersistentVolume) -> tuple[bool, int, str]:
        return (bool(databases(volume, storage)), capacity_bytes(volume), volume.name)

    return max(volumes, key=rank)


def databases(volume: PersistentVolume, storage: Storage) -> tuple[User, ...]:
    """The database pods that use the volume's claim."""
    users = storage.users_of(claim_of(volume))
    return tuple(user for user in users if user.is_database)


def retain_command(volume: PersistentVolume) -> str:
    """The command after which the data outlives its claim."""
    patch = '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}'
    return f"kubectl patch pv {volume.name} -p '{patch}'"
