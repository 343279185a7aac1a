"""Ten years of bad days in ten minutes: does opsd stay as small as it was, and keep its word?

``python -m tests.chaos.soak --years 10 --seed 7`` lets one process be the daemon for years on
a clock that it moves itself, in one time zone with summer time, and has something befall it on
every day. It measures itself at the end of each year: memory, threads, open files.

Limits: the daemon's death is that of a process beside it, which lives a day on the same state
and is killed; then the long-lived one starts anew. Real time passes for nothing but the work.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from opsd.daemon import Daemon
from opsd.daemon.timekeeping import ACCEPTED_AFTER
from opsd.model import Outcome
from opsd.state.sqlite import SqliteState
from opsd.state.tables import RUNS_KEPT
from opsd.testing import FakeClock
from tests.chaos import forks
from tests.chaos.forks import Forks
from tests.chaos.lives import TICK, Launcher, Life, Step, awake, live
from tests.chaos.oracles import Verdict, Witness, look
from tests.chaos.world import FAIR, JOBS, TARGETS, Weather, World
from tests.faults.failpoints import Failpoint
from tests.rig import scratch

BEGIN = datetime(2027, 1, 1, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
JUDGED_EVERY = 7  # days
TOLERANCE = 0.05  # by which the last year may be larger than the first
LOCKED_S = 0.1
PATIENCE_S = (
    0.05  # how long a locked state makes the daemon wait here, and how soon it tries again
)
KILLED_WITHIN_S = 0.2
LOCK = """
import sqlite3, sys, time
sqlite3.connect(sys.argv[1]).execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""
SCHEDULES = {"nightly": "30 2 * * *", "other": "0 */8 * * 0"}  # in the hour that summer time skips
RARITY = {"the clock jumps 400 days ahead": 0.15}  # four times in a year
QUIET_HOURS = "22:00-07:00"  # what a night's slot brings is told in the morning
_M_ARENA_MAX = -8
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

