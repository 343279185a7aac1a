"""A directory with a configuration, a state to be filled, and somebody who types commands there.

Commands run in this process; what they print is taken as a pipe gets it, or as a terminal of
some width shows it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import JOBS
from opsd.alerts.policy import Policy, advance
from opsd.cli import main
from opsd.cli.wiring import Wiring
from opsd.clock import SystemClock
from opsd.configfile import load
from opsd.incidents import AlertState
from opsd.model import Finding, Message, OpenFinding, Outcome, Run, Severity
from opsd.state import Tell
from opsd.state.sqlite import SqliteState

NAMES = ("postgres-backup", "nfs-backup")
CONFIG = """\
[opsd]
state_dir = "{home}/state"
timezone = "Europe/Berlin"

[repositories.usb]
type = "directory"
path = "{home}/repository"

[alerts]
quiet_hours = ""

[[alerts.targets]]
name = "phone"
url = "env:OPSD_TEST_URL"

[jobs.postgres-backup]
schedule = "15 2 * * *"
repositories = ["usb"]

[[jobs.postgres-backup.servers]]
name = "main"
host = "db"
user = "opsd"

[jobs.nfs-backup]
schedule = "30 3 * * *"

[[jobs.nfs-backup.shares]]
name = "nfs"
path = "/srv/nfs"
engine = "rsync"
repository = "usb"
"""


class Terminal(io.TextIOWrapper):
    """A terminal that shows any letter."""

    def __init__(self, encoding: str) -> None:
        self._shown = io.BytesIO()
        super().__init__(self._shown, encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        return self._shown.getvalue().decode(self.encoding)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that was typed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where commands are typed."""

    home: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def __post_init__(self) -> None:
        (self.home / "repository").mkdir()
        self.configure()
        self.patch.chdir(self.home)
        self.patch.delenv("OPSD_CONFIG", raising=False)

    def configure(self, extra: str = "", *, without: str = "") -> None:
        """Write the configuration, with tables more, or without a part of its text."""
        text = CONFIG.format(home=self.home)
        assert without in text
        (self.home / "config.toml").write_text(text.replace(without, "") + extra)

    def type(self, *arguments: str) -> Ended:
        """Type a command into a pipe."""
        self.capture.readouterr()
        status = main(arguments)
        out, err = self.capture.readouterr()
        return Ended(status, out, err)

    def json(self, *arguments: str) -> dict[str, Any]:
        """What it prints for programs."""
        value: dict[str, Any] = json.loads(self.type(*arguments, "-o", "json").out)
        return value

    def see(self, *arguments: str, columns: int = 80, encoding: str = "utf-8") -> Ended:
        """Type a command at a terminal."""
        terminal = Terminal(encoding)
        with self.patch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm")
            patch.setenv("NO_COLOR", "1")
            patch.setattr("sys.stdout", terminal)
            status = main(arguments)
        return Ended(status, terminal.text(), self.capture.readouterr().err)

    @contextmanager
    def state(self) -> Iterator[SqliteState]:
        """The state of this place."""
        state = SqliteState(self.home / "state/state.db", clock=SystemClock())
        try:
            yield state
        finally:
            state.close()

    def record(self, *runs: Run) -> None:
        """Have runs on record, and people told of them."""
        with self.state() as state:
            for run in runs:
                state.record(run, tell=tell)

    def wired_tell(self) -> Tell:
        """What the configuration as it is now says."""
        return Wiring(load(self.home / "config.toml", JOBS), SystemClock()).tell

    def incidents(self) -> dict[str, Any]:
        """What people know, by subject."""
        with self.state() as state:
            return {one.finding.subject: one for one in state.alerts().incidents}


def tell(
    alerts: AlertState, findings: Sequence[OpenFinding], at: datetime
) -> tuple[AlertState, tuple[Message, ...]]:
    """What the configuration above says."""
    return advance(alerts, findings, at, policy=Policy())


def ago(**span: float) -> datetime:
    """A time in the past, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**span)


def finding(subject: str = "share/nfs", **changes: object) -> Finding:
    """Something that is wrong."""
    values: dict[str, object] = {
        "check": "nfs.read_error",
        "subject": subject,
        "severity": Severity.CRITICAL,
        "summary": f"{subject} cannot be read",
        "remedy": "dmesg",
    }
    return Finding(**{**values, **changes})  # type: ignore[arg-type]


def run(run_id: str, **changes: object) -> Run:
    """A run that completed five hours ago."""
    values: dict[str, object] = {
        "job": "nfs-backup",
        "run_id": run_id,
        "slot": ago(hours=5),
        "started_at": ago(hours=5),
        "duration": timedelta(minutes=2),
        "outcome": Outcome.COMPLETED,
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]
