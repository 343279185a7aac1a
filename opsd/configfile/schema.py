"""The shape of the whole configuration file: one model, put together from what opsd can run.

The same model checks the file, prints the JSON schema for editors, and lists every key for
the documentation, so the three cannot drift apart.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, create_model

from opsd.config import DirectoryTable, Duration, S3Table, Table, unique_names
from opsd.configfile.tables import (
    AlertsTable,
    HeartbeatTable,
    HttpTable,
    JobTable,
    KubernetesTable,
    MachineTable,
    MaintenanceTable,
    OpsdTable,
    Schedule,
    SshTable,
)
from opsd.job import AnyJob

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]*$"

RepositoryTable = DirectoryTable | S3Table


class Document(Table):
    """The whole file; `document_model` adds the jobs."""

    opsd: OpsdTable = Field(default=OpsdTable(), description="opsd as a whole")
    repositories: dict[
        Annotated[str, Field(pattern=NAME_PATTERN)],
        Annotated[RepositoryTable, Field(discriminator="type")],
    ] = Field(default={}, description="where backups are kept; NAME is yours to choose")
    kubernetes: KubernetesTable = Field(
        default=KubernetesTable(), description="the cluster; not needed for backups"
    )
    ssh: SshTable | None = Field(default=None, description="how opsd logs in to machines")
    machines: Annotated[tuple[MachineTable, ...], AfterValidator(unique_names)] = Field(
        default=(), description="machines besides the nodes of the cluster"
    )
    alerts: AlertsTable = Field(default=AlertsTable(), description="when and where messages go")
    heartbeat: HeartbeatTable | None = Field(
        default=None, description="who is told that opsd is alive"
    )
    http: HttpTable = Field(default=HttpTable(), description="what opsd shows over HTTP")
    maintenance: Annotated[tuple[MaintenanceTable, ...], AfterValidator(unique_names)] = Field(
        default=(), description="times in which work is expected to disturb"
    )
    jobs: Any = Field(default=None, description="what is to run")


def document_model(jobs: Sequence[AnyJob]) -> type[Document]:
    """The model of a whole file in which any of `jobs` may be configured."""
    return _document_model(tuple(jobs))


@functools.cache
def _document_model(jobs: tuple[AnyJob, ...]) -> type[Document]:
    tables: dict[str, Any] = {
        # No default: a job without a table is not configured, whatever its settings need.
        _field_name(job): (_job_table(job), Field(default_factory=_absent, alias=job.name))
        for job in jobs
    }
    jobs_table: Any = create_model(
        "JobsTable",
        __config__=ConfigDict(extra="forbid", frozen=True),
        __doc__="The jobs that are to run; one without a table is not run.",
        **tables,
    )
    document: type[Document] = create_model(
        "Document",
        __base__=Document,
        __doc__="The configuration of opsd.",
        jobs=(jobs_table, Field(default_factory=jobs_table, description="what is to run")),
    )
    return document


def configured(document: Document, job: AnyJob) -> JobTable | None:
    """The table of `job` in a checked file, if it has one."""
    table: JobTable | None = getattr(document.jobs, _field_name(job))
    return table


def _job_table(job: AnyJob) -> type[Table]:
    """What every job has, and the job's own settings."""
    build: Any = create_model  # its stubs do not know several bases
    model: type[Table] = build(
        f"{''.join(part.title() for part in job.name.split('-'))}Table",
        __base__=(job.settings, JobTable),
        __doc__=job.summary,
        schedule=(
            Schedule,
            Field(default=job.schedule, description="cron expression, in the time zone of [opsd]"),
        ),
        timeout=(
            Duration,
            Field(default=job.timeout, description="a run that takes longer is ended"),
        ),
    )
    return model


def _field_name(job: AnyJob) -> str:
    return job.name.replace("-", "_")


def _absent() -> None:
    return None
