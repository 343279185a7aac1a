"""After a backup: is it as large as usual, what may go, and what did dead runs leave behind?

Nothing is removed unless this very run's backup of the series succeeded in this
repository. What cannot be removed is told and kept.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from opsd.backup.catalog import Backup, Catalog, Condition, read_catalog
from opsd.backup.manifest import Manifest
from opsd.backup.prune import RemoveFromEngine, no_engine, prune, sweep
from opsd.backup.repository import Repository
from opsd.backup.retention import Plan, plan
from opsd.errors import PermanentError, TransientError
from opsd.model import Finding, Severity
from opsd.text import shortened

if TYPE_CHECKING:
    from opsd.config import Keep

SUMMARY_CHARACTERS = 120
RECENT = 7  # good backups whose median is the usual size


def shrunk(
    manifest: Manifest, before: Sequence[Backup], *, percent: int, repository: str
) -> Iterator[Finding]:
    """Yield a finding if a backup is smaller than usual by `percent` or more.

    Args:
        manifest: the new backup.
        before: the series until now, newest first; only good ones made in the same way
            (compression, encryption) count.
        percent: 1 to 100.
        repository: its name.
    """
    sizes = [
        one.manifest.size_bytes
        for one in before
        if one.condition is Condition.GOOD
        and one.manifest.slot < manifest.slot
        and _way(one.manifest) == _way(manifest)
    ][:RECENT]
    usual = statistics.median(sizes) if sizes else 0
    if usual and manifest.size_bytes <= usual * (100 - percent) / 100:
        lost = round(100 - 100 * manifest.size_bytes / usual)
        yield Finding(
            check="backup.shrunk",
            subject=manifest.subject,
            severity=Severity.WARNING,
            summary=f"the backup is {lost} % smaller than usual",
            remedy="was data removed on purpose? if not, restore an older one: opsd backups list",
            facts={
                "repository": repository,
                "size_bytes": manifest.size_bytes,
                "usual_size_bytes": int(usual),
                "backups_compared": len(sizes),
            },
        )


def damaged(repository: str, catalog: Catalog) -> Iterator[Finding]:
    """Yield a finding if the repository holds what nobody can restore from."""
    if keys := catalog.damaged:
        yield Finding(
            check="backup.damaged",
            subject=f"repository/{repository}",
            severity=Severity.WARNING,
            summary=f"{len(keys)} of its backups damaged or not readable; they do not count",
            remedy="opsd backups list --all; how to go on: docs/repositories.md#damage",
            facts={"newest": keys[-1], "repository": repository},
        )


def clear_leftovers(
    repository: Repository,
    subject: str,
    *,
    dead_runs: frozenset[str],
    now: datetime,
    remove_from_engine: RemoveFromEngine = no_engine,
) -> Iterator[Finding]:
    """End what crashed runs began in one series; yields what a person should look at."""
    try:
        swept = sweep(
            repository,
            subject,
            dead_runs=dead_runs,
            now=now,
            remove_from_engine=remove_from_engine,
        )
    except (TransientError, PermanentError) as exc:
        yield _not_cleared(repository, subject, exc)
        return
    if swept.orphans:
        size = sum(entry.size_bytes for entry in swept.orphans)
        yield Finding(
            check="backup.orphans",
            subject=f"repository/{repository.name}/{subject}",
            severity=Severity.INFO,
            summary=f"{len(swept.orphans)} data objects belong to no backup and no known run",
            remedy="delete them if no other opsd writes to this repository",
            facts={"size_bytes": size, "first": swept.orphans[0].key},
        )


def retain(
    repository: Repository,
    subject: str,
    keep: Keep,
    *,
    now: datetime,
    timezone: tzinfo,
    remove_from_engine: RemoveFromEngine = no_engine,
) -> Iterator[Finding]:
    """Remove what no rule keeps; yields a finding when that is refused or fails.

    Call it only after this run's backup of the series succeeded in `repository`.
    """
    try:
        decided = planned(repository, subject, keep, now=now, timezone=timezone)
        for _ in prune(repository, decided.remove, now=now, remove_from_engine=remove_from_engine):
            pass
    except (TransientError, PermanentError) as exc:
        yield _not_cleared(repository, subject, exc)
        return
    if decided.refused:
        yield Finding(
            check="backup.retention_refused",
            subject=f"repository/{repository.name}/{subject}",
            severity=Severity.WARNING,
            summary=f"no old backup of {subject} was removed"[:SUMMARY_CHARACTERS],
            remedy=decided.refused,
        )


def describe(
    repository: Repository, subject: str, keep: Keep, *, now: datetime, timezone: tzinfo
) -> Iterator[Finding]:
    """Yield what `retain` would do with each backup, and why; changes nothing."""
    decided = planned(repository, subject, keep, now=now, timezone=timezone)
    for verb, decisions in (("keep", decided.keep), ("remove", decided.remove)):
        for backup, reasons in decisions:
            yield Finding(
                check=f"dry_run.{verb}",
                subject=f"repository/{repository.name}/{backup.key}",
                severity=Severity.INFO,
                summary=shortened(f"would {verb}: {', '.join(reasons)}", SUMMARY_CHARACTERS),
            )


def planned(
    repository: Repository, subject: str, keep: Keep, *, now: datetime, timezone: tzinfo
) -> Plan:
    """What `retain` would do now. Changes nothing.

    Raises:
        TransientError, PermanentError: the repository cannot be read.
    """
    backups = read_catalog(repository, f"{subject}/").series(subject)
    return plan(backups, keep, now=now, timezone=timezone)


def _way(manifest: Manifest) -> tuple[object, str]:
    return (manifest.source.get("compression"), manifest.encryption)


def _not_cleared(repository: Repository, subject: str, exc: Exception) -> Finding:
    return Finding(
        check="backup.not_cleared",
        subject=f"repository/{repository.name}/{subject}",
        severity=Severity.WARNING,
        summary=f"old backups or leftovers of {subject} could not be removed"[:SUMMARY_CHARACTERS],
        remedy=f"opsd check, and the rights of opsd in repository {repository.name}",
        facts={"error": str(exc)},
    )
