"""What a person is told about a share that was backed up: each fact with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from opsd.backup.share.backup import Made
from opsd.backup.share.guards import Share
from opsd.model import Artifact, Finding, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120


def artifact(repository: str, made: Made, *, duration_s: float) -> Artifact:
    """A published backup as the run reports it."""
    manifest = made.manifest
    return manifest.artifact(
        repository=repository,
        key=made.key,
        facts={
            "files": manifest.source["files"],
            "bytes": manifest.source["bytes"],
            "sqlite": sum(1 for one in made.databases if one.method),
            "pgdata": len(made.seen.found.pgdata),
            "changed": made.changed_count,
            "vanished": len(made.vanished),
            "duration_s": round(duration_s, 3),
        },
    )


def about(share: Share, made: Made) -> Iterator[Finding]:
    """What a person should know about a backup that succeeded."""
    if made.changed_count:
        yield _note(
            share,
            "nfs.changed_while_read",
            f"{_counted(made.changed_count, 'file')} changed while being read, twice",
            "back up at a quieter time, or exclude them",
            first=printable(made.changed[0]),
        )
    lost = [one for one in made.databases if not one.method]
    if lost:
        yield _note(
            share,
            "nfs.sqlite_not_copied",
            f"{_counted(len(lost), 'SQLite database')} without a consistent copy in the backup",
            "stop their writers for the backup, or run opsd where they run",
            first=printable(lost[0].path),
            reason=printable(lost[0].reason),
        )
    trees = made.seen.found.pgdata
    if trees:
        yield _note(
            share,
            "nfs.pgdata_excluded",
            f"{_counted(len(trees), 'live PostgreSQL directory')} left out of the copy",
            "are their servers in [[jobs.postgres-backup.servers]]?",
            severity=Severity.INFO,
            first=printable(trees[0]),
        )


def _note(
    share: Share,
    check: str,
    summary: str,
    remedy: str,
    *,
    severity: Severity = Severity.WARNING,
    **facts: str,
) -> Finding:
    return Finding(
        check=check,
        subject=share.subject,
        severity=severity,
        summary=shortened(summary, SUMMARY_CHARACTERS),
        remedy=remedy,
        facts=facts,
    )


def _counted(count: int, noun: str) -> str:
    """``1 file``, ``2 files``, ``2 directories``."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"
