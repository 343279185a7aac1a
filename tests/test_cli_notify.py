"""Does the phone ring, and does what waits arrive? With a real service on loopback."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.cli import main
from opsd.cli.calling import STATE_FILE
from opsd.clock import SystemClock
from opsd.model import Finding, Message, Outcome, Run, Severity
from opsd.state.sqlite import SqliteState
from opsd.testing import tell_nobody
from opsd.triage import OWN
from tests.rig.sink import Sink


@pytest.fixture
def home(tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPSD_CONFIG", raising=False)
    monkeypatch.setenv("OPSD_TEST_PHONE", sink.url.replace("http://", "json://"))
    (tmp_path / "config.toml").write_text(
        f'[opsd]\nstate_dir = "{tmp_path}/state"\n'
        '[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_PHONE"\n'
    )
    return tmp_path


def put_message(home: Path) -> None:
    """Leave a message in the outbox, as a run does."""
    now = datetime.now(UTC).replace(microsecond=0)
    failed = Run(
        job="test",
        run_id="0123456789ab",
        slot=now,
        started_at=now,
        duration=timedelta(0),
        outcome=Outcome.FAILED,
        error="on purpose",
    )
    told = Message(key="test/1", severity=Severity.CRITICAL, title="It broke", body="Look at it")
    state = SqliteState(home / "state" / STATE_FILE, clock=SystemClock())
    state.record(failed, tell=lambda alerts, _open, _at: (alerts, (told,)))
    state.close()


@pytest.mark.usefixtures("home")
def test_a_test_message_arrives(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["notify-test", "-o", "json"])

    [request] = sink.wait_for(1)
    assert status == 0
    assert "test message" in json.loads(request.body)["title"]
    assert json.loads(capsys.readouterr().out) == {
        "targets": [{"target": "phone", "accepted": True, "error": ""}]
    }


@pytest.mark.usefixtures("home")
def test_a_service_that_refuses_is_told(sink: Sink, capsys: pytest.CaptureFixture[str]) -> None:
    sink.answer(500)

    status = main(["notify-test", "-o", "json"])

    [target] = json.loads(capsys.readouterr().out)["targets"]
    assert status == 1
    assert target["accepted"] is False
    assert target["error"]


@pytest.mark.usefixtures("home")
def test_an_unknown_target_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["notify-test", "--target", "fax"])

    assert status == 2
    assert "no alert target fax; configured: phone" in capsys.readouterr().err


def test_without_targets_it_is_said_how_to_add_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "config.toml").write_text(f'[opsd]\nstate_dir = "{home}/state"\n')

    status = main(["notify-test"])

    assert status == 2
    assert "[[alerts.targets]]" in capsys.readouterr().err


def test_what_waits_is_delivered_and_then_status_is_silent_about_it(
    home: Path, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    put_message(home)
    main(["status", "-o", "json"])
    before = json.loads(capsys.readouterr().out)["undelivered"]

    delivered = main(["deliver"])
    capsys.readouterr()
    main(["status", "-o", "json"])
    after = json.loads(capsys.readouterr().out)["undelivered"]

    [request] = sink.wait_for(1)
    assert delivered == 0
    assert json.loads(request.body)["title"] == "It broke"
    assert [one["title"] for one in before] == ["It broke"]
    assert after == []


def test_what_cannot_be_delivered_stays_and_is_shown_with_its_reason(
    home: Path, sink: Sink, capsys: pytest.CaptureFixture[str]
) -> None:
    sink.answer(500)
    put_message(home)

    status = main(["deliver"])
    capsys.readouterr()
    main(["status"])

    out = capsys.readouterr().out
    assert status == 1
    assert "not delivered, the oldest from" in out
    assert "phone: " in out


@pytest.mark.parametrize(
    ("status", "left"),
    [(200, {"channel/other"}), (500, {"channel/phone", "channel/other", "channels"})],
)
def test_a_channel_that_takes_a_test_message_is_not_down_any_more(
    status: int, left: set[str], home: Path, sink: Sink
) -> None:
    state = SqliteState(home / "state" / STATE_FILE, clock=SystemClock())
    down = [
        Finding(check="alerts.c", subject=subject, severity=Severity.WARNING, summary="s")
        for subject in ("channel/phone", "channel/other", "channels")
    ]
    state.observe(OWN, findings=down, seen=(), tell=tell_nobody)
    sink.answer(status)

    main(["notify-test"])
    found = {entry.finding.subject for entry in state.open_findings(job=OWN)}
    state.close()

    assert found == left
