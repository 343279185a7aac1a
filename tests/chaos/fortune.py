"""What befalls the daemon, drawn from a seed: when it dies, what fails, what the clocks do.

A `Story` is a world and its time; each `chapter` is a life that is killed, after a time in
which nothing ran. The same seed draws the same story, but for kills at a random moment, which
depend on the machine as well.

Limits: of the clocks, only the wall clock errs; that of a restart is never before 1970.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from opsd.daemon.timekeeping import ACCEPTED_AFTER
from tests.chaos.forks import LONGEST_S, Ending, Forks
from tests.chaos.lives import SETTLE, TICK, Life, Lived, Step, live
from tests.chaos.oracles import Witness, gather, judge
from tests.chaos.world import JOBS, TARGETS, Weather, World
from tests.faults.failpoints import Failpoint

BEGIN = datetime(2027, 3, 1, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LIFE_S = 0.25  # a life that is not killed lasts about so long
JUDGED = 0.7  # of the restarts; the others are killed too, in the midst of clearing up
MOST_PASSES = 4  # a failpoint strikes at one of its first passes
BAD_DAY = 0.15  # chance of each kind of weather
PAUSES = (
    timedelta(seconds=1),
    timedelta(seconds=30),
    timedelta(minutes=7),
    timedelta(hours=5),
    timedelta(hours=31),
    timedelta(days=3),
)
LONG_ENOUGH = (Step(), Step(passes=ACCEPTED_AFTER + timedelta(minutes=1)))
CLOCK_ERRORS = (timedelta(hours=1), timedelta(hours=-1), timedelta(days=400))
RIGHT_CLOCK = 0.85  # chance that a start finds it right
UNSET_CLOCK = 0.03  # chance that a start finds it in 1970


@dataclass
class Story:
    """A world, the time in it, and what befell it so far."""

    world: World
    rng: random.Random
    steps: Sequence[Failpoint]  #: where it may die
    witness: Witness = field(default_factory=Witness)
    time: datetime = BEGIN  #: what a right clock would show
    furthest: datetime = BEGIN  #: what a clock did show
    told: list[str] = field(default_factory=list)  #: for whoever reads a failure

    def chapter(self, forks: Forks) -> list[str]:
        """One more life and death, and what the oracles say after the next start."""
        doomed, kill_after_s = self.doom()
        ending = forks.run(functools.partial(live, doomed), kill_after_s=kill_after_s)
        self.witness.kills += 1
        lasted = sum((step.passes for step in doomed.steps), timedelta(0))
        self.time += lasted
        self.furthest = max(self.furthest, doomed.wall + lasted)
        self.told.append(f"{self.time:%Y-%m-%d %H:%M:%S} {_words(doomed, kill_after_s, ending)}")
        if self.rng.random() > JUDGED:
            return []
        return self.settle(forks)

    def doom(self) -> tuple[Life, float]:
        """A life that will be cut short, and when at the latest."""
        self.time += self.rng.choice(PAUSES)
        at_a_step = self.rng.random() < 0.5
        life = Life(
            world=self.world,
            wall=self.clock(),
            steps=self.script(),
            weather=self.weather(),
            failpoint=self.failpoint() if at_a_step else None,
            apart=self.rng.random() < 0.3,
        )
        return life, LONGEST_S if at_a_step else self.rng.uniform(0, LIFE_S)

    def settle(self, forks: Forks) -> list[str]:
        """Start it in good weather on a right clock, and judge."""
        self.time += TICK.passes
        # Behind its own records a clock is not believed at once.
        wait = LONG_ENOUGH if self.furthest > self.time else ()
        life = Life(world=self.world, wall=self.time, steps=(*wait, *SETTLE))
        ending = forks.run(functools.partial(live, life))
        assert ending.result is not None, ending
        lived: Lived = ending.result
        self.time = self.furthest = lived.wall
        evidence = gather(self.world, self.witness, now=self.time, settled=lived.settled)
        return judge(evidence)

    def clock(self) -> datetime:
        """What the clock shows at a start."""
        drawn = self.rng.random()
        if drawn < RIGHT_CLOCK:
            return self.time
        if drawn < RIGHT_CLOCK + UNSET_CLOCK:
            return EPOCH
        return self.time + self.rng.choice(CLOCK_ERRORS)

    def script(self) -> tuple[Step, ...]:
        """Some ticks, and hours between some of them."""
        steps = [Step(), TICK]
        for _ in range(self.rng.randint(1, 3)):
            passes = timedelta(seconds=self.rng.randint(10, 8 * 3600))
            steps += [Step(passes=passes), TICK]
        return tuple(steps)

    def weather(self) -> Weather:
        """Mostly fair."""
        return Weather(
            failing=self._some(JOBS),
            slow=self._some(JOBS),
            crashing=self._some(JOBS),
            dead_targets=self._some(TARGETS),
        )

    def failpoint(self) -> Failpoint:
        """One of the steps, at one of its passes; it may never come by there."""
        step = self.rng.choice(self.steps)
        nth = self.rng.randint(1, MOST_PASSES)
        return Failpoint(at=step.at, when=step.when, nth=nth, do=step.do)

    def _some(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if self.rng.random() < BAD_DAY)


def _words(life: Life, kill_after_s: float, ending: Ending) -> str:
    point = life.failpoint
    how = f"{point.when} {point.at} {point.nth}" if point else f"after {kill_after_s:.3f} s"
    where = "apart" if life.apart else "whole"
    hours = [round(step.passes.total_seconds() / 3600, 2) for step in life.steps]
    clock = f"{life.wall:%Y-%m-%d %H:%M:%S}"
    return f"clock {clock} {hours} {life.weather} {where} {how}: {ending.status}"
