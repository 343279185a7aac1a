"""Is there a backup that is young enough? Asked of everything that should have one.

A backup job that runs well says nothing about what it never knew. So each thing that should be
backed up is held against the catalogue, whatever became of the run. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from opsd.backup.catalog import Backup, Condition
from opsd.model import Fact, Finding, Severity
from opsd.text import shortened

CRITICAL_AT = 3  # times the wanted age
SUMMARY_CHARACTERS = 120


def newest_good(backups: Iterable[Backup]) -> datetime | None:
    """When the data of the newest good one was complete; None when there is none."""
    good = (one for one in backups if one.condition is Condition.GOOD)
    return max((one.manifest.created_at for one in good), default=None)


def not_covered(
    subject: str,
    *,
    newest: datetime | None,
    exists_since: datetime | None,
    now: datetime,
    wanted_age: timedelta,
) -> Finding | None:
    """A finding, unless there is a good backup that is young enough.

    Args:
        subject: what should be backed up.
        newest: when the data of its newest good backup was complete.
        exists_since: when it was made; what is younger than `wanted_age` may still wait for
            its first backup. None: not known.
        now: the time.
        wanted_age: older than this is too old; three times as old is critical.
    """
    since = newest or exists_since
    age = now - since if since else None
    if age is not None and age <= wanted_age:
        return None
    is_critical = age is not None and age > CRITICAL_AT * wanted_age
    hours = int(age.total_seconds() // 3600) if age else None
    said = "there is no good backup of it" if newest is None else f"no good backup for {hours} h"
    facts: dict[str, Fact] = {"wanted_age_h": int(wanted_age.total_seconds() // 3600)}
    if newest:
        facts["newest_good"] = newest.isoformat()
    return Finding(
        check="backup.not_covered",
        subject=subject,
        severity=Severity.CRITICAL if is_critical else Severity.WARNING,
        summary=shortened(said, SUMMARY_CHARACTERS),
        remedy="opsd history; docs/discovery.md#coverage",
        facts=facts,
    )
