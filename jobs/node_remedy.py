"""A node is dead and its databases stay away: may opsd move them, and is it proven to be safe?

Where the owner allowed it, a lost node is cut off, that is read back, its pods are taken from it,
and when it comes back it is given back. Each run looks at what is written on the nodes and at the
cluster, and takes the steps that are due; what has to be waited for, the next run sees.

Limits: nothing happens unless a StatefulSet or its namespace is allowed to be moved, and then
only on proof. Pausing the job stops all of it. At most one node at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from opsd.cluster.remedy.settings import RemedySettings
from opsd.job import Context, Job, Observation

if TYPE_CHECKING:
    from opsd.cluster.remedy.rounds import Surroundings

MEMORY = "seen.json"  # in the scratch directory
SEEN_S = 20.0  # what others saw of a node counts for so long; everything else is read each time


class Settings(RemedySettings):
    """Settings of node-remedy."""


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Do what is due, and say what was done or why it was not."""
    from opsd.cluster.nodeloss.vantage import Here, Lately, Machines  # noqa: PLC0415 - as below
    from opsd.cluster.remedy.rounds import Surroundings  # noqa: PLC0415 - not for every command

    here = Here(ports=settings.ports)
    there = Machines(open_fleet=ctx.open_fleet, clock=ctx.clock, ports=settings.ports)
    vantages = tuple(Lately(one, clock=ctx.clock, for_s=SEEN_S) for one in (here, there))
    return remedy(ctx, settings, Surroundings(vantages=vantages, open_fleet=ctx.open_fleet))


def remedy(ctx: Context, settings: Settings, around: Surroundings) -> Iterator[Observation]:
    """The same, in other surroundings."""
    from opsd.cluster.remedy.rounds import Round  # noqa: PLC0415 - not for every command

    return Round(
        ctx.kube,
        settings,
        place=ctx.scratch / MEMORY,
        run_id=ctx.run_id,
        dry_run=ctx.dry_run,
        around=around,
    ).findings()


JOB = Job(
    name="node-remedy",
    summary="move the pods of a dead node where that is allowed and proven to be safe",
    group="",
    schedule="* * * * *",
    timeout=timedelta(minutes=5),
    settings=Settings,
    run=run,
)
