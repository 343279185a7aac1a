"""Each slot ends once, whatever happens to the daemon, its children and its clock."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsd.daemon import Daemon
from opsd.errors import TransientError
from opsd.job import Context
from opsd.model import Outcome
from opsd.schedule import MOST_MISSED
from tests.rig import scratch
from tests.rig.scheduling import Died, Place, nothing, scheduled, tick

START = datetime(2026, 11, 22, 0, 0, 30, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
JOB = "test-job"
NO_TRY = (Outcome.MISSED, Outcome.SKIPPED)

SPANS = st.sampled_from([10, 60, 300, 3600, 3 * 3600, 26 * 3600]).map(
    lambda seconds: timedelta(seconds=seconds)
)
STEPS = st.one_of(
    st.tuples(st.just("pass"), SPANS),
    st.tuples(st.just("down"), SPANS),
    st.tuples(st.sampled_from(["fail", "die", "ask", "restart", "other"]), st.just(MINUTE)),
)
JUMPS = st.tuples(st.sampled_from(["ahead", "back"]), SPANS)


@contextlib.contextmanager
def a_place(schedule: str, retries: int) -> Iterator[Place]:
    with scratch.directory("slots", in_memory=True) as folder:
        place = Place.made(folder, now=START, jobs=[scheduled(JOB, schedule, retries=retries)])
        yield place
        place.state.close()


def refuses(_ctx: Context) -> None:
    raise TransientError("connection refused")


def dies(_ctx: Context) -> None:
    raise Died


class Life:
    """Two daemons on one state; the second looks when it is told to."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.daemons = [place.daemon(), place.daemon()]

    def take(self, step: str, span: timedelta) -> None:
        clock = self.place.clock
        match step:
            case "ahead":
                clock.wall += span
            case "back":
                clock.wall -= span
            case "ask":
                self.place.children.run(JOB, clock.now().replace(microsecond=0))
            case "restart":
                self.daemons[0] = self.place.daemon()
            case "down":
                clock.advance(span)
                self.daemons[0] = self.place.daemon()
            case _:
                clock.advance(span)
        self.place.children.work = {"fail": refuses, "die": dies}.get(step, nothing)
        tick(self.looking(step))
        self.place.children.work = nothing

    def looking(self, step: str) -> Daemon:
        return self.daemons[step == "other"]

    def settle(self) -> None:
        """Let enough time pass that a clock is believed and every try was made."""
        for _ in range(6):
            self.place.clock.advance(16 * MINUTE)
            tick(self.daemons[0], 2)


def ends(place: Place) -> dict[datetime, list[Outcome]]:
    """By slot, the outcomes after which nothing more was to come."""
    found: dict[datetime, list[Outcome]] = {}
    for run in place.state.runs(job=JOB, limit=5000):
        if run.attempt and run.retry_at is None:
            found.setdefault(run.slot, []).append(run.outcome)
    return found


def slots_until_now(place: Place) -> list[datetime]:
    """All slots since the first on record."""
    cron, now = place.jobs[0].cron, place.clock.now()
    slots = [min(ends(place))]
    while (following := cron.next_slot(slots[-1])) <= now:
        slots.append(following)
    return slots


@given(
    st.sampled_from(["@hourly", "*/7 * * * *", "0 */6 * * *"]),
    st.integers(0, 2),
    st.lists(STEPS, min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_each_slot_ends_exactly_once_over_restarts_deaths_and_downtimes(
    schedule: str, retries: int, steps: list[tuple[str, timedelta]]
) -> None:
    with a_place(schedule, retries) as place:
        life = Life(place)
        for step, span in steps:
            life.take(step, span)
        life.settle()
        ended, slots = ends(place), slots_until_now(place)

    assert {slot for slot, outcomes in ended.items() if len(outcomes) > 1} == set()
    if len(slots) <= MOST_MISSED:
        # A slot whose last try was to come when the next slot ended its tries has no end of
        # its own but its last failure.
        assert set(ended) <= set(slots)
        assert len(set(slots) - set(ended)) <= sum(step in ("fail", "die") for step, _ in steps)


@given(
    st.sampled_from(["@hourly", "0 */6 * * *"]),
    st.lists(st.one_of(STEPS, JUMPS), min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_jump_of_the_clock_runs_a_slot_twice_or_loses_one(
    schedule: str, steps: list[tuple[str, timedelta]]
) -> None:
    with a_place(schedule, 1) as place:
        life = Life(place)
        for step, span in steps:
            life.take(step, span)
        life.settle()
        runs = place.state.runs(job=JOB, limit=5000)
        slots = slots_until_now(place)

    completed = Counter(
        run.slot for run in runs if run.attempt and run.outcome is Outcome.COMPLETED
    )
    assert max(completed.values(), default=0) <= 1
    if len(slots) <= MOST_MISSED:
        assert set(slots) - {run.slot for run in runs} == set()
