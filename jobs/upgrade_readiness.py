"""Can I upgrade Kubernetes, to what, and what would break?

Reads the cluster through its API and the nodes over SSH, asks some sixty checks about each step
to the target, and reports a verdict with evidence, fixes and the runbook for this very cluster.
Nothing is changed anywhere. What could not be read is unknown, never fine.

Limits: opsd judges by a table of releases that comes with it; a target that is not in it is
refused. Without [ssh] everything that lies on the nodes is unknown, and some of that blocks.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from opsd.backup.newest import newest_good
from opsd.clock import Deadline
from opsd.config import RepositoryName, Table
from opsd.errors import DeadlineExceeded, OpsdError
from opsd.job import Context, Job, Observation
from opsd.model import Severity
from opsd.upgrade.version import Minor

if TYPE_CHECKING:
    from opsd.upgrade.reading import Reading

MEMORY = "last.json"  # in the scratch directory
CLUSTER_S = 60.0  # for everything that the API is asked
BACKUPS_S = 20.0
ETCD_PREFIX = "etcd/"


class Settings(Table):
    """Settings of upgrade-readiness."""

    to: str = Field(
        "",
        description="release to go to; empty, or reached: the next one; run-job has --to as well",
        examples=["1.36"],
    )
    repositories: tuple[RepositoryName, ...] = Field(
        (),
        description="where a fresh snapshot of etcd is looked for",
        examples=[["usb"]],
    )
    helm: bool = Field(
        default=True,
        description="look for removed APIs in Helm's releases, which takes the right to list "
        "Secrets",
    )

    @field_validator("to")
    @classmethod
    def _is_release(cls, value: str) -> str:
        if value:
            Minor.parse(value)
        return value


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Read everything, judge it, and report."""
    # Sixty checks: loaded only when they are asked, not whenever another job is run.
    from opsd.upgrade.readiness import Question, Sources, answer  # noqa: PLC0415

    question = Question(
        at=ctx.clock.now(),
        target=Minor.parse(settings.to) if settings.to else None,
        must_be_ahead=ctx.dry_run,
        helm=settings.helm,
        host=socket.gethostname(),
        memory=ctx.scratch / MEMORY,
        keep=not ctx.dry_run,
    )
    sources = Sources(
        kube=ctx.kube.until(Deadline.after(CLUSTER_S, ctx.clock)),
        fleet=ctx.fleet,
        backups=partial(_backups, ctx, settings),
        progress=ctx.progress.update,
    )
    yield from answer(question, sources)


def _backups(ctx: Context, settings: Settings) -> Reading[Mapping[str, datetime]]:
    from opsd.upgrade.reading import Reading  # noqa: PLC0415 - likewise

    if not settings.repositories:
        fix = "set jobs.upgrade-readiness.repositories to where etcd-backup writes"
        return Reading.failed("repositories", "none is named to look in", fix=fix)
    opened = [partial(ctx.repository, name) for name in settings.repositories]
    try:
        newest = newest_good(opened, (ETCD_PREFIX,), within_s=min(BACKUPS_S, ctx.remaining()))
    except DeadlineExceeded:
        raise
    except OpsdError as exc:
        return Reading.failed("repositories", str(exc))
    return Reading.of(
        {subject: backup.manifest.created_at for subject, (_, backup) in newest.items()}
    )


JOB = Job(
    name="upgrade-readiness",
    summary="say whether Kubernetes can be upgraded, what would break, and how to do it",
    group="cluster",
    schedule="17 6 * * *",
    timeout=timedelta(minutes=10),
    settings=Settings,
    run=run,
    fail_on=Severity.WARNING,
)
