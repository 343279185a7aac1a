"""`opsd status` and `opsd history`: what somebody sees who looks."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from opsd.cli.records import CHANNEL_DOWN
from opsd.model import Message, Outcome, Severity
from opsd.state import DAEMON
from tests.rig.typed import NAMES, Desk, ago, finding, run


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    """With a completed run of every job, of two hours ago."""
    desk = Desk(tmp_path, monkeypatch, capsys)
    desk.record(*(run(job, job=job, started_at=ago(hours=2)) for job in NAMES))
    return desk


def test_all_is_well_only_while_the_daemon_runs(desk: Desk) -> None:
    without = desk.type("status")
    with desk.state() as state, state.lease(DAEMON, "daemon"):
        during, answer = desk.type("status"), desk.json("status")

    assert without.status == during.status == 0
    assert "! the daemon is not running" in without.out
    assert without.lines[-1] == "All is well, as of the last runs."
    assert "daemon" not in during.out
    assert during.lines[-1] == "All is well."
    assert answer["daemon"]["running"] is True
    assert answer["daemon"]["since"]
    assert desk.json("status")["daemon"] == {"running": False, "since": None}


def test_a_job_that_never_ran_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(tmp_path, monkeypatch, capsys)
    before = desk.type("status").lines[-1]
    desk.record(run("a1"))
    after = desk.type("status").lines[-1]

    assert before == "Nothing was run yet: opsd run-job backup"
    assert after == "What was run is well; never run: postgres-backup."


def test_an_unreadable_state_leaves_the_daemon_unknown(desk: Desk) -> None:
    (desk.home / "state/state.db").write_text("this is no database\n" * 100)
    for leftover in desk.home.glob("state/state.db-*"):
        leftover.unlink()

    ended, answer = desk.type("status"), desk.json("status")

    assert ended.status == 1
    assert "could not tell what was run" in ended.out
    assert "daemon" not in ended.out
    assert answer["daemon"]["running"] is None


@pytest.mark.parametrize(
    ("due_ago", "answered_ago", "is_overdue"), [(15, 40, True), (15, 14, False), (5, 34, False)]
)
def test_a_slot_that_nothing_answered_in_time_is_overdue(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    due_ago: int,
    answered_ago: int,
    is_overdue: bool,
) -> None:
    desk = Desk(tmp_path, monkeypatch, capsys)
    config = desk.home / "config.toml"
    every_half_hour = f"{ago(minutes=due_ago).minute % 30}-59/30 * * * *"
    config.write_text(config.read_text().replace("30 3 * * *", every_half_hour))
    answered = ago(minutes=answered_ago).replace(second=0)
    desk.record(run("a1", slot=answered, started_at=answered, attempt=1))

    ended, job = desk.type("status"), desk.json("status")["jobs"][1]

    assert ended.status == (3 if is_overdue else 0)
    assert bool(job["overdue_since"]) == is_overdue
    assert ("! nfs-backup was due at " in ended.out) == is_overdue


def test_a_slot_that_passed_in_a_pause_is_not_overdue(desk: Desk) -> None:
    config = desk.home / "config.toml"
    config.write_text(config.read_text().replace("30 3 * * *", "* * * * *"))
    long_ago = ago(hours=1)
    nightly = run("a2", slot=long_ago, started_at=long_ago, attempt=1, job="nfs-backup")
    desk.record(nightly)
    desk.type("pause", "nfs-backup", "--for", "2d", "--reason", "new disk")

    assert desk.json("status")["jobs"][1]["overdue_since"] is None

    desk.type("resume", "nfs-backup")

    assert desk.json("status")["jobs"][1]["overdue_since"]


def test_a_pause_is_told_with_its_reason_and_needs_nobody(desk: Desk) -> None:
    desk.type("pause", "nfs-backup", "--for", "2d", "--reason", "new disk")
    desk.record(run("s", outcome=Outcome.SKIPPED, error="paused", started_at=ago(seconds=1)))

    ended, answer = desk.type("status"), desk.json("status")

    assert ended.status == 0
    assert "! nfs-backup is paused until " in ended.out
    assert ended.out.count("new disk") == 1
    assert [bool(one["paused"]) for one in answer["jobs"]] == [False, True]


def test_what_is_acknowledged_or_silenced_is_marked_and_still_counts(desk: Desk) -> None:
    desk.record(run("a2", findings=(finding("share/a"), finding("share/b"))))
    with desk.state() as state:
        for entry in state.undelivered():
            state.mark_delivered(entry.id, at=ago())
    fresh = desk.type("status")
    desk.type("ack", "share/a")
    desk.type("silence", "share/b", "--for", "1h", "--reason", "new disk")

    ended, answer = desk.type("status"), desk.json("status")

    assert fresh.lines[-1] == "Something needs you: see above."
    assert "All that is open is acknowledged or silenced." in ended.lines
    assert ended.status == fresh.status == 3
    assert "SILENCED" in ended.lines
    assert [bool(one["acknowledged"]) for one in answer["findings"]] == [True, False]
    assert [bool(one["silenced"]) for one in answer["findings"]] == [False, True]
    assert [one["subject"] for one in answer["silences"]] == ["share/b"]


def test_mere_information_needs_nobody(desk: Desk) -> None:
    desk.record(run("a2", findings=(finding(severity=Severity.INFO),)))

    assert desk.type("status").status == 0


def test_a_channel_that_is_down_shows(desk: Desk) -> None:
    down = finding("channel/phone", check=CHANNEL_DOWN, severity=Severity.WARNING)
    before = desk.json("status")["channels"]
    with desk.state() as state:
        state.observe("opsd", findings=[down], seen=[], tell=lambda alerts, _f, _at: (alerts, ()))

    [channel] = desk.json("status")["channels"]

    assert before == [{"name": "phone", "down_since": None}]
    assert channel["down_since"]
    assert "channel/phone cannot be read" in desk.type("status").out


def test_that_nobody_is_told_is_said(desk: Desk) -> None:
    desk.configure(without='[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_URL"\n')

    assert "! nobody is told anything: there is no alert target" in desk.type("status").out


def test_what_waits_for_the_end_of_quiet_hours_is_counted(desk: Desk) -> None:
    config = desk.home / "config.toml"
    config.write_text(
        config.read_text().replace('quiet_hours = ""', f'quiet_hours = "{around_now()}"')
    )
    warning = finding(severity=Severity.WARNING)
    with desk.state() as state:
        state.observe("nfs-backup", findings=[warning], seen=[], tell=desk.wired_tell())

    ended, answer = desk.type("status"), desk.json("status")

    assert "! 1 change held by quiet hours, told at their end: " in ended.out
    assert answer["held"]["count"] == 1
    assert answer["held"]["until"]


def around_now() -> str:
    """Quiet hours in Berlin that began an hour ago and end in one."""
    zone = ZoneInfo("Europe/Berlin")
    begin, end = (ago(hours=hours).astimezone(zone) for hours in (1, -1))
    return f"{begin:%H:%M}-{end:%H:%M}"


def test_messages_that_wait_are_told_with_the_reason(desk: Desk) -> None:
    message = Message(key="k", severity=Severity.CRITICAL, title="t", body="b")
    with desk.state() as state:
        state.tell(lambda alerts, _open, _at: (alerts, (message,)))
        [entry] = state.undelivered()
        state.mark_failed(entry.id, error="phone: refused", next_try_at=ago(hours=-1))

    ended = desk.type("status")

    assert ended.status == 3
    assert "! 1 message not delivered, the oldest from" in ended.out
    assert ": phone: refused" in ended.out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal(desk: Desk, columns: int) -> None:
    desk.type("pause", "backup", "--for", "2d", "--reason", "a reason of many words " * 8)
    desk.record(run("a2", outcome=Outcome.FAILED, error="why " * 60, retry_at=ago(hours=-1)))

    for command in ("status", "history"):
        seen = desk.see(command, columns=columns)

        assert max(len(line) for line in seen.lines) <= columns
        if command == "status":
            [job] = [line for line in seen.lines if line.startswith("nfs-backup  ")]
            assert "paused" in job


def test_history_says_which_try_it_was_and_when_the_next_is(desk: Desk) -> None:
    again = ago(hours=-1)
    desk.record(
        run("a2", outcome=Outcome.FAILED, error="refused", attempt=1, retry_at=again),
        run("a3", attempt=2),
    )

    ended, runs = desk.type("history"), desk.json("history")["runs"]

    local = again.astimezone(ZoneInfo("Europe/Berlin"))
    [failed] = [line for line in ended.lines if "refused" in line]
    assert f"tried again at {local:%H:%M}: refused" in failed
    assert any(line.endswith("try 2") for line in ended.lines)
    assert [(one["attempt"], bool(one["retry_at"])) for one in runs[:2]] == [(2, False), (1, True)]


def test_history_is_read_on_a_phone_without_columns(desk: Desk) -> None:
    desk.record(run("a2", outcome=Outcome.FAILED, error="refused"))

    lines = desk.see("history", columns=60).lines

    assert lines[0].endswith("nfs-backup failed, took 2 min")
    assert lines[1] == "  refused"
