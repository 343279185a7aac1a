"""`opsd pause` and `opsd resume`: a job that is not started for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.incidents import Pause
from tests.rig.typed import NAMES, Desk, ago

WHY = ("--for", "2d", "--reason", "new disk")


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def paused(desk: Desk) -> dict[str, Pause]:
    with desk.state() as state:
        return {one.job: one for one in state.pauses()}


def test_a_paused_job_is_told_with_its_end_and_reason(desk: Desk) -> None:
    before = datetime.now(UTC)

    ended = desk.type("pause", "nfs-backup", *WHY)

    until = paused(desk)["nfs-backup"].until
    assert ended.status == 0
    assert ended.lines[0].startswith("nfs-backup is paused until ")
    assert ended.lines[0].endswith(" (in 2 days): new disk")
    assert ended.lines[1] == "End it: opsd resume nfs-backup"
    assert before <= until - timedelta(days=2) <= datetime.now(UTC)


def test_a_group_is_paused_and_resumed_as_a_whole(desk: Desk) -> None:
    desk.type("pause", "backup", *WHY)
    during = set(paused(desk))
    answer = desk.json("resume", "backup")

    assert during == set(NAMES)
    assert answer == {"resumed": list(NAMES), "pauses": []}
    assert paused(desk) == {}


def test_pausing_again_replaces_the_former_pause(desk: Desk) -> None:
    desk.type("pause", "nfs-backup", *WHY)
    desk.type("pause", "nfs-backup", "--for", "1h", "--reason", "nearly done")

    [one] = desk.json("pause")["pauses"]

    assert one["reason"] == "nearly done"


def test_pauses_that_have_run_out_are_not_listed(desk: Desk) -> None:
    with desk.state() as state:
        state.pause(Pause(job="nfs-backup", since=ago(hours=2), until=ago(hours=1), reason="x"))

    assert desk.json("pause") == {"pauses": []}
    assert desk.type("pause").lines == ["Nothing is paused."]


def test_a_job_that_was_not_paused_is_said_not_to_be(desk: Desk) -> None:
    ended = desk.type("resume", "nfs-backup")

    assert ended.status == 0
    assert ended.lines == ["nfs-backup was not paused."]


def test_a_pause_of_a_job_that_lost_its_table_can_be_ended(desk: Desk) -> None:
    with desk.state() as state:
        state.pause(Pause(job="gone", since=ago(hours=1), until=ago(hours=-1), reason="x"))

    assert desk.type("resume", "gone").status == 0
    assert paused(desk) == {}


@pytest.mark.parametrize("command", [["pause", "nfs-bakcup", *WHY], ["resume", "nfs-bakcup"]])
def test_an_unknown_job_gets_a_suggestion(desk: Desk, command: list[str]) -> None:
    ended = desk.type(*command)

    assert ended.status == 2
    assert 'did you mean "nfs-backup"?' in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nfs-backup"], "--for and --reason are missing"),
        (["nfs-backup", "--for", "1h"], "--reason is missing"),
        (["nfs-backup", "--for", "91d", "--reason", "x"], "at most 90d"),
        (["--for", "1h", "--reason", "x"], "name the job"),
    ],
)
def test_a_pause_needs_a_job_an_end_and_a_reason(
    desk: Desk, arguments: list[str], told: str
) -> None:
    ended = desk.type("pause", *arguments)

    assert ended.status == 2
    assert told in ended.err
    assert paused(desk) == {}
