"""What time does to a machine without anybody on call: jumps, drifts, sleeps, summer time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import structlog

from opsd.backup.catalog import Condition
from opsd.backup.retention import plan
from opsd.config import Keep
from opsd.cron import parse
from opsd.daemon import timekeeping
from opsd.daemon.timekeeping import ACCEPTED_AFTER, TOLD_FOR
from opsd.model import Finding, Outcome
from opsd.schedule import NOT_RUNNING, Scheduled
from opsd.triage import OWN
from tests.rig.scheduling import Place, scheduled, tick
from tests.test_retention import backup

ROOT = Path(__file__).parents[2]
NOON = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
DUE = NOON.replace(second=0)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY = timedelta(days=1)
JOB = "test-job"
HOURLY = scheduled(JOB, "@hourly")
BERLIN = ZoneInfo("Europe/Berlin")


@contextlib.contextmanager
def at(folder: Path, now: datetime, job: Scheduled = HOURLY) -> Iterator[Place]:
    place = Place.made(folder, now=now, jobs=[job])
    yield place
    place.state.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with at(tmp_path, NOON) as made:
        tick(made.daemon())
        yield made


def clock_findings(place: Place) -> list[Finding]:
    return [
        entry.finding
        for entry in place.state.open_findings(job=OWN)
        if entry.finding.check == timekeeping.CHECK
    ]


def test_a_clock_that_goes_an_hour_ahead_is_told_and_no_slot_comes_twice(place: Place) -> None:
    daemon = place.daemon()
    with structlog.testing.capture_logs() as told:
        place.clock.wall += HOUR
        tick(daemon, 2)
    place.clock.wall -= HOUR
    place.clock.advance(HOUR)
    tick(daemon, 2)

    steps = [line["step_s"] for line in told if line["event"] == "clock.stepped"]
    assert steps == [3600.0]
    assert place.children.started == [DUE, DUE + HOUR]


def test_what_a_clock_far_ahead_called_missed_runs_when_its_time_comes(place: Place) -> None:
    daemon = place.daemon()
    place.clock.wall += 26 * HOUR
    tick(daemon, 2)
    place.clock.wall -= 26 * HOUR
    place.clock.advance(ACCEPTED_AFTER)
    tick(daemon, 2)
    before = len(place.children.started)
    for _ in range(5):
        place.clock.advance(HOUR)
        tick(daemon, 2)

    assert place.children.started[before:] == [DUE + hour * HOUR for hour in range(1, 6)]


def test_a_clock_behind_its_own_records_is_held_for_a_while_then_believed_and_told(
    place: Place,
) -> None:
    daemon = place.daemon()
    place.clock.wall -= 2 * HOUR
    tick(daemon)
    place.clock.advance(ACCEPTED_AFTER - SECOND)
    tick(daemon)
    held = clock_findings(place)
    place.clock.advance(SECOND)
    tick(daemon)
    believed = clock_findings(place)
    place.clock.advance(TOLD_FOR)
    tick(daemon)

    assert held == []
    assert [finding.subject for finding in believed] == ["host/clock"]
    assert "timedatectl" in believed[0].remedy
    assert clock_findings(place) == []


def test_a_clock_that_catches_up_ends_what_was_told_of_it(place: Place) -> None:
    daemon = place.daemon()
    place.clock.wall -= 2 * HOUR
    tick(daemon)
    place.clock.advance(ACCEPTED_AFTER)
    tick(daemon)
    told = clock_findings(place)
    place.clock.wall += 2 * HOUR
    tick(daemon)

    assert len(told) == 1
    assert clock_findings(place) == []


def test_no_slot_is_judged_by_a_clock_that_went_back_but_later_slots_come(place: Place) -> None:
    minutely = replace(HOURLY, cron=parse("* * * * *", timezone=UTC, spread_by=""))
    place.jobs = [minutely]
    daemon = place.daemon()
    place.clock.wall -= HOUR
    for _ in range(20):
        place.clock.advance(MINUTE)
        tick(daemon)
    ran_meanwhile = place.children.started[1:]
    for _ in range(50):
        place.clock.advance(MINUTE)
        tick(daemon)

    assert all(slot <= place.clock.wall for slot in place.children.started)
    assert ran_meanwhile[0] == DUE - HOUR + 16 * MINUTE
    assert len(set(place.children.started)) == len(place.children.started)


def test_a_ledger_from_the_future_does_not_silence_a_job(place: Place) -> None:
    daemon = place.daemon()
    place.clock.wall += 400 * DAY
    tick(daemon, 2)
    place.clock.wall -= 400 * DAY
    tick(daemon)
    again = place.daemon()
    for _ in range(8):
        place.clock.advance(15 * MINUTE)
        tick(again)

    now = [slot for slot in place.children.started if slot < NOON + DAY]
    assert now == [DUE, DUE + HOUR, DUE + 2 * HOUR]


@pytest.mark.parametrize("days", [400, 4000])
def test_a_clock_years_ahead_does_not_empty_a_series(days: int) -> None:
    before = [backup(DAY * age) for age in range(60)]
    newest = backup(-DAY * days)
    now = newest.manifest.slot + MINUTE
    rules = Keep()

    decided = plan([*before, newest], rules, now=now, timezone=UTC)
    left = {one.backup.key for one in decided.keep}
    afterwards = plan(
        [one for one in (*before, newest) if one.key in left],
        rules,
        now=before[0].manifest.slot + DAY,
        timezone=UTC,
    )

    good = [one for one in afterwards.keep if one.backup.condition is Condition.GOOD]
    kept_before = [one for one in before if one.key in left]
    assert len(kept_before) >= rules.daily
    assert before[:3] == kept_before[:3]
    assert len(good) >= rules.daily


def test_nothing_runs_in_1970_and_it_is_told_until_the_clock_is_set(tmp_path: Path) -> None:
    with at(tmp_path, datetime(1970, 1, 1, 0, 1, tzinfo=UTC)) as place:
        daemon = place.daemon()
        tick(daemon)
        place.clock.advance(10 * ACCEPTED_AFTER)
        tick(daemon, 2)
        in_1970 = list(place.children.started), clock_findings(place)
        place.clock.wall = NOON
        tick(daemon, 2)

        assert in_1970[0] == []
        assert "nothing is started" in in_1970[1][0].summary
        assert place.children.started == [DUE]
        assert clock_findings(place) == []


def test_a_boot_in_1970_after_a_life_with_a_right_clock_records_nothing(place: Place) -> None:
    before = place.state.runs()
    place.clock.wall = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)

    tick(place.daemon(), 3)

    assert place.state.runs() == before


@pytest.mark.parametrize(
    ("first", "slots"),
    [
        (
            datetime(2027, 3, 27, 12, 0, tzinfo=BERLIN),
            ["2027-03-28T03:00+02:00", "2027-03-29T02:30+02:00"],
        ),
        (
            datetime(2027, 10, 30, 12, 0, tzinfo=BERLIN),
            ["2027-10-31T02:30+02:00", "2027-11-01T02:30+01:00"],
        ),
    ],
    ids=["spring gap", "autumn fold"],
)
def test_a_nightly_job_runs_once_in_the_nights_of_summer_time(
    tmp_path: Path, first: datetime, slots: list[str]
) -> None:
    cron = parse("30 2 * * *", timezone=BERLIN, spread_by="")
    nightly = Scheduled(job=JOB, cron=cron, timeout=HOUR)
    with at(tmp_path, first.astimezone(UTC), nightly) as place:
        daemon = place.daemon()
        tick(daemon)
        for _ in range(2 * 24 * 4):
            place.clock.advance(15 * MINUTE)
            tick(daemon)

        assert place.children.started[1:] == [datetime.fromisoformat(slot) for slot in slots]
        assert {outcome for _, outcome in place.outcomes(JOB)} == {Outcome.COMPLETED}


@pytest.mark.parametrize("drift", [0.95, 1.05])
def test_a_clock_that_drifts_skips_no_slot_and_is_no_event(place: Place, drift: float) -> None:
    daemon = place.daemon()
    with structlog.testing.capture_logs() as told:
        for _ in range(300):
            place.clock.wall += MINUTE * drift
            place.clock.ticks_s += 60
            tick(daemon)

    passed = int((place.clock.wall - DUE) / HOUR)
    assert place.children.started == [DUE + hour * HOUR for hour in range(passed + 1)]
    assert [line for line in told if line["event"].startswith("clock.")] == []


def test_after_three_days_without_power_one_run_and_one_message_tell_it(tmp_path: Path) -> None:
    daily = scheduled(JOB, "0 12 * * *")
    with at(tmp_path, NOON, daily) as place:
        tick(place.daemon())
        place.clock.advance(3 * DAY)
        daemon = place.daemon()
        tick(daemon, 3)

        assert place.outcomes(JOB)[1:] == [
            (DUE + DAY, Outcome.MISSED),
            (DUE + 2 * DAY, Outcome.MISSED),
            (DUE + 3 * DAY, Outcome.COMPLETED),
        ]
        assert {run.error for run in place.state.runs() if run.error} == {NOT_RUNNING}
        assert place.children.deliveries >= 1
        assert place.state.open_findings() == ()


def test_a_machine_that_slept_is_told_runs_the_newest_slot_and_keeps_its_deadlines(
    place: Place,
) -> None:
    daemon = place.daemon()
    with structlog.testing.capture_logs() as told:
        place.clock.wall += 8 * HOUR
        tick(daemon, 2)

    assert [line["step_s"] for line in told if line["event"] == "clock.stepped"] == [8 * 3600.0]
    assert place.children.started == [DUE, DUE + 8 * HOUR]
    assert [one for _, one in place.outcomes(JOB)].count(Outcome.MISSED) == 7


@pytest.mark.parametrize("timezone", ["", 'timezone = "Europe/Berlin"\n'])
def test_without_time_zones_the_daemon_says_what_to_install(timezone: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        f'[opsd]\nstate_dir = "{tmp_path}/state"\n{timezone}', "utf-8"
    )
    environment = {**os.environ, "PYTHONTZPATH": "/nonexistent", "PYTHONPATH": str(ROOT)}

    ended = subprocess.run(
        [sys.executable, "-m", "opsd", "--config", "config.toml", "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
    assert "opsd.timezone" in ended.stderr
    assert "apt-get install tzdata" in ended.stderr
