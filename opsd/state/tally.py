"""What came of a stretch of time: the runs behind a report, counted. Pure.

Runs are taken one at a time, so a year of them costs no more memory than the names in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from opsd.model import Finding, Outcome, Run
from opsd.triage import findings_of

Key = tuple[str, str, str]  # of a finding: job, check, subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the recorded runs say, about the time since then and about the newest backups."""

    #: By job: how its slots ended, each counted once by its last try.
    outcomes: Mapping[str, Mapping[Outcome, int]] = field(default_factory=dict)
    #: By job: slots that completed at a later try than the first.
    healed: Mapping[str, int] = field(default_factory=dict)
    backups: int = 0  #: made and read back, each once however many repositories hold it
    newest: Mapping[str, datetime] = field(
        default_factory=dict
    )  #: by subject of a backup: its slot
    #: What runs found, as they last saw it; also of the last run of each job before that time.
    found: Mapping[Key, Finding] = field(default_factory=dict)


def tally(runs: Iterable[Run], *, since: datetime) -> Tally:
    """Count `runs`, which come newest first.

    Args:
        runs: recorded ones, of all jobs.
        since: aware UTC; runs that started before it count only for what was open then, and
            for the newest backups.
    """
    counting = _Counting(since)
    for run in runs:
        counting.take(run)
    return counting.result()


class _Counting:
    def __init__(self, since: datetime) -> None:
        self._since = since
        self._outcomes: dict[str, dict[Outcome, int]] = {}
        self._healed: dict[str, int] = {}
        self._slots: set[tuple[str, datetime]] = set()
        self._backups: set[str] = set()
        self._newest: dict[str, datetime] = {}
        self._found: dict[Key, Finding] = {}
        self._opened_before: set[str] = set()  # jobs whose last run before then was seen

    def take(self, run: Run) -> None:
        for artifact in run.artifacts:
            slot = self._newest.get(artifact.subject, run.slot)
            self._newest[artifact.subject] = max(slot, run.slot)
        if run.started_at >= self._since:
            self._count(run)
            self._remember_findings(run)
        elif run.job not in self._opened_before and run.outcome is not Outcome.SKIPPED:
            self._opened_before.add(run.job)
            self._remember_findings(run)

    def result(self) -> Tally:
        return Tally(
            outcomes=self._outcomes,
            healed=self._healed,
            backups=len(self._backups),
            newest=self._newest,
            found=self._found,
        )

    def _count(self, run: Run) -> None:
        self._backups.update(artifact.key for artifact in run.artifacts)
        if (run.job, run.slot) in self._slots:
            return
        self._slots.add((run.job, run.slot))
        of_job = self._outcomes.setdefault(run.job, {})
        of_job[run.outcome] = of_job.get(run.outcome, 0) + 1
        if run.outcome is Outcome.COMPLETED and run.attempt > 1:
            self._healed[run.job] = self._healed.get(run.job, 0) + 1

    def _remember_findings(self, run: Run) -> None:
        for finding in findings_of(run):
            self._found.setdefault((run.job, *finding.key), finding)
