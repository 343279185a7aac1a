"""The whole way from a question to a report: read, judge, compare with the last one, tell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.hosts.fleet import Fleet
from opsd.model import Finding, Report, Unseen
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

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

OLD = "This is old: newer releases are not known to it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked."""

    at: datetime  #: now, aware UTC
    target: Minor | None  #: None: the next minor release
    must_be_ahead: bool  #: whether a target that the cluster has reached is a mistake
    helm: bool  #: look into Helm's Secrets
    host: str  #: name of this machine, or of the pod that opsd is
    memory: Path  #: where the last report is remembered
    keep: bool  #: remember this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answer is read from."""

    kube: Kube
    fleet: Fleet
    backups: Callable[[], Reading[Mapping[str, datetime]]]
    progress: Callable[[str], None]  #: told what is being done


def answer(question: Question, sources: Sources) -> Iterator[Finding | Unseen | Report]:
    """The findings and the report.

    Raises:
        ConfigError: opsd does not know the target, or the cluster is there already.
        ConfigError, TransientError, PermanentError: the API server does not answer at all.
        DeadlineExceeded: no time is left.
    """
    table = releases.table()
    sources.progress("ask the cluster")
    server = Version.parse(sources.kube.version())
    target = question.target
    if target is not None and target <= server.minor and not question.must_be_ahead:
        target = None  # it was reached: what comes next?
    hops = hops_to(server, target, table)
    facts = _facts(question, sources, hops)
    assessment = assess(facts, hops, CHECKS, known_as_of=table.asof)
    since = memory.difference(memory.read(question.memory), assessment)
    yield from telling.observations(assessment, since)
    warnings = OLD if table.is_old(question.at.date()) else ""
    yield report(assessment, [_plan(facts, hop) for hop in hops], since, warnings=warnings)
    if question.keep:
        memory.write(question.memory, assessment)


def _facts(question: Question, sources: Sources, hops: tuple[Hop, ...]) -> Facts:
    table = releases.table()
    removed = tuple(api for hop in hops if (known := table.of(hop.target)) for api in known.apis)
    wanted = Wanted(removed_apis=removed, helm=question.helm)
    facts = read_cluster(sources.kube, wanted, at=question.at)
    sources.progress("ask the machines")
    return dataclasses.replace(
        facts,
        machines=read_machines(sources.fleet, CHECKS, facts),
        shown=shown_by(facts.nodes),
        backups=sources.backups(),
        own_pod=_own_pod(facts, question.host),
    )


def _plan(facts: Facts, hop: Hop) -> Plan:
    try:
        return Plan(hop=hop, steps=runbook(facts, hop))
    except Unreadable as exc:
        return Plan(hop=hop, problem=str(exc))


def _own_pod(facts: Facts, host: str) -> str:
    """UID of the pod that opsd is, by its host name; empty: it is none."""
    if facts.pods.problem is not None:
        return ""
    own = [pod for pod in facts.pods.value if pod.name == host]
    return own[0].uid if len(own) == 1 else ""
