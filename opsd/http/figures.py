"""Figures of the recorded runs, kept up to date by reading only what is new. Pure, but for that.

Limits: counters begin with the daemon, as counters do. When more than `NEWEST` runs ended
between two readings, the older ones of them are not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from opsd.model import Outcome, Run
from opsd.state import State

NEWEST = 200  # runs that are read at once
RESTORED = "restored"
BUCKETS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)


@dataclass(slots=True)
class Durations:
    """How long the runs of a job took."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, duration_s: float) -> None:
        """Count one run."""
        index = sum(duration_s > limit_s for limit_s in BUCKETS_S)
        self.buckets[index] += 1
        self.sum_s += duration_s


class Figures:
    """What is known of the runs of these jobs."""

    def __init__(self, jobs: Iterable[str]) -> None:
        self._jobs = tuple(jobs)
        self._newest: str | None = None  # id of the run that was read last; None: nothing was read
        self.ended: Counter[tuple[str, Outcome]] = Counter()
        self.durations: dict[str, Durations] = {}
        #: By job and by subject of a backup, empty for the job itself: the end of the last
        #: run that completed, or that made the backup.
        self.succeeded_at: dict[tuple[str, str], datetime] = {}
        self.size_bytes: dict[tuple[str, str], int] = {}  #: by subject and repository
        self.restored_at: dict[str, datetime] = {}  #: by subject

    def read(self, state: State) -> None:
        """Take in what was recorded since the last reading.

        Raises:
            TransientError, PermanentError: the state cannot be read.
        """
        if self._newest is None:
            for job in self._jobs:
                self._take(state.runs(job=job, limit=NEWEST))
            newest = state.runs(limit=1)
            self._newest = newest[0].run_id if newest else ""
            return
        fresh: list[Run] = []
        for run in state.runs(limit=NEWEST):
            if run.run_id == self._newest:
                break
            fresh.append(run)
        self._take(fresh)
        for run in fresh:
            self._count(run)
        if fresh:
            self._newest = fresh[0].run_id

    def _take(self, newest_first: Sequence[Run]) -> None:
        for run in reversed(newest_first):
            ended_at = run.started_at + run.duration
            if run.outcome is Outcome.COMPLETED:
                self.succeeded_at[run.job, ""] = ended_at
            for artifact in run.artifacts:
                self.succeeded_at[run.job, artifact.subject] = ended_at
                self.size_bytes[artifact.subject, artifact.repository] = artifact.size_bytes
                if artifact.level == RESTORED:
                    self.restored_at[artifact.subject] = ended_at

    def _count(self, run: Run) -> None:
        self.ended[run.job, run.outcome] += 1
        if run.outcome not in (Outcome.MISSED, Outcome.SKIPPED):
            durations = self.durations.setdefault(run.job, Durations())
            durations.add(run.duration.total_seconds())
