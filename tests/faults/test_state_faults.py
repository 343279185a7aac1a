"""The state file on a bad day: the error says what to do, and nothing is deleted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.clock import SystemClock
from opsd.errors import PermanentError, TransientError
from opsd.incidents import AlertState
from opsd.model import Finding, Message, OpenFinding, Outcome, Run, Severity
from opsd.state.migrations import MIGRATIONS
from opsd.state.sqlite import SqliteState

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def run(run_id: str, *, error: str = "") -> Run:
    return Run(
        job="postgres-backup",
        run_id=run_id,
        slot=NOON,
        started_at=NOON,
        duration=timedelta(0),
        outcome=Outcome.FAILED if error else Outcome.COMPLETED,
        findings=(
            Finding(check="x", subject=f"s/{run_id}", severity=Severity.CRITICAL, summary="s"),
        ),
        error=error,
    )


def tell(
    alerts: AlertState, open_findings: Sequence[OpenFinding], _at: datetime
) -> tuple[AlertState, Sequence[Message]]:
    """One message for each run: each opens a finding of its own."""
    key = open_findings[-1].finding.subject.removeprefix("s/")
    return alerts, [Message(key=key, severity=Severity.CRITICAL, title="opened", body="b")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteState]:
    state = SqliteState(path, clock=SystemClock())
    try:
        yield state
    finally:
        state.close()


def filled(path: Path) -> None:
    with opened(path) as state:
        for number in range(30):
            state.record(run(f"a{number}"), tell=tell)


def test_a_locked_file_is_busy_and_works_again_when_it_is_free(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.state.database.BUSY_TIMEOUT", timedelta(seconds=0.1))
    filled(path)
    with opened(path) as state, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(TransientError, match=r"state\.db: another opsd process") as caught:
            state.record(run("b1"), tell=tell)
        other.execute("ROLLBACK")
        state.record(run("b1"), tell=tell)

        assert str(path) in str(caught.value)
        assert state.runs(limit=1)[0].run_id == "b1"


@pytest.mark.real
def test_a_full_disk_is_told_and_loses_nothing_that_was_recorded(
    small_tmpfs: Callable[[str], Path],
) -> None:
    room = small_tmpfs("8m")
    path = room / "state" / "state.db"
    filled(path)
    with opened(path) as state:
        before = state.runs(limit=100)
        fill(room)

        with pytest.raises(TransientError, match="disk is full") as caught:
            record_until_it_fails(state)
        after = state.runs(limit=1000)
        (room / "ballast").unlink()
        state.record(run("c1"), tell=tell)

        assert "no backup is lost" in str(caught.value)
        assert after[-len(before) :] == before
        assert {one.run_id for one in after} == {
            entry.message.key for entry in state.undelivered()
        } - {"c1"}


@pytest.mark.real
def test_a_state_that_cannot_be_made_on_a_full_disk_says_so(
    small_tmpfs: Callable[[str], Path],
) -> None:
    room = small_tmpfs("8m")
    fill(room)

    with (
        pytest.raises((TransientError, PermanentError), match=r"state\.db"),
        opened(room / "state.db"),
    ):
        pass


def record_until_it_fails(state: SqliteState) -> None:
    for number in range(2000):
        state.record(run(f"b{number}", error="x" * 20000), tell=tell)


def fill(room: Path) -> None:
    with (room / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"\0" * 4096)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"not a database" * 400, id="overwritten"),
        pytest.param(lambda content: content[:5000], id="cut short"),
        pytest.param(
            lambda content: content[:4096] + b"\xff" * (len(content) - 4096), id="flipped"
        ),
    ],
)
def test_a_damaged_file_is_reported_and_left_alone(
    path: Path, damage: Callable[[bytes], bytes]
) -> None:
    filled(path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)

    with pytest.raises(PermanentError, match="damaged") as caught, opened(path) as state:
        state.runs()

    assert f"move {path}* away" in str(caught.value)
    assert "no backup is lost" in str(caught.value)
    assert path.read_bytes() == damaged


def test_a_file_that_cannot_be_opened_is_not_kept_open(path: Path) -> None:
    path.write_bytes(b"not a database" * 400)

    with pytest.raises(PermanentError) as caught, opened(path):
        pass

    assert caught.value.__cause__  # while somebody holds the error
    assert [fd for fd in Path("/proc/self/fd").iterdir() if fd.resolve() == path] == []


def test_after_the_damaged_file_was_moved_away_opsd_starts_a_new_one(path: Path) -> None:
    filled(path)
    for file in path.parent.glob("state.db*"):
        file.rename(path.parent / f"old-{file.name}")

    with opened(path) as state:
        assert state.runs() == ()


def test_a_newer_file_is_refused_and_not_touched(path: Path) -> None:
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()

    with pytest.raises(PermanentError, match=r"newer opsd .* update opsd"), opened(path):
        pass

    assert path.read_bytes() == before


def test_the_database_of_another_program_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE grafana (x)")

    with pytest.raises(PermanentError, match="another program"), opened(path):
        pass


def test_a_directory_in_place_of_the_file_is_named(path: Path) -> None:
    path.mkdir()

    with pytest.raises(PermanentError, match=r"state\.db"), opened(path):
        pass


def test_an_older_file_is_copied_and_brought_to_the_new_shape(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    added = (*MIGRATIONS, ("CREATE TABLE silences (x TEXT) STRICT",))
    monkeypatch.setattr("opsd.state.database.MIGRATIONS", added)

    with opened(path) as state:
        assert len(state.runs()) == 30
    with opened(path) as state:
        assert len(state.runs()) == 30

    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(added),)
        assert db.execute("SELECT count(*) FROM silences").fetchone() == (0,)
    before = len(MIGRATIONS)
    kept = path.with_name(f"state.db.version-{before}")
    with contextlib.closing(sqlite3.connect(kept)) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (before,)
        assert copy.execute("SELECT count(*) FROM runs").fetchone() == (30,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path)
    broken = (*MIGRATIONS, ("CREATE TABLE silences (x TEXT) STRICT", "CREATE nonsense"))
    with monkeypatch.context() as patch:
        patch.setattr("opsd.state.database.MIGRATIONS", broken)
        with pytest.raises(PermanentError), opened(path):
            pass

    with opened(path) as state:
        assert len(state.runs()) == 30


_AS_NOBODY = """
import os, sys
from pathlib import Path
from opsd.clock import SystemClock
from opsd.errors import PermanentError
from opsd.state.sqlite import SqliteState
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    state = SqliteState(Path(sys.argv[1]), clock=SystemClock())
    with state.lease("job", "a1"):
        state.begin(job="j", run_id="r", slot=SystemClock().now(), at=SystemClock().now())
