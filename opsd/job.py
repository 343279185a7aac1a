"""What a job is, and what a job is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from opsd.clock import Clock, Deadline
from opsd.model import Artifact, Finding, Report, Seen, Severity, Unseen
from opsd.progress import Progress

if TYPE_CHECKING:
    from opsd.backup.repository import Repository
    from opsd.clients.kube.client import Kube
    from opsd.clients.pgserver import Postgres
    from opsd.config import Table
    from opsd.hosts.fleet import Fleet

SettingsT = TypeVar("SettingsT", bound="Table")
Observation = Finding | Artifact | Seen | Unseen | Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that a run may touch: a job reaches the world through this only."""

    job: str
    run_id: str
    slot: datetime  #: the due time that this run answers, aware UTC, whole seconds
    timezone: tzinfo  #: the operator's; days and weeks of retention are counted in it
    clock: Clock
    deadline: Deadline
    dry_run: bool  #: say what would be done; change nothing anywhere
    progress: Progress
    scratch: Path  #: directory on local disk, kept between runs, private to this job
    dead_runs: frozenset[str]  #: ids of runs known to have ended without finishing
    repository: Callable[[str], Repository]  #: opens a configured repository by its name
    open_postgres: Callable[[], Postgres]  #: makes `postgres`; loads nothing before it is called
    open_kube: Callable[[Deadline], Kube]  #: makes `kube`; loads nothing before it is called
    open_fleet: Callable[[Deadline], Fleet]  #: makes `fleet`; likewise

    @property
    def postgres(self) -> Postgres:
        """What asks and compares PostgreSQL servers; connects to none yet."""
        return self.open_postgres()

    @property
    def kube(self) -> Kube:
        """The configured Kubernetes cluster, until the run's deadline; connects on first use.

        A run without a cluster learns it by the ConfigError of its first call.
        """
        return self.open_kube(self.deadline)

    @property
    def fleet(self) -> Fleet:
        """The machines that opsd can log in to, until the run's deadline.

        A run without [ssh] learns it by the ConfigError of its first call.
        """
        return self.open_fleet(self.deadline)

    def remaining(self) -> float:
        """Seconds left before the deadline; the timeout of every call that can block.

        Raises:
            DeadlineExceeded: no time is left.
        """
        return self.deadline.remaining()


@dataclass(frozen=True, kw_only=True)
class Job(Generic[SettingsT]):
    """A function bound with the constraints under which opsd calls it.

    `run` is a generator: what it yielded before an error stays seen.
    """

    name: str  #: kebab-case: the CLI argument, the table ``[jobs.NAME]`` and the log key
    summary: str  #: one line for ``opsd jobs``
    group: str  #: ``opsd run-job GROUP`` runs all jobs of the group; empty for none
    schedule: str  #: cron expression, the default of ``[jobs.NAME] schedule``
    timeout: timedelta  #: the default of ``[jobs.NAME] timeout``
    settings: type[SettingsT]  #: pydantic model; its defaults are the documented defaults
    run: Callable[[Context, SettingsT], Iterator[Observation]]
    runs_in: Literal["process", "thread"] = "process"  #: ``thread`` only for API polls
    fail_on: Severity = Severity.CRITICAL  #: the default of ``opsd run-job --fail-on``


AnyJob = Job[Any]