IN_A_CHILD = {
    "a run is killed": Failpoint(at="opsd.backup.catalog:read_back", do="kill"),
    "a run is frozen": Failpoint(at="opsd.backup.catalog:publish", do="stop"),
    "the disk is full": Failpoint(
        at="opsd.backup.directory:_DirectoryUpload._publish", do="raise:OSError:ENOSPC"
    ),
}
STEPS_OF_CLOCK = {
    "the clock jumps an hour ahead": HOUR,
    "the clock jumps an hour back": -HOUR,
    "the clock jumps 400 days ahead": 400 * DAY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What the process holds at one time."""

    memory_bytes: int
    threads: int
    files: int
    backups: int = 0  #: in the repository, with the few that a wrong clock dated ahead


def size(world: World) -> Size:
    """Of this process and its repository, now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Size(
        memory_bytes=pages * _PAGE_BYTES,
        threads=threading.active_count(),
        files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - one that iterates holds one more
        backups=len(tuple((world.place / "repository").rglob("*.json"))),
    )


def history_is_full(world: World) -> bool:
    """Whether of every job as many runs are on record as ever will be."""
    with contextlib.closing(sqlite3.connect(world.state_path)) as db:
        counts = dict(db.execute("SELECT job, count(*) FROM runs GROUP BY job"))
    return all(counts.get(job, 0) >= RUNS_KEPT for job in JOBS)


@dataclass
class Soak:
    """The daemon, and what befalls it."""

    world: World
    forks: Forks
    rng: random.Random
    told: Callable[[str], None]  #: is given every complaint at once
    clock: FakeClock = field(default_factory=lambda: FakeClock(BEGIN))
    witness: Witness = field(default_factory=Witness)
    complaints: list[str] = field(default_factory=list)
    befell: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._errs_by = timedelta(0)  # of the wall clock
        self._counted: set[str] = set()
        self._start()

    def _start(self) -> None:
        life = Life(world=self.world, wall=self.clock.wall, steps=(), apart=True)
        self._opened = contextlib.ExitStack()
        self._state: SqliteState = self._opened.enter_context(self.world.opened(self.clock))
        self._launcher = Launcher(life, self.clock, self.forks)
        self._daemon: Daemon = awake(self._launcher, state=self._state, clock=self.clock)

    def close(self) -> None:
        """Let go of the state."""
        self._opened.close()

    def day(self, number: int) -> None:
        """One day with one fault, and a fair evening."""
        faults = self.faults()
        (fault,) = self.rng.choices(
            tuple(faults), weights=[RARITY.get(name, 1.0) for name in faults]
        )
        self.befell[fault] += 1
        faults[fault]()
        self._launcher.life = replace(
            self._launcher.life, weather=FAIR, failpoint=None, apart=False
        )
        self._right_the_clock()
        self._until_noon()
        if number % JUDGED_EVERY == 0:
            self._judge()

    def faults(self) -> dict[str, Callable[[], None]]:
        """What may befall it, by name."""
        return {
            "opsd is killed": self._killed,
            "the state is locked": self._locked,
            "the clock jumps to 1970": functools.partial(self._stepped, EPOCH - self.clock.wall),
            **{name: functools.partial(self._stepped, by) for name, by in STEPS_OF_CLOCK.items()},
            **{name: functools.partial(self._dying_runs, one) for name, one in IN_A_CHILD.items()},
            "a service is down": self._weather(dead_targets=(self.rng.choice(TARGETS),)),
            "all services are down": self._weather(dead_targets=TARGETS),
            "a server refuses": self._weather(failing=(self.rng.choice(JOBS),)),
            "a job is slow": self._weather(slow=(self.rng.choice(JOBS),)),
            "a job has a bug": self._weather(crashing=(self.rng.choice(JOBS),)),
        }

    def _weather(self, **bad: tuple[str, ...]) -> Callable[[], None]:
        def befalls() -> None:
            self._launcher.life = replace(self._launcher.life, weather=Weather(**bad))
            self._hours(18)

        return befalls

    def _dying_runs(self, failpoint: Failpoint) -> None:
        self._launcher.life = replace(self._launcher.life, failpoint=failpoint)
        self._hours(18)

    def _killed(self) -> None:
        """Another process lives most of a day on the same state, and is killed."""
        self.close()
        steps = (Step(), TICK, *(Step(passes=3 * HOUR), TICK) * 6)
        life = Life(world=self.world, wall=self.clock.wall, steps=steps)
        kill_after_s = self.rng.uniform(0, KILLED_WITHIN_S)
        self.forks.run(functools.partial(live, life), kill_after_s=kill_after_s)
        self.witness.kills += 1
        self.clock.advance(18 * HOUR)
        self._start()

    def _locked(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-ISc", LOCK, str(self.world.state_path), str(LOCKED_S)],
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            self._tick(6 * HOUR)
        self._hours(12)

    def _stepped(self, by: timedelta) -> None:
        self.clock.wall += by
        self._errs_by = by
        self._hours(6)

    def _right_the_clock(self) -> None:
        if self._errs_by:
            self.clock.wall -= self._errs_by
            self._errs_by = timedelta(0)
            self._tick(timedelta(0))
            self._tick(ACCEPTED_AFTER + TICK.passes)

    def _hours(self, hours: int) -> None:
        until = self.clock.ticks_s + hours * HOUR.total_seconds()
        while self.clock.ticks_s < until:
            self._tick(self.rng.uniform(2, 8) * HOUR)

    def _until_noon(self) -> None:
        noon = self.clock.wall.replace(hour=12, minute=0, second=0, microsecond=0)
        if noon <= self.clock.wall:
            noon += DAY
        self._tick((noon - self.clock.wall) / 2)
        self._tick(noon - self.clock.wall)
        self._tick(20 * timedelta(minutes=1))  # past the last retry
        self._tick(TICK.passes)

    def _tick(self, passes: timedelta) -> None:
        self.clock.advance(max(passes, timedelta(0)))
        self._daemon.tick()
        self._daemon.wait()

    def _judge(self) -> None:
        self._daemon.supervise()
        now = self.clock.wall
        # In a child, so that what the oracles hold is not measured.
        work = functools.partial(look, self.world, self.witness, now=now)
        verdict: Verdict = self.forks.run(work).result
        self.witness = verdict.witness
        for complaint in verdict.complaints:
            self.complaints.append(f"{now:%Y-%m-%d} {complaint}")
            self.told(self.complaints[-1])
        self.outcomes.update(verdict.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlived:
    """What a soak came to."""

    zone: str
    days: int
    took_s: float
    processor_s: float  #: of this process and those that it started
    sizes: tuple[Size, ...]  #: at the end of each period
    full_at: int  #: the first of `sizes` at which the history was full; 0 when it never was
    complaints: tuple[str, ...]
    befell: dict[str, int]
    outcomes: dict[Outcome, int]

    def growth(self) -> list[str]:
        """What became larger by more than `TOLERANCE` since the history was full."""
        first, last = self.sizes[self.full_at], self.sizes[-1]
        return [
            f"{name} grew from {getattr(first, name):,} to {getattr(last, name):,}"
            for name in ("memory_bytes", "threads", "files")
            if getattr(last, name) > getattr(first, name) * (1 + TOLERANCE)
        ]


def soak(*, days: int, period: int, seed: int, told: Callable[[str], None] = print) -> Outlived:
    """Live so many days; measure every `period` days."""
    rng, began = random.Random(seed), time.monotonic()  # noqa: S311 - no secret
    zone = rng.choice(ZONES)
    sizes: list[Size] = []
    full_at = 0
    with _place() as place, forks.started() as children:
        world = World(
            place=place, timezone=zone, quiet_hours=QUIET_HOURS, schedules=SCHEDULES
        ).make()
        one = Soak(world=world, forks=children, rng=rng, told=told)
        for number in range(1, days + 1):
            one.day(number)
            if number % period == 0:
                full_at = full_at or len(sizes) * history_is_full(world)
                sizes.append(size(world))
                told(_line(number, sizes[-1], one, time.monotonic() - began))
        one._judge()
        one.close()
    return Outlived(
        zone=zone,
        days=days,
        took_s=time.monotonic() - began,
        processor_s=sum(os.times()[:4]),
        sizes=tuple(sizes),
        full_at=full_at,
        complaints=tuple(one.complaints),
        befell=dict(one.befell),
        outcomes=dict(one.outcomes),
    )


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """A folder in memory, in a process whose locked state does not make it wait for long."""
    patience = timedelta(seconds=PATIENCE_S)
    with (
        scratch.directory("soak", in_memory=True) as place,
        mock.patch("opsd.state.database.BUSY_TIMEOUT", patience),
        mock.patch("opsd.daemon.scheduler.RECORD_AGAIN_S", PATIENCE_S),
        mock.patch("tests.chaos.world.LOG_LEVEL", "warning"),
    ):
        World(place=place).log_here()
        yield place


def _line(day: int, now: Size, one: Soak, passed_s: float) -> str:
    return (
        f"day {day:5}  {now.memory_bytes / 1e6:6.1f} MB  {now.threads} threads  "
        f"{now.files} files  {now.backups} backups  {sum(one.outcomes.values()):6} slots  "
        f"{len(one.complaints)} broken promises  {passed_s:4.0f} s"
    )


def main() -> int:
    """Soak, and say how it was; 0 when every promise was kept and nothing grew."""
    parser = argparse.ArgumentParser(description="Years of bad days in minutes.")
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311 - no secret
    asked = parser.parse_args()
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    print(f"seed {asked.seed}", flush=True)  # noqa: T201
    say = functools.partial(print, flush=True)
    outlived = soak(days=365 * asked.years, period=365, seed=asked.seed, told=say)
    for line in summary(outlived):
        print(line)  # noqa: T201
    return int(bool(outlived.complaints or outlived.growth()))


def summary(outlived: Outlived) -> Iterator[str]:
    """What a person wants to read of it."""
    yield f"{outlived.days:,} days in {outlived.zone}, lived in {outlived.took_s:.0f} s"
    yield f"  {outlived.processor_s:.0f} s of them at work; the rest this machine did other things"
    for name, count in sorted(outlived.befell.items()):
        yield f"  {count:5} x {name}"
    ends = ", ".join(f"{count:,} {name}" for name, count in sorted(outlived.outcomes.items()))
    yield f"slots: {ends}"
    since = f"at the end of period {outlived.full_at + 1} of {len(outlived.sizes)}"
    yield from outlived.growth() or [f"memory, threads and files are as they were {since}"]
    yield from outlived.complaints or ["every promise was kept"]


if __name__ == "__main__":
    sys.exit(main())
