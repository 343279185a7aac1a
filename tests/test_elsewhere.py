"""opsd means the same on a machine in another time zone whose terminal knows ASCII only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.home import ROOT, Home

#: What reads clocks, calendars and alphabets; each finds its files by itself, none needs servers.
PURE = (
    "tests/test_clock.py",
    "tests/test_cli_render.py",
    "tests/test_cron.py",
    "tests/test_policy.py",
    "tests/test_render.py",
    "tests/test_retention.py",
    "tests/test_schedule.py",
    "tests/test_text.py",
)
ELSEWHERE = (
    {"TZ": "America/New_York", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
    {"TZ": "Pacific/Apia", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
)
COMMANDS = ("jobs", "status", "history", "findings", "config show", "backups list", "check")
CONFIG = """
[opsd]
state_dir = "{place}/state"
timezone = "Europe/Berlin"

[repositories.disk]
type = "directory"
path = "{place}/repository"

[jobs.nfs-backup]
schedule = "30 2 1 1 *"

[[jobs.nfs-backup.shares]]
name = "Müller-„Daten“-✓"
path = "{place}/share"
mounted = false
engine = "rsync"
repository = "disk"
"""


@pytest.mark.parametrize("there", ELSEWHERE, ids=lambda there: there["TZ"])
def test_the_pure_tests_pass_elsewhere(there: dict[str, str]) -> None:
    environment = {**os.environ, **there}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *("-k", "not exactly_once and not agree_about_every_slot", *PURE),  # long, and in UTC
        ],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout.decode("ascii", "backslashreplace")[-4000:]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation with a name that ASCII cannot write, and one run of it."""
    home = Home(place=tmp_path_factory.mktemp("elsewhere"), is_measured=False)
    home.repository.mkdir()
    home.fill_share()
    home.config.write_text(CONFIG.format(place=home.place), encoding="utf-8")
    assert home.opsd("run-job", "nfs-backup").status == 0
    return home


@pytest.mark.real
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers_the_same_elsewhere(home: Home, command: str) -> None:
    arguments = command.split()
    here = home.opsd("-o", "json", *arguments)

    home.environment |= ELSEWHERE[1]
    there, text = home.opsd("-o", "json", *arguments), home.opsd(*arguments)
    for name in ELSEWHERE[1]:
        del home.environment[name]

    assert (there.status, text.status) == (here.status, here.status), there.err + text.err
    assert without_ages(json.loads(there.out)) == without_ages(json.loads(here.out))
    assert text.out.isascii()
    assert "Traceback" not in text.err


def without_ages(value: object) -> object:
    """What a command said, but for what changes between two calls."""
    if isinstance(value, dict):
        return {
            key: without_ages(one)
            for key, one in value.items()
            if not key.endswith(("_s", "now", "age"))
        }
    if isinstance(value, list):
        return [without_ages(one) for one in value]
    return value


def test_the_files_of_the_pure_tests_are_there() -> None:
    assert [name for name in PURE if not (Path(ROOT) / name).exists()] == []
