"""`opsd run` as a process: it starts, stays small, and ends when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from opsd.clock import SystemClock
from opsd.state import DAEMON
from opsd.state.sqlite import SqliteState
from tests.rig.server import HOST, free_port

ROOT = Path(__file__).parent.parent
HEAVY = ("apprise", "boto3", "jobs", "psycopg", "pydantic")
TIMEOUT_S = 60.0


@contextmanager
def daemon(home: Path, *, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """`opsd run` in `home`; killed when it does not end, and with this process."""
    program = ["-c", code] if code else ["-m", "opsd", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OPSD_CONFIG", None)
    with subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", sys.executable, *program],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        fuse = threading.Timer(TIMEOUT_S, process.kill)
        fuse.start()
        try:
            yield process
        finally:
            fuse.cancel()
            process.kill()


def await_start(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, object] = json.loads(line)
        if event["event"] == "daemon.started":
            return event
    raise AssertionError("the daemon did not start")


def test_it_starts_and_ends_when_told_to(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[opsd]\nstate_dir = "{tmp_path}/state"\n')

    with daemon(tmp_path) as process:
        started = await_start(process)
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=TIMEOUT_S)

    assert started["jobs"] == []
    assert json.loads(rest.splitlines()[-1])["event"] == "daemon.stopped"
    assert process.returncode == 0


def test_it_shows_itself_for_as_long_as_it_lives(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "config.toml").write_text(
        f'[opsd]\nstate_dir = "{tmp_path}/state"\n[http]\nlisten = "{HOST}:{port}"\n'
    )

    with daemon(tmp_path) as process:
        await_start(process)
        shown = {path: asked(port, path) for path in ("livez", "readyz", "metrics")}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIMEOUT_S)

    assert (shown["livez"], shown["readyz"]) == ("ok\n", "ok\n")
    assert "\nopsd_state_readable 1.0\n" in shown["metrics"]
    assert process.returncode == 0
    with pytest.raises(URLError):
        asked(port, "livez")


def asked(port: int, path: str) -> str:
    with urlopen(f"http://{HOST}:{port}/{path}", timeout=20) as response:
        text: str = response.read().decode()
        return text


def test_it_holds_nothing_heavy_in_memory(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[opsd]\nstate_dir = "{tmp_path}/state"\n')
    code = (
        "import sys; from opsd.cli import main; status = main(['run']); "
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), status)"
    )

    with daemon(tmp_path, code=code) as process:
        await_start(process)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=TIMEOUT_S)

    assert out.strip() == "[] 0"


def test_a_wrong_configuration_ends_it_at_once_with_every_problem(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[opsd]\ntimezone = "X"\nlog_level = "Y"\n')

    with daemon(tmp_path) as process:
        _, err = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 2
    assert [line.split(": ")[1] for line in err.splitlines()] == [f"{config}:2", f"{config}:3"]


def test_status_sees_a_daemon_for_as_long_as_one_lives(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[opsd]\nstate_dir = "{tmp_path}/state"\n')

    def is_seen() -> bool:
        state = SqliteState(tmp_path / "state/state.db", clock=SystemClock())
        try:
            return state.holder(DAEMON) is not None
        finally:
            state.close()

    before = is_seen()
    with daemon(tmp_path) as first:
        await_start(first)
        alone = is_seen()
        with daemon(tmp_path) as second:
            await_start(second)
        beside = is_seen()
        first.kill()
        first.wait()
        after = is_seen()

    assert [before, alone, beside, after] == [False, True, True, False]
