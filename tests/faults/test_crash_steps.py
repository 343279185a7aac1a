"""The daemon is killed at every step of everything it does, and started again: all holds.

What `test_crash_sweep` does to the whole program with a real PostgreSQL, this does to each
step of the scheduler, the ledger, the runner, the repository and the outbox, in processes that
are forked from one that has loaded opsd already.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos import forks
from tests.chaos.forks import Forks
from tests.chaos.lives import SETTLE, TICK, Life, Step, live
from tests.chaos.oracles import Witness, gather, judge
from tests.chaos.world import FAIR, Weather, World
from tests.faults.failpoints import Failpoint
from tests.rig import scratch

BEGIN = datetime(2027, 3, 1, 12, tzinfo=UTC)
SIX_HOURS = Step(passes=timedelta(hours=6))
FEW_DAYS = (TICK, *(SIX_HOURS, TICK) * 16)
DOWNTIME = timedelta(hours=30)
DEATHS = ("opsd.backup.catalog:read_back", "opsd.backup.directory:_DirectoryUpload._publish")
FEWEST_STEPS = 40

SCHEDULER = (
    "opsd.daemon:Daemon.tick",
    "opsd.daemon.timekeeping:Timekeeper.is_sane",
    "opsd.daemon.scheduler:Scheduler.consider_all",
    "opsd.daemon.scheduler:Scheduler._consider",
    "opsd.daemon.scheduler:Scheduler._run",
    "opsd.schedule:due",
)
LEDGER = (
    "opsd.executors.ledger:Ledger.reconcile",
    "opsd.executors.ledger:Ledger.settle",
    "opsd.executors.ledger:Ledger.close",
    "opsd.executors.ledger:Ledger.account",
    "opsd.executors.inline:record_unfinished",
    "opsd.state.sqlite:SqliteState.begin",
    "opsd.state.sqlite:SqliteState.record",
    "opsd.state.sqlite:SqliteState.close_slot",
    "opsd.state.sqlite:SqliteState.tell",
    "opsd.state.tables:_store_run",
    "opsd.state.tables:store_findings",
    "opsd.state.tables:tell_people",
    "opsd.state.tables:_prune",
)
RUNNER = ("opsd.executors.inline:run_now", "opsd.runner:execute")
REPOSITORY = (
    "opsd.backup.housekeeping:clear_leftovers",
    "opsd.backup.delivery:deliver",
    "opsd.backup.directory:DirectoryRepository.upload",
    "opsd.backup.directory:_DirectoryUpload.write",
    "opsd.backup.directory:_DirectoryUpload.commit",
    "opsd.backup.directory:_DirectoryUpload._publish",
    "opsd.backup.directory:_DirectoryUpload.abort",
    "opsd.backup.directory:_sync_directory",
    "opsd.backup.catalog:read_back",
    "opsd.backup.catalog:publish",
    "opsd.backup.retention:plan",
    "opsd.backup.prune:_finish",
    "opsd.backup.directory:DirectoryRepository.create",
    "opsd.backup.directory:DirectoryRepository.delete",
    "opsd.backup.directory:DirectoryRepository.discard",
)
OUTBOX = (
    "opsd.alerts.policy:advance",
    "opsd.alerts.outbox:deliver",
    "tests.chaos.world:Inboxes.send",
    "opsd.state.sqlite:SqliteState.due_messages",
    "opsd.state.sqlite:SqliteState.mark_accepted",
    "opsd.state.sqlite:SqliteState.mark_delivered",
    "opsd.state.sqlite:SqliteState.mark_failed",
)
OF_FAILURE = ("opsd.state.sqlite:SqliteState.mark_failed",)
ONE_DEAD = Weather(dead_targets=("mail",))
OFTEN = {  # these are passed several times on the way: what each time means differs
    "opsd.state.sqlite:SqliteState.record": (1, 2, 3),
    "opsd.backup.directory:_DirectoryUpload.write": (1, 2, 4),
    "opsd.backup.directory:_DirectoryUpload.commit": (1, 2, 3),
    "opsd.backup.directory:DirectoryRepository.delete": (1, 2, 3, 4),
    "opsd.state.sqlite:SqliteState.mark_accepted": (1, 2),
}
STEPS = tuple(
    Failpoint(at=at, when=when, nth=nth, do="kill")
    for at in (*SCHEDULER, *LEDGER, *RUNNER, *REPOSITORY, *OUTBOX)
    for nth in OFTEN.get(at, (1,))
    for when in ("before", "after")
)


def words(step: Failpoint) -> str:
    """``before-directory.DirectoryRepository.delete-2``."""
    module, _, path = step.at.partition(":")
    return f"{step.when}-{module.rpartition('.')[2]}.{path}-{step.nth}"


@pytest.fixture(scope="module")
def children() -> Iterator[Forks]:
    with forks.started() as running:
        yield running


@pytest.fixture(scope="module")
def template(children: Forks) -> Iterator[World]:
    """A world that has backups to thin out, a run that died half-way and missed slots."""
    with scratch.directory("crash-steps", in_memory=True) as place:
        world = World(place=place).make()
        children.run(functools.partial(live, Life(world=world, wall=BEGIN, steps=FEW_DAYS)))
        for number, at in enumerate(DEATHS):
            life = Life(
                world=world,
                wall=BEGIN + (17 + number) * SIX_HOURS.passes,
                steps=(SIX_HOURS,),
                failpoint=Failpoint(at=at, do="kill"),
            )
            assert children.run(functools.partial(live, life)).was_killed
        yield world


@pytest.fixture
def world(template: World) -> Iterator[World]:
    """A copy of it."""
    with scratch.directory("crash-step", in_memory=True) as place:
        yield World(place=shutil.copytree(template.place, place / "world"))


@pytest.mark.parametrize("step", STEPS, ids=words)
def test_a_kill_at_any_step_keeps_every_promise_after_the_next_start(
    world: World, children: Forks, step: Failpoint
) -> None:
    again = BEGIN + (17 + len(DEATHS)) * SIX_HOURS.passes + DOWNTIME
    witness = Witness(kills=len(DEATHS) + 1)
    witness.remember(gather(world, witness, now=again))
    weather = ONE_DEAD if step.at in OF_FAILURE else FAIR
    doomed = Life(world=world, wall=again, steps=(TICK,) * 3, weather=weather, failpoint=step)

    killed = children.run(functools.partial(live, doomed))
    later = again + timedelta(minutes=5)
    settling = children.run(functools.partial(live, Life(world=world, wall=later, steps=SETTLE)))

    assert killed.was_killed, "the step was never reached"
    complaints = judge(
        gather(world, witness, now=settling.result.wall, settled=settling.result.settled)
    )
    assert complaints == []


def test_there_are_more_than_forty_steps() -> None:
    assert len(STEPS) >= FEWEST_STEPS
    assert len({words(step) for step in STEPS}) == len(STEPS)
