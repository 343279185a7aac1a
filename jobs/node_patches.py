"""Which machines wait for security fixes, which for a reboot, and what stands in the way?

Logs in to every machine once a day and reads what its package manager knows, without root and
without changing anything: what waits and what of it is for security, what is held, whether the
lists behind that are young enough to be believed, whether it needs a reboot and why, and until
when its system gets fixes at all. What cannot be read is told as unknown, never as fine.

Limits: the machines fetch their package lists themselves; opsd only says how old these are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta

from opsd.clients.kube.objects.nodes import Node
from opsd.config import Table
from opsd.errors import ConfigError, PartialFailure, PermanentError, TransientError
from opsd.hosts import kept, lifetimes
from opsd.hosts.fleet import Roster
from opsd.hosts.machine import Role
from opsd.hosts.packages import kubernetes
from opsd.hosts.packages.judge import judge, script
from opsd.hosts.packages.kubernetes import CLUSTER
from opsd.hosts.packages.look import Shared, together
from opsd.hosts.packages.running import RELEASE
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Severity, Unseen
from opsd.text import printable, shortened

MEMORY = "machines"  # in the scratch directory: names of those that were seen
ROSTER = "cluster/machines"  # subject of what belongs to no machine
TABLE = "opsd/lifetimes"


class Settings(Table):
    """Settings of node-patches: there are none of its own."""


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:  # noqa: ARG001 - every job's
    """Look at every machine, tell what waits, and what could not be told."""
    roster = ctx.fleet.roster()
    yield from _tell_missing(ctx, roster)
    kubelets = _kubelets(ctx, roster)
    table, read = lifetimes.table(), 0
    shared: list[Shared] = []
    unseen: set[Unseen] = set()
    for visit in ctx.fleet.visit(roster.machines, script()):
        read += bool(visit.sections)
        if kubelets is None:  # what runs beside what is installed may still be wrong
            unseen.add(Unseen(subject=f"{visit.machine.subject}/{kubernetes.PART.name}"))
        kubelet = (kubelets or {}).get(visit.machine.name, "")
        for one in judge(visit, at=ctx.clock.now(), lifetimes=table, kubelet=kubelet):
            match one:
                case Shared():
                    shared.append(one)
                case Unseen():
                    unseen.add(one)
                case Finding():
                    yield one
    yield from together(shared)
    yield from sorted(unseen, key=lambda one: one.subject)
    yield from _tell_old(table, ctx.clock.now().date())
    if not read:
        raise PartialFailure("no machine could be read", may_pass=True)


def _tell_missing(ctx: Context, roster: Roster) -> Iterator[Finding | Unseen]:
    """Of machines that nobody named nothing can be told, and nothing is over."""
    place = ctx.scratch / MEMORY
    known = set(kept.read(place, what="machines seen before").splitlines())
    names = {machine.name for machine in roster.machines}
    now_known = names | known if roster.unknown else names
    if now_known != known and not ctx.dry_run:
        kept.write(place, "".join(f"{name}\n" for name in sorted(now_known)), what="machines seen")
    if not roster.unknown:
        return
    yield Finding(
        check="patches.unknown",
        subject=ROSTER,
        severity=Severity.WARNING,
        summary=shortened(
            f"the updates of the nodes cannot be told: {printable(roster.unknown)}", 120
        ),
        remedy="opsd nodes; without a cluster: [ssh] nodes = false",
        facts={"why": printable(roster.unknown)},
    )
    for subject in (*(f"machine/{name}" for name in sorted(known - names)), RELEASE, CLUSTER):
        yield Unseen(subject=subject)


def _kubelets(ctx: Context, roster: Roster) -> Mapping[str, str] | None:
    """The versions that run, by node; None: the cluster could not be asked."""
    if not any(Role.NODE in machine.roles for machine in roster.machines):
        return {}
    try:
        return {node.name: node.status.node_info.kubelet_version for node in ctx.kube.list(Node)}
    except ConfigError:
        return {}  # there is none
    except (PermanentError, TransientError):
        return None


def _tell_old(table: lifetimes.Lifetimes, today: date) -> Iterator[Finding]:
    if table.is_old(today):
        yield Finding(
            check="patches.lifetimes_old",
            subject=TABLE,
            severity=Severity.INFO,
            summary=f"the dates on which releases end are as of {table.asof}: update opsd",
            remedy="install a newer release of opsd",
            facts={"asof": table.asof.isoformat()},
        )


JOB = Job(
    name="node-patches",
    summary="tell which machines wait for security fixes or a reboot, and why",
    group="nodes",
    schedule="40 6 * * *",
    timeout=timedelta(minutes=15),
    settings=Settings,
    run=run,
)
