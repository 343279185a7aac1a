"""`opsd jobs`: when each job is due, how it went, how long it takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opsd.cli.jobs import FEWEST_USUAL, NEXT_SLOTS, TREND_RUNS, sparkline, usual_duration
from opsd.model import Outcome, Run
from tests.rig.typed import Desk, ago, run

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)
WINDOW = """
[[maintenance]]
name = "updates"
schedule = "* * * * *"
duration = "2h"
jobs = ["nfs-*"]
"""


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def lasting(*minutes: float, **changes: object) -> list[Run]:
    """Completed runs, oldest first."""
    return [
        run(
            f"r{number}",
            duration=timedelta(minutes=one),
            started_at=ago(hours=len(minutes) - number),
            **changes,
        )
        for number, one in enumerate(minutes)
    ]


def of_job(desk: Desk, name: str = "nfs-backup") -> dict[str, object]:
    found: dict[str, object] = next(one for one in desk.json("jobs")["jobs"] if one["job"] == name)
    return found


def block(text: str, name: str = "nfs-backup") -> list[str]:
    """The lines of one job."""
    part = next(part for part in text.split("\n\n") if part.startswith(name))
    return [line.rstrip() for line in part.splitlines()]


def test_the_schedule_is_said_in_words_with_the_next_three_times(desk: Desk) -> None:
    lines = block(desk.type("jobs").out)
    slots = [
        datetime.fromisoformat(str(one)) for one in desk.json("jobs")["jobs"][1]["next_slots"]
    ]

    assert lines[0] == "nfs-backup (group backup)"
    assert lines[2] == "  due   at 03:30 every day"
    assert lines[3].count(" 03:30") == NEXT_SLOTS
    assert [f"{slot.astimezone(BERLIN):%H:%M}" for slot in slots] == ["03:30"] * NEXT_SLOTS
    assert datetime.now(UTC) < slots[0] < slots[1] < slots[2]


def test_a_job_that_never_ran_is_said_to_be_so(desk: Desk) -> None:
    assert "  last  never run" in block(desk.type("jobs").out)


def test_looking_leaves_no_state_behind(desk: Desk) -> None:
    desk.type("jobs")

    assert not (desk.home / "state").exists()


def test_the_last_run_is_told_and_what_is_usual_when_it_was_not(desk: Desk) -> None:
    desk.record(*lasting(2, 2, 2, 3))

    assert "  last  completed 60 min ago, took 3 min, usually 2 min" in block(
        desk.type("jobs").out
    )


def test_what_took_as_long_as_ever_is_not_compared(desk: Desk) -> None:
    desk.record(*lasting(2, 2, 2, 2.2))

    assert "  last  completed 60 min ago, took 2 min" in block(desk.type("jobs").out)


def test_a_failed_run_is_not_compared_with_those_that_completed(desk: Desk) -> None:
    desk.record(*lasting(2, 2, 2, 2))
    desk.record(run("f", outcome=Outcome.FAILED, error="x", started_at=ago(minutes=30)))

    assert "  last  failed 30 min ago, took 2 min" in block(desk.type("jobs").out)


def test_that_a_failed_run_is_tried_again_is_told(desk: Desk) -> None:
    again = ago(minutes=-5.5)
    desk.record(
        run("f", outcome=Outcome.FAILED, error="x", started_at=ago(hours=2), retry_at=again)
    )

    assert "  last  failed 2 h ago, took 2 min, tried again in 5 min" in block(
        desk.type("jobs").out
    )


def test_a_terminal_shows_how_the_duration_went(desk: Desk) -> None:
    desk.record(*lasting(1, 1, 2, 8))

    seen = desk.see("jobs")

    assert "  took  ▂▂▃█ 60 s to 8 min" in block(seen.out.replace("\r", ""))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_terminal_that_knows_few_letters_is_spared_the_picture(
    desk: Desk, encoding: str
) -> None:
    desk.record(*lasting(1, 1, 2, 8))

    seen = desk.see("jobs", encoding=encoding)

    assert ("█" in seen.out) == (encoding == "utf-8")
    assert seen.status == 0


def test_a_pipe_is_spared_the_picture(desk: Desk) -> None:
    desk.record(*lasting(1, 1, 2, 8))

    assert "█" not in desk.type("jobs").out


def test_a_paused_job_is_said_to_be_paused(desk: Desk) -> None:
    desk.type("pause", "nfs-backup", "--for", "2d", "--reason", "new disk")

    lines = block(desk.type("jobs").out)

    assert any(line.startswith("  paused until ") and line.endswith("new disk") for line in lines)
    assert of_job(desk)["paused"]
    assert of_job(desk, "postgres-backup")["paused"] is None


def test_a_job_that_waits_for_the_end_of_maintenance_is_said_to_wait(desk: Desk) -> None:
    desk.configure(WINDOW)

    lines = block(desk.type("jobs").out)

    assert any("waits for the end of maintenance updates" in line for line in lines)
    assert of_job(desk)["maintenance"]
    assert of_job(desk, "postgres-backup")["maintenance"] is None


def test_a_disabled_job_is_said_to_be_disabled(desk: Desk) -> None:
    desk.configure()
    config = desk.home / "config.toml"
    config.write_text(config.read_text().replace('30 3 * * *"', '30 3 * * *"\nenabled = false'))

    assert "  due   disabled; opsd run-job nfs-backup runs it" in block(desk.type("jobs").out)
    assert of_job(desk)["next_slots"] == []


def test_a_state_that_cannot_be_read_is_told_and_is_no_error(desk: Desk) -> None:
    (desk.home / "state").mkdir()
    (desk.home / "state/state.db").write_text("this is no database\n" * 100)

    ended, answer = desk.type("jobs"), desk.json("jobs")

    assert ended.status == 0
    assert "✗ could not tell what was run: " in ended.out
    assert "never run" not in ended.out
    assert answer["state"]["readable"] is False
    assert answer["jobs"][0]["next_slots"]


def test_the_answer_for_programs_has_the_durations_oldest_first(desk: Desk) -> None:
    desk.record(*lasting(*range(1, TREND_RUNS + 3)))

    job = of_job(desk)

    assert job["durations_s"] == [60.0 * number for number in range(3, TREND_RUNS + 3)]
    assert job["usual_duration_s"] == 60.0 * 7
    assert isinstance(job["last_run"], dict)
    assert job["last_run"]["run_id"] == f"r{TREND_RUNS + 1}"


@pytest.mark.parametrize("before", [FEWEST_USUAL - 1, FEWEST_USUAL])
def test_what_is_usual_needs_a_few_runs(before: int) -> None:
    runs = lasting(*[1] * before, 9)[::-1]

    assert usual_duration(runs) == (MINUTE if before >= FEWEST_USUAL else None)


@pytest.mark.parametrize(
    ("minutes", "picture"),
    [([], ""), ([0, 0], ""), ([1], "█"), ([0, 1, 2], "▁▅█"), ([5, 5, 5], "███")],
)
def test_sparklines(minutes: list[int], picture: str) -> None:
    assert sparkline([one * MINUTE for one in minutes]) == picture


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal(desk: Desk, columns: int) -> None:
    desk.configure(WINDOW)
    desk.record(*lasting(1, 1, 2, 8))
    desk.type("pause", "backup", "--for", "2d", "--reason", "a reason of many words " * 8)

    seen = desk.see("jobs", columns=columns)

    assert max(len(line) for line in seen.lines) <= columns
