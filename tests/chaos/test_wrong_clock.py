"""A clock that was a year ahead for a moment costs no run when that year has come."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

from opsd.daemon.timekeeping import ACCEPTED_AFTER
from opsd.model import Outcome
from opsd.testing import FakeClock
from tests.chaos import forks
from tests.chaos.lives import TICK, Life, Step, live
from tests.chaos.world import World
from tests.rig import scratch

BEGIN = datetime(2027, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
AHEAD = 400  # days
DAYS = range(AHEAD - 10, AHEAD)


def test_what_a_wrong_clock_recorded_answers_no_slot_when_its_time_comes() -> None:
    with scratch.directory("wrong-clock", in_memory=True) as place, forks.started() as children:
        world = World(place=place).make()

        def lives(after: timedelta, *steps: Step) -> None:
            life = Life(world=world, wall=BEGIN + after, steps=steps)
            children.run(functools.partial(live, life))

        lives(0 * DAY, TICK, TICK)
        lives(AHEAD * DAY, TICK, TICK)
        lives(DAY / 24, TICK, Step(passes=ACCEPTED_AFTER + TICK.passes), TICK)
        for day in DAYS:
            lives(day * DAY, TICK, TICK)

        with world.opened(FakeClock(BEGIN + AHEAD * DAY)) as state:
            outcomes = {
                day: {
                    run.outcome
                    for run in state.runs(job="nightly", limit=1000)
                    if run.started_at.date() == (BEGIN + day * DAY).date()
                }
                for day in DAYS
            }
    assert all(Outcome.COMPLETED in ended for ended in outcomes.values()), outcomes
