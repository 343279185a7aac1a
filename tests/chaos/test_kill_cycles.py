"""The daemon is killed at random, hundreds of times over, and every promise holds each time.

`make test` tells the same stories each time; `make test-long` tells more, and others: their
seed is in the test's name, and ``CHAOS_SEED=N`` tells them again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from tests.chaos import forks
from tests.chaos.forks import Forks
from tests.chaos.fortune import Story
from tests.chaos.world import World
from tests.faults.test_crash_steps import STEPS
from tests.rig import scratch

QUIET_HOURS = ("", "22:00-07:00")  # in every other story the nights are quiet
CHAPTERS = 20
STORIES = 10  # 200 kills
LONG_STORIES = 50  # 1,000 kills
# All workers of a run of tests must come to the same.
ANY_SEED = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(10**6)  # noqa: S311 - no secret
LONG_SEED = int(os.environ.get("CHAOS_SEED") or ANY_SEED)


@pytest.fixture(scope="module")
def children() -> Iterator[Forks]:
    with forks.started() as running:
        yield running


def tell_a_story(children: Forks, seed: int) -> None:
    """Live, die and judge, `CHAPTERS` times over."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    with scratch.directory("kill-cycles", in_memory=True) as place:
        world = World(place=place, quiet_hours=QUIET_HOURS[seed % len(QUIET_HOURS)]).make()
        story = Story(world=world, rng=rng, steps=STEPS)
        for chapter in range(CHAPTERS):
            complaints = story.chapter(children)

            events = "\n".join(story.told[-4:])
            assert complaints == [], f"seed {seed}, chapter {chapter}:\n{events}"
        assert story.settle(children) == [], f"seed {seed}, at the end"


@pytest.mark.parametrize("seed", range(STORIES))
def test_every_promise_holds_after_two_hundred_kills(children: Forks, seed: int) -> None:
    tell_a_story(children, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(LONG_SEED, LONG_SEED + LONG_STORIES))
def test_every_promise_holds_after_a_thousand_kills(children: Forks, seed: int) -> None:
    tell_a_story(children, seed)
