"""What has no backup that is young enough is named; nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opsd.backup.catalog import Backup
from opsd.backup.coverage import newest_good, not_covered
from opsd.backup.manifest import Manifest, Verification
from opsd.model import Severity

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
WANTED = timedelta(hours=36)
SECOND = timedelta(seconds=1)


def severity(newest: timedelta | None, exists: timedelta | None) -> Severity | None:
    """Of the finding about something of these ages; None when there is none."""
    finding = not_covered(
        "server/x",
        newest=None if newest is None else NOW - newest,
        exists_since=None if exists is None else NOW - exists,
        now=NOW,
        wanted_age=WANTED,
    )
    return finding.severity if finding else None


@pytest.mark.parametrize(
    ("newest", "exists", "told"),
    [
        (WANTED, None, None),
        (WANTED + SECOND, None, Severity.WARNING),
        (3 * WANTED, None, Severity.WARNING),
        (3 * WANTED + SECOND, None, Severity.CRITICAL),
        (None, WANTED, None),
        (None, WANTED + SECOND, Severity.WARNING),
        (None, 3 * WANTED + SECOND, Severity.CRITICAL),
        (WANTED, timedelta(days=900), None),
        (WANTED + SECOND, SECOND, Severity.WARNING),
        (None, None, Severity.WARNING),
        (-SECOND, None, None),
    ],
)
def test_what_is_older_than_wanted_is_named_and_three_times_as_old_is_critical(
    newest: timedelta | None, exists: timedelta | None, told: Severity | None
) -> None:
    assert severity(newest, exists) is told


def backup(age: timedelta, *, ok: bool) -> Backup:
    manifest = Manifest(
        kind="pg_dump",
        subject="database/x/app",
        slot=NOW - age,
        run_id="0123456789ab",
        created_at=NOW - age,
        key="k",
        size_bytes=1,
        sha256="0" * 64,
    )
    proof = Verification(level="read_back", at=NOW, ok=ok)
    return Backup(key="k.json", manifest=manifest, verifications=(proof,))


def test_only_good_backups_cover() -> None:
    old, damaged = backup(2 * WANTED, ok=True), backup(SECOND, ok=False)

    assert newest_good([damaged, old]) == NOW - 2 * WANTED
    assert newest_good([damaged]) is None
    assert newest_good([]) is None
