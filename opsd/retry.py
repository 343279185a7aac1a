"""Which runs are tried again, and when: those that a second look may heal. Pure.

A run that failed for what may be over in a minute (a refused connection, a busy lock), or whose
process died, is tried again under the same slot. Nobody is told before the last try, unless it
takes too long (`opsd.triage.RETRY_TAKES`).

Limits: a run that timed out is not tried again, since it would again take all of its time. A
slot is never tried when the next one has come, or when it is too late for it to be of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from opsd.cron import Cron
from opsd.model import Finding, Outcome, Run

#: Between the first try and the second, the second and the third, and so on.
PAUSES = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(minutes=30),
    timedelta(hours=1),
)
_NO_TRY = (Outcome.MISSED, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often the slots of a job are tried, and until when."""

    cron: Cron  #: when the job is due: the next slot ends the tries of the one before
    retries: int = 0  #: tries after the first
    catch_up: timedelta | None = None  #: how late a run is still worth it; None: until the next


def with_retry(run: Run, patience: Patience | None, *, at: datetime) -> Run:
    """`run` with the time of the next try of its slot, if there is to be one.

    Args:
        run: one that ended.
        patience: of its job; None: no slot of it is tried again.
        at: now, aware UTC.
    """
    if patience is None or not _is_worth_it(run, patience):
        return run
    retry_at = at + PAUSES[min(run.attempt, len(PAUSES)) - 1]
    return replace(run, retry_at=retry_at) if retry_at < _end(run.slot, patience) else run


def retry_due(runs: Sequence[Run], patience: Patience, *, now: datetime) -> bool:
    """Whether a slot is to be tried again now.

    Args:
        runs: recorded runs of the slot, oldest first.
        patience: of the job.
        now: aware UTC.
    """
    last = runs[-1] if runs else None
    if last is None or last.retry_at is None:
        return False
    return last.retry_at <= now < _end(last.slot, patience)


def next_attempt(runs: Sequence[Run]) -> int:
    """The number of the next try, after recorded `runs` of a slot."""
    return 1 + sum(run.attempt > 0 and run.outcome not in _NO_TRY for run in runs)


def with_earlier_findings(run: Run, earlier: Sequence[Run]) -> Run:
    """`run` with what earlier tries of its slot found about the backups that they made.

    A later try does not make such a backup again, so its silence about it proves nothing.

    Args:
        run: one that ended.
        earlier: recorded runs of its slot, oldest first.
    """
    made = {artifact.subject for one in earlier for artifact in one.artifacts}
    made -= {artifact.subject for artifact in run.artifacts}
    told = {finding.key for finding in run.findings}
    still = tuple(
        finding
        for finding in (earlier[-1].findings if earlier else ())
        if finding.key not in told and _is_about(finding, made)
    )
    return replace(run, findings=(*run.findings, *still)) if still else run


def _is_worth_it(run: Run, patience: Patience) -> bool:
    may_heal = run.outcome is Outcome.INTERRUPTED or (
        run.outcome is Outcome.FAILED and run.may_pass
    )
    return may_heal and 1 <= run.attempt <= patience.retries


def _end(slot: datetime, patience: Patience) -> datetime:
    """When it is too late for another try of `slot`."""
    following = patience.cron.next_slot(slot)
    if patience.catch_up is None:
        return following
    return min(following, slot + patience.catch_up)


def _is_about(finding: Finding, subjects: set[str]) -> bool:
    """Also ``repository/usb/database/main/app`` is about ``database/main/app``."""
    return any(
        finding.subject == subject or finding.subject.endswith(f"/{subject}")
        for subject in subjects
    )
