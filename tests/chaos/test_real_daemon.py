"""The daemon as it is installed, with real children, is killed and frozen; every slot is answered.

Its wall clock is moved by the test, so that a slot is due in each of its lives; nothing else
about it is made up.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.backup.catalog import Condition, read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.cli.calling import STATE_FILE
from opsd.clock import SystemClock
from opsd.daemon import LATE_TICKS
from opsd.model import Outcome, Run
from opsd.state.sqlite import SqliteState
from tests.rig import scratch, sink
from tests.rig.home import ROOT, Home
from tests.rig.sink import Sink

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

SHIM = Path(__file__).parent / "shim"
JOB = "nfs-backup"
SCHEDULE = 'schedule = "7 * * * *"\nretries = 2\n'
HEARTBEAT = '[heartbeat]\nurl = "env:CANARY_BEAT"\nevery = "1m"\n'
TICK_S = 1.0
WITHIN_S = 60.0
CYCLES = 6
LIFE_S = 2.0  # the first run of a life is over about then
PAUSES = (timedelta(minutes=2), timedelta(hours=1), timedelta(hours=3))
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Installation:
    """opsd with one share, a phone, and a clock that the test moves."""

    home: Home
    phone: Sink
    clock: Path

    def pass_time(self, time: timedelta) -> None:
        """Move the wall clocks of all its processes, also of those that run."""
        ahead_s = float(self.clock.read_text()) + time.total_seconds()
        new = self.clock.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(self.clock)

    def now(self) -> datetime:
        """What its clocks show."""
        return datetime.now(UTC) + timedelta(seconds=float(self.clock.read_text()))

    def due(self) -> datetime:
        """The newest slot."""
        now = self.now()
        slot = now.replace(minute=7, second=0, microsecond=0)
        return slot if slot <= now else slot - HOUR

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """`opsd run`, with a process group of its own, which is killed at the end."""
        with (
            (self.home.place / "log").open("ab") as log,
            subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *Home.command, "run"],
                env=self.home.process_environment(),
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as process,
        ):
            try:
                yield process
            finally:
                os.killpg(process.pid, signal.SIGKILL)

    @contextlib.contextmanager
    def state(self) -> Iterator[SqliteState]:
        """What is on record."""
        state = SqliteState(self.home.place / "state" / STATE_FILE, clock=SystemClock())
        with contextlib.closing(state):
            yield state

    def runs(self) -> tuple[Run, ...]:
        """All of them, newest first."""
        with self.state() as state:
            return state.runs(limit=1000)

    def is_settled(self) -> bool:
        """Whether the newest slot is answered, nothing runs and no message waits."""
        with self.state() as state:
            newest = state.runs(limit=1)
            return (
                bool(newest)
                and newest[0].slot == self.due()
                and newest[0].outcome is Outcome.COMPLETED
                and not state.running()
                and not state.undelivered()
            )

    def events(self, name: str) -> int:
        """How often something is in the log."""
        return (self.home.place / "log").read_text().count(f'"{name}"')

    def processes(self) -> list[str]:
        """Command lines of all that belong to it and live."""
        mark = f"OPSD_CONFIG={self.home.config}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().decode())
        return found


@pytest.fixture
def opsd() -> Iterator[Installation]:
    with scratch.directory("real-daemon") as place, sink.running() as phone:
        home = Home(place=place, is_measured=False)
        home.fill_share()
        table = home.shares("rsync").replace("timeout", f"{SCHEDULE}timeout")
        home.write(table, HEARTBEAT, alerts=phone.url.replace("http", "json"))
        clock = place / "clock"
        clock.write_text("0")
        home.environment |= {
            "CANARY_BEAT": f"{phone.url}/beat",
            "CHAOS_CLOCK": str(clock),
            "CHAOS_TICK_S": str(TICK_S),
            "PYTHONPATH": f"{SHIM}:{ROOT}",
        }
        yield Installation(home, phone, clock)


def eventually(what: Callable[[], object]) -> None:
    until = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.1)


def broken_promises(opsd: Installation) -> Iterator[str]:
    """What must hold once it has settled."""
    runs = opsd.runs()
    slot = min(run.slot for run in runs)
    while slot <= opsd.due():
        if not any(run.slot == slot for run in runs):
            yield f"{slot} has no record"
        slot += HOUR
    claims = Counter((one.subject, run.slot) for run in runs for one in run.artifacts)
    yield from (
        f"{claim} was published {count} times" for claim, count in claims.items() if count > 1
    )
    catalog = read_catalog(DirectoryRepository("disk", opsd.home.repository))
    good = {one.key for one in catalog.backups if one.condition is Condition.GOOD}
    yield from (f"{one.key} is not good" for one in catalog.backups if one.key not in good)
    if runs[0].artifacts[0].key not in good:
        yield "what the newest run published is not there"
    yield from opsd.home.leftovers()


def test_every_slot_is_answered_once_whenever_the_daemon_and_its_children_are_killed(
    opsd: Installation,
) -> None:
    rng = random.Random()  # noqa: S311 - no secret; the machine decides where it strikes anyway

    for cycle in range(CYCLES):
        with opsd.daemon():
            if cycle % 2:
                started = opsd.events("run.started")
                eventually(lambda n=started: opsd.events("run.started") > n or opsd.is_settled())  # type: ignore[misc]
            time.sleep(rng.uniform(0, LIFE_S))
        eventually(lambda: not opsd.processes())
        opsd.pass_time(rng.choice(PAUSES))
    opsd.pass_time(HOUR)  # a slot that was killed at every try stays interrupted; the next is due
    with opsd.daemon():
        eventually(opsd.is_settled)

    assert list(broken_promises(opsd)) == []


def test_a_daemon_that_was_frozen_goes_on_and_does_nothing_twice(opsd: Installation) -> None:
    with opsd.daemon() as daemon:
        eventually(opsd.is_settled)
        os.kill(daemon.pid, signal.SIGSTOP)
        opsd.pass_time(HOUR + timedelta(minutes=20))
        time.sleep((LATE_TICKS + 1) * TICK_S)
        frozen = opsd.home.opsd("status")
        os.kill(daemon.pid, signal.SIGCONT)
        eventually(opsd.is_settled)
        time.sleep(3 * TICK_S)

    assert frozen.status == 3
    assert "overdue" in frozen.out
    assert opsd.events("clock.stepped") == 1
    assert [run.outcome for run in opsd.runs()] == [Outcome.COMPLETED] * len(opsd.runs())
    assert list(broken_promises(opsd)) == []
