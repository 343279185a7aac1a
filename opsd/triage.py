"""Decide what changed: compare a run with the findings that were open before it. Pure.

Only proof resolves a finding. A completed run looked everywhere except where it says that it
could not, so what it no longer yields elsewhere is over. A run that failed proves something
only about the subjects it names as seen; about all others its silence means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from opsd.model import Change, Finding, OpenFinding, Outcome, Run, Severity, Transition, Unseen
from opsd.text import shortened

JOB_CHECK = "job.not_completed"
MISSED_CHECK = "job.missed"  # past: nobody can do anything about it at night
OWN = "opsd"  # in whose name opsd reports on itself; no job can have it
RETRY_TAKES = timedelta(hours=6)  # what jobs may take by default: so long a retry may heal it

_REMEDY = {
    Outcome.FAILED: "opsd history --job {job}; then opsd run-job {job}",
    Outcome.TIMED_OUT: "raise jobs.{job}.timeout, or find what hangs: opsd history --job {job}",
    Outcome.INTERRUPTED: "opsd run-job {job}",
    Outcome.MISSED: "opsd run-job {job}",
}


def findings_of(run: Run) -> tuple[Finding, ...]:
    """The run's findings and, when it did not complete, one about the run itself.

    A skipped run says nothing: the run that holds the lease will. What a run found that is
    tried again is not worth a message before that try has had its time.
    """
    if run.outcome in (Outcome.COMPLETED, Outcome.SKIPPED):
        return run.findings
    is_missed = run.outcome is Outcome.MISSED
    about_run = Finding(
        check=MISSED_CHECK if is_missed else JOB_CHECK,
        subject=f"job/{run.job}",
        severity=Severity.WARNING if is_missed else Severity.CRITICAL,
        summary=shortened(f"{run.job} {run.outcome.value.replace('_', ' ')}: {run.error}", 120),
        remedy=_REMEDY[run.outcome].format(job=run.job),
        facts={"run_id": run.run_id, "slot": run.slot.isoformat(), "error": run.error},
        cause=_worst_subject(run.findings) if run.outcome is Outcome.FAILED else "",
    )
    return tuple(_patient(finding, run) for finding in (*run.findings, about_run))


def _patient(finding: Finding, run: Run) -> Finding:
    if run.retry_at is None:
        return finding
    wait = run.retry_at - (run.started_at + run.duration) + RETRY_TAKES
    return replace(finding, steady_for=max(finding.steady_for, wait))


def _worst_subject(findings: Iterable[Finding]) -> str:
    """The subject of the most severe one, the first of equals; empty when none needs anybody."""
    told = [finding for finding in findings if finding.severity > Severity.INFO]
    return max(told, key=lambda finding: finding.severity).subject if told else ""


def transitions(
    run: Run, open_before: Iterable[OpenFinding], *, at: datetime
) -> Iterator[Transition]:
    """Yield what `run` changed.

    Args:
        run: the run that just ended.
        open_before: the open findings of the same job.
        at: when the run ended, aware UTC: the opening time of what is new.
    """
    return changes(
        run.job,
        findings_of(run),
        open_before,
        at=at,
        is_over=lambda finding: _was_looked_at(finding.subject, run),
    )


def _was_looked_at(subject: str, run: Run) -> bool:
    if any(Unseen(subject=unseen).covers(subject) for unseen in run.unseen):
        return False
    return run.outcome is Outcome.COMPLETED or subject in run.seen


def changes(
    job: str,
    findings: Iterable[Finding],
    open_before: Iterable[OpenFinding],
    *,
    at: datetime,
    is_over: Callable[[Finding], bool],
) -> Iterator[Transition]:
    """Yield the difference between what was open and what is found now.

    Args:
        job: in whose name.
        findings: what is found now.
        open_before: the open findings of the same job.
        at: now, aware UTC: the opening time of what is new.
        is_over: whether one that was open, and is not found now, is proven to be gone.
    """
    known = {entry.finding.key: entry for entry in open_before}
    now = {finding.key: finding for finding in findings}
    for key, finding in now.items():
        before = known.get(key)
        if before is None:
            yield Transition(change=Change.OPENED, finding=finding, job=job, opened_at=at)
        elif finding.severity != before.finding.severity:
            worse = finding.severity > before.finding.severity
            yield Transition(
                change=Change.WORSENED if worse else Change.EASED,
                finding=finding,
                job=job,
                opened_at=before.opened_at,
            )
    for key, before in known.items():
        if key not in now and is_over(before.finding):
            yield Transition(
                change=Change.RESOLVED,
                finding=before.finding,
                job=job,
                opened_at=before.opened_at,
            )
