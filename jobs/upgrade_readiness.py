"""Can I upgrade Kubernetes, to what, and what would break?

Reads the cluster through its API and the nodes over SSH, asks some fifty checks about each step
to the target, and reports a verdict with evidence, fixes and the runbook for this very cluster.
Nothing is changed anywhere. What could not be read is unknown, never fine.

Limits: opsd judges by a table of releases that comes with it; a target that is not in it is
refused. Without [ssh] everything that lies on the nodes is unknown, and some of that blocks.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial

from pydantic import Field, field_validator

from opsd.backup.newest import newest_good
from opsd.clock import Deadline
from opsd.config import RepositoryName, Table
from opsd.errors import DeadlineExceeded, OpsdError
from opsd.job import Context, Job, Observation
from opsd.model import Severity
from opsd.upgrade import memory, releases, telling
from opsd.upgrade.assessment import assess
from opsd.upgrade.check import Hop
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import Facts
from opsd.upgrade.gather import Wanted, read_cluster
from opsd.upgrade.handshakes import shown_by
from opsd.upgrade.page import Plan, report
from opsd.upgrade.planning import hops_to
from opsd.upgrade.reading import Reading, Unreadable
from opsd.upgrade.runbook import runbook
from opsd.upgrade.version import Minor, Version
from opsd.upgrade.visiting import read_machines

MEMORY = "last.json"  # in the scratch directory
CLUSTER_S = 60.0  # for everything that the API is asked
BACKUPS_S = 20.0
ETCD_PREFIX = "etcd/"


class Settings(Table):
    """Settings of upgrade-readiness."""

    to: str = Field(
        "",
        description="release to go to; empty: the next one; opsd run-job has --to for others",
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
    ctx.progress.update("ask the cluster")
    kube = ctx.kube.until(Deadline.after(CLUSTER_S, ctx.clock))
    table = releases.table()
    target = Minor.parse(settings.to) if settings.to else None
    hops = hops_to(Version.parse(kube.version()), target, table)
    removed = tuple(api for hop in hops if (known := table.of(hop.target)) for api in known.apis)
    wanted = Wanted(removed_apis=removed, helm=settings.helm)
    facts = read_cluster(kube, wanted, at=ctx.clock.now())
    ctx.progress.update("ask the machines")
    facts = dataclasses.replace(
        facts,
        machines=read_machines(ctx.fleet, CHECKS, facts),
        shown=shown_by(facts.nodes),
        backups=_backups(ctx, settings),
        own_pod=_own_pod(facts),
    )
    ctx.remaining()
    assessment = assess(facts, hops, CHECKS, known_as_of=table.asof)
    place = ctx.scratch / MEMORY
    since = memory.difference(memory.read(place), assessment)
    yield from telling.observations(assessment, since)
    old = (
        "This is old: newer releases are not known to it" if table.is_old(facts.at.date()) else ""
    )
    yield report(assessment, [_plan(facts, hop) for hop in hops], since, warnings=old)
    if not ctx.dry_run:
        memory.write(place, assessment)


def _plan(facts: Facts, hop: Hop) -> Plan:
    try:
        return Plan(hop=hop, steps=runbook(facts, hop))
    except Unreadable as exc:
        return Plan(hop=hop, problem=str(exc))


def _backups(ctx: Context, settings: Settings) -> Reading[Mapping[str, datetime]]:
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


def _own_pod(facts: Facts) -> str:
    """UID of the pod that opsd is, by its host name; empty: it is none."""
    if facts.pods.problem is not None:
        return ""
    name = socket.gethostname()
    own = [pod for pod in facts.pods.value if pod.name == name]
    return own[0].uid if len(own) == 1 else ""


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
