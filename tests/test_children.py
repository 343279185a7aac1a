from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.clock import SystemClock
from opsd.executors import process
from opsd.executors.process import Children, Ended, Ending, supervise
from tests.rig import hungfs

MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_LOOK_S", 0.05)
    monkeypatch.setattr(process, "STOP_GRACE_S", 0.3)
    monkeypatch.setattr("opsd.clients.process.KILL_GRACE_S", 0.5)


def run(*argv: str, timeout: timedelta = MINUTE, stop: threading.Event | None = None) -> Ended:
    return supervise(argv, timeout=timeout, stop=stop or threading.Event(), clock=SystemClock())


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_child_that_ends_gives_its_status(status: int) -> None:
    assert run(*python(f"raise SystemExit({status})")) == Ended(
        ending=Ending.BY_ITSELF, status=status
    )


def test_a_child_that_was_killed_is_told_by_its_signal() -> None:
    assert run(*python("import os; os.kill(os.getpid(), 9)")).status == -9


def test_a_child_that_overstays_gets_sigterm_first() -> None:
    code = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(5)); time.sleep(60)"

    ended = run(*python(code), timeout=timedelta(seconds=1))

    assert ended == Ended(ending=Ending.OVERSTAYED, status=5)


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"

    ended = run(*python(code), timeout=timedelta(seconds=1))

    assert ended == Ended(ending=Ending.OVERSTAYED, status=-9)


def test_a_child_is_ended_when_opsd_stops() -> None:
    stop = threading.Event()
    stop.set()

    assert run("sleep", "60", stop=stop) == Ended(ending=Ending.STOPPED, status=-15)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_child_that_cannot_be_killed_is_left_behind() -> None:
    with hungfs.mounted() as dead:
        ended = run("stat", str(dead / "file"), timeout=timedelta(seconds=0.2))

    assert ended == Ended(ending=Ending.OVERSTAYED, status=None)


def test_a_child_has_our_environment_where_the_secrets_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPSD_TEST_SECRET", "given")
    code = "import os; raise SystemExit(7 if os.environ['OPSD_TEST_SECRET'] == 'given' else 1)"

    assert run(*python(code)).status == 7


def test_the_child_is_the_ordinary_command(tmp_path: Path) -> None:
    written = tmp_path / "argv"
    program = tmp_path / "opsd"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {written}\n')
    program.chmod(0o755)
    children = Children(config=tmp_path / "config.toml", clock=SystemClock())
    children._command = (str(program), *children._command[1:])
    slot = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)

    children.run_job("nfs-backup", slot=slot, timeout=MINUTE, stop=threading.Event())

    assert written.read_text().split("\n")[:-1] == [
        "-m",
        "opsd",
        "--config",
        str(tmp_path / "config.toml"),
        "run-job",
        "nfs-backup",
        "--slot",
        "2026-11-22T03:00:00+00:00",
    ]
    assert os.access(program, os.X_OK)
