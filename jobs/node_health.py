"""Which machine is about to die, and of what?

Every quarter of an hour each machine is asked for what its hardware and its kernel say of
themselves: power, heat, memory, disks, cards, RAID, file systems, network, clock, kernel log.
SMART is read once an hour and wakes no disk. What cannot be read is told as unknown, with what
makes it readable. Nothing is changed on a machine.

Limits: docs/node-health.md says of each reading what it cannot see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from opsd.config import Duration, Table
from opsd.hosts.fleet import Roster
from opsd.hosts.health import record
from opsd.hosts.health.checkup import NAMES, PARTS, check, is_due, script
from opsd.hosts.health.clock import own_clock
from opsd.hosts.health.look import Part, Thresholds
from opsd.hosts.health.record import Record, Records
from opsd.hosts.machine import Machine
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Severity, Unseen
from opsd.text import printable, shortened

MEMORY = "machines.json"  # in the scratch directory
_EARLY = timedelta(minutes=5)  # slots are not to the second


def _parts(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in NAMES:
            raise ValueError(f"expected some of {', '.join(NAMES)}")
    return names


class Settings(Table):
    """Settings of node-health."""

    smart_every: Duration = Field(
        timedelta(hours=1), description="how often disks are asked for SMART; never woken"
    )
    hot_c: float = Field(
        75.0, gt=0, description="a warning from here on, where a sensor names no limit; in °C"
    )
    too_hot_c: float = Field(85.0, gt=0, description="critical from here on; in °C")
    space_percent: float = Field(
        12.0,
        ge=0,
        lt=100,
        description="a warning when less of a file system is available; kubelets throw pods off "
        "at 10",
    )
    no_space_percent: float = Field(5.0, ge=0, lt=100, description="critical when it is less")
    leave_out: Annotated[tuple[str, ...], AfterValidator(_parts)] = Field(
        (),
        description=f"what is not looked at: {', '.join(NAMES)}",
        examples=[["disk"]],
    )


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Ask every machine, and judge what it says."""
    roster = ctx.fleet.roster()
    before = record.read(ctx.scratch / MEMORY)
    parts = tuple(part for part in PARTS if part.name not in settings.leave_out)
    after: dict[str, Record] = {}
    offsets_s: list[float] = []
    try:
        for asked, machines in _passes(ctx, settings, parts, roster, before):
            for visit in ctx.fleet.visit(machines, script(asked)):
                name = visit.machine.name
                checkup = check(
                    visit,
                    before=before.get(name, Record()),
                    at=ctx.clock.now(),
                    parts=parts,
                    asked=asked,
                    thresholds=_thresholds(settings),
                )
                after[name] = checkup.record
                if visit.clock_offset_s is not None:
                    offsets_s.append(visit.clock_offset_s)
                yield from checkup.observations
    finally:
        if not ctx.dry_run:  # what it saw is not recorded, so the next run looks again
            record.write(ctx.scratch / MEMORY, {**_still_there(roster, before), **after})
    if own := own_clock(offsets_s):
        yield own
    yield from _missing(roster, before)


def _passes(
    ctx: Context,
    settings: Settings,
    parts: Sequence[Part],
    roster: Roster,
    before: Records,
) -> Iterator[tuple[tuple[Part, ...], list[Machine]]]:
    """Machines that are asked for all, and those that were lately."""
    at, every = ctx.clock.now(), settings.smart_every - _EARLY
    fast = tuple(part for part in parts if not part.is_slow)
    due, others = list[Machine](), list[Machine]()
    for machine in roster.machines:
        known = before.get(machine.name, Record())
        is_slow = any(part.is_slow and is_due(known, part, at=at, every=every) for part in parts)
        (due if is_slow else others).append(machine)
    for asked, machines in ((tuple(parts), due), (fast, others)):
        if machines:
            yield asked, machines


def _thresholds(settings: Settings) -> Thresholds:
    return Thresholds(
        hot_c=settings.hot_c,
        too_hot_c=settings.too_hot_c,
        space_percent=settings.space_percent,
        no_space_percent=settings.no_space_percent,
    )


def _still_there(roster: Roster, before: Records) -> Records:
    """What is known of machines that belong to the fleet, or may."""
    names = {machine.name for machine in roster.machines}
    return {name: one for name, one in before.items() if roster.unknown or name in names}


def _missing(roster: Roster, before: Records) -> Iterator[Observation]:
    """Nodes that nobody could name this time."""
    if not roster.unknown:
        return
    names = sorted(set(before) - {machine.name for machine in roster.machines})
    text = printable(roster.unknown)
    yield Finding(
        check="machine.roster_unknown",
        subject="machine",
        severity=Severity.WARNING,
        summary=shortened(f"which nodes there are is not known: {text}", 120),
        remedy="kubectl get nodes; opsd check",
        facts={"problem": text, "not_asked": ", ".join(names)},
        steady_for=timedelta(minutes=20),
    )
    for name in names:
        yield Unseen(subject=f"machine/{name}")


JOB = Job(
    name="node-health",
    summary="read what disks, cards, power, heat and kernel of each machine say of their health",
    group="nodes",
    schedule="*/15 * * * *",
    timeout=timedelta(minutes=10),
    settings=Settings,
    run=run,
)