except PermanentError as exc:
    print(exc)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_file_of_somebody_else_is_named_with_what_to_do(path: Path) -> None:
    filled(path)
    for directory in (path.parent, *path.parent.parents):
        if directory.owner() == "root" and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    path.chmod(0o644)

    said = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(path)], capture_output=True, text=True, check=True
    )

    assert "state.db" in said.stdout
    assert "run opsd as the owner" in said.stdout


_RECORD = """
import sys
from pathlib import Path
from opsd.clock import SystemClock
from opsd.state.sqlite import SqliteState
from tests.faults.test_state_faults import run, tell
state = SqliteState(Path(sys.argv[1]), clock=SystemClock())
print("open", flush=True)
for number in range(100000):
    state.record(run(f"{sys.argv[2]}-{number}"), tell=tell)
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_every_recorded_run_with_its_message(path: Path) -> None:
    recorded: set[str] = set()
    for life in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", _RECORD, str(path), str(life)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            for _ in range(1 + life * 3):
                recorded.add(f"{life}-{writer.stdout.readline().strip()}")
            os.kill(writer.pid, signal.SIGKILL)
            recorded |= {f"{life}-{line.strip()}" for line in writer.stdout}

    with opened(path) as state:
        ids = {one.run_id for one in state.runs(limit=10_000)}
        assert recorded <= ids
        assert ids == {entry.message.key for entry in state.undelivered()}
        newest = state.runs(limit=1)[0].run_id
        assert [one.finding.subject for one in state.open_findings()] == [f"s/{newest}"]


def test_a_copy_of_the_state_made_with_stock_tools_opens(path: Path, tmp_path: Path) -> None:
    filled(path)
    copy = tmp_path / "elsewhere" / "state.db"
    copy.parent.mkdir()
    shutil.copy(path, copy)

    with opened(copy) as state:
        assert len(state.runs()) == 30
