"""What a person is told about backups of the control plane: each fact with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from opsd.backup.etcd.source import EtcdSource
from opsd.errors import OpsdError
from opsd.model import Fact, Finding, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120
MOST_NAMED = 3


def backup_failed(subject: str, problems: Sequence[tuple[str, OpsdError]]) -> Finding:
    """No member could be backed up.

    Args:
        subject: ``etcd/main``.
        problems: of each that was tried: its name, and why not.
    """
    text = printable(str(problems[0][1])) if problems else "nothing answers"
    told = (f"{printable(name)}: {printable(str(exc))}" for name, exc in problems)
    facts: dict[str, Fact] = {"error": "; ".join(told) if problems[1:] else text}
    return Finding(
        check="etcd.backup_failed",
        subject=subject,
        severity=Severity.CRITICAL,
        summary=shortened(f"not backed up: {text}", SUMMARY_CHARACTERS),
        remedy="opsd check; docs/etcd.md#when-it-fails; older backups are untouched",
        facts=facts,
    )


def files_missing(subject: str, missing: Sequence[str]) -> Finding:
    """The backup lacks files without which the cluster does not come back as it was."""
    named = ", ".join(missing[:MOST_NAMED])
    more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    return Finding(
        check="etcd.files_missing",
        subject=subject,
        severity=Severity.WARNING,
        summary=shortened(f"a rebuild needs what is not there: {named}{more}", SUMMARY_CHARACTERS),
        remedy="docs/etcd.md#files; what is kept elsewhere on purpose: set absent",
        facts={"missing": printable(", ".join(missing)), "files": len(missing)},
    )


def not_drilled(subject: str, exc: Exception | str) -> Finding:
    """It is stored and whole, and nobody tried whether it restores."""
    text = printable(str(exc))
    return Finding(
        check="etcd.not_drilled",
        subject=subject,
        severity=Severity.WARNING,
        summary=shortened(f"not tried whether the snapshot restores: {text}", SUMMARY_CHARACTERS),
        remedy="docs/etcd.md#programs; or set drill = false",
        facts={"error": text},
    )


def drill_failed(subject: str, detail: str) -> Finding:
    """It is what etcd sent, and does not restore."""
    text = printable(detail)
    return Finding(
        check="etcd.drill_failed",
        subject=subject,
        severity=Severity.CRITICAL,
        summary=shortened(f"the snapshot does not restore: {text}", SUMMARY_CHARACTERS),
        remedy="docs/etcd.md#a-snapshot-that-does-not-restore: etcd itself may be damaged",
        facts={"detail": text},
    )


def would_take(subject: str, name: str, source_bytes: int, repositories: Sequence[str]) -> Finding:
    """What a run would do."""
    return Finding(
        check="dry_run.snapshot",
        subject=subject,
        severity=Severity.INFO,
        summary=shortened(
            f"would be taken from {printable(name)} to {', '.join(repositories)}",
            SUMMARY_CHARACTERS,
        ),
        facts={"db_size_bytes": source_bytes},
    )


def facts_of(source: EtcdSource) -> dict[str, Fact]:
    """What people want to know about one at a glance."""
    return {
        "node": source.node,
        "keys": source.promise.keys,
        "revision": source.promise.revision,
        "snapshot_bytes": source.snapshot_bytes,
        "db_in_use_bytes": source.db_in_use_bytes,
        "quota_bytes": source.quota_bytes,
        "files": source.files,
        "members": len(source.members),
        "etcd_version": source.etcd_version,
        "kubernetes_version": source.kubernetes_version,
    }
