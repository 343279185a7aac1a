"""What happens to processes: as process 1 of a container, twice on one state, killed, orphaned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opsd.clients import groups
from opsd.clients.process import Process
from opsd.clock import Deadline, SystemClock
from opsd.model import Outcome, Run
from opsd.state.sqlite import SqliteState
from tests.rig import hungfs, scratch

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
SHARE = """
[opsd]
state_dir = "{place}/state"

[repositories.disk]
type = "directory"
path = "{place}/repository"

[jobs.nfs-backup]
schedule = "@yearly"
retries = 2

[[jobs.nfs-backup.shares]]
name = "share"
path = "{share}"
mounted = false
engine = "rsync"
repository = "disk"
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """An installation with a small share, due at once."""
    with scratch.directory("processes") as place:
        (place / "repository").mkdir()
        (place / "share").mkdir()
        (place / "share" / "file").write_text("content")
        write_config(place, place / "share")
        yield place


@pytest.fixture
def endless_rsync(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rsync on PATH does not end by itself."""
    wrapper = home / "bin" / "rsync"
    wrapper.parent.mkdir()
    wrapper.write_text("#!/bin/sh\nexec sleep 600\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")


def write_config(place: Path, share: Path) -> None:
    (place / "config.toml").write_text(SHARE.format(place=place, share=share))


@contextmanager
def started(home: Path, *argv: str, launcher: tuple[str, ...] = ()) -> Iterator[Opsd]:
    """`opsd` in `home`; killed with this test, whatever becomes of it."""
    command = ["setpriv", "--pdeathsig", "KILL", *launcher, sys.executable, "-m", "opsd", *argv]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPSD_CONFIG": str(home / "config.toml")}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        fuse = threading.Timer(WITHIN_S, process.kill)
        fuse.start()
        opsd = Opsd(process)
        try:
            yield opsd
        finally:
            fuse.cancel()
            process.kill()
            opsd.reader.join()


class Opsd:
    """A running opsd and what it has logged."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, object]] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def events(self, event: str) -> list[dict[str, object]]:
        return [line for line in tuple(self.log) if line["event"] == event]

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            if line.startswith("{"):
                self.log.append(json.loads(line))


def eventually(what: Callable[[], object]) -> None:
    until = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.1)


def runs(home: Path) -> tuple[Run, ...]:
    state = SqliteState(home / "state" / "state.db", clock=SystemClock())
    try:
        return state.runs()
    finally:
        state.close()


def namespaces() -> tuple[str, ...]:
    """A launcher whose program is process 1 of a PID namespace of its own."""
    launcher = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*launcher, "true"], check=False, capture_output=True).returncode:
        pytest.skip("namespaces need root")
    return launcher


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_as_process_1_it_ends_on_sigterm(home: Path) -> None:
    with started(home, "run", launcher=namespaces()) as opsd:
        eventually(lambda: opsd.events("daemon.started"))
        inner = child_of(opsd.process.pid)
        os.kill(inner, signal.SIGTERM)
        status = opsd.process.wait(30)

    assert status == 0
    assert opsd.events("daemon.stopped")


_REAPER = """
import os, subprocess, sys, time
from opsd.clients.groups import reap_orphans
from opsd.clients.process import run
from opsd.clock import Deadline, SystemClock

assert os.getpid() == 1
soon = Deadline.after(30, SystemClock())
for _ in range(5):
    run(["setsid", "sh", "-c", "sleep 0.2 & exit 0"], deadline=soon)

def zombies():
    states = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{name}/stat") as stat:
            states.append(stat.read().rpartition(")")[2].split()[0])
    return states.count("Z")

while zombies() < 5:
    time.sleep(0.05)
print(reap_orphans() >= 5, zombies())
"""


def test_as_process_1_it_reaps_what_its_children_leave_behind() -> None:
    done = subprocess.run(
        [*namespaces(), sys.executable, "-c", _REAPER],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert done.stdout.split() == ["True", "0"], done.stderr


def test_reaping_takes_no_status_from_those_who_wait_for_it() -> None:
    stop = threading.Event()

    def reap() -> None:
        while not stop.is_set():
            groups.reap_orphans()

    reaper = threading.Thread(target=reap)
    reaper.start()
    statuses = []
    for number in range(30):
        soon = Deadline.after(WITHIN_S, SystemClock())
        with Process(["sh", "-c", f"exit {number}"], deadline=soon) as child:
            statuses.append(child.wait())
    stop.set()
    reaper.join()

    assert statuses == list(range(30))


def test_two_daemons_on_one_state_run_a_slot_once(home: Path) -> None:
    with started(home, "run") as one, started(home, "run") as two:
        eventually(lambda: runs(home))
        for opsd in (one, two):
            eventually(lambda opsd=opsd: opsd.events("daemon.started"))  # type: ignore[misc]
        for opsd in (one, two):
            opsd.process.send_signal(signal.SIGTERM)
        statuses = [opsd.process.wait(30) for opsd in (one, two)]

    assert statuses == [0, 0]
    assert [run.outcome for run in runs(home)] == [Outcome.COMPLETED]


def test_a_child_killed_for_its_memory_is_recorded_within_two_looks_and_tried_again(
    home: Path,
    endless_rsync: None,  # noqa: ARG001 - on PATH
) -> None:
    with started(home, "run") as opsd:
        eventually(lambda: _is_running(home))
        (child,) = _children_of(opsd.process.pid, "run-job")
        os.kill(child, signal.SIGKILL)
        eventually(lambda: runs(home))
        (run,) = runs(home)

    assert (run.outcome, run.attempt) == (Outcome.INTERRUPTED, 1)
    assert run.retry_at is not None


def _is_running(home: Path) -> bool:
    state = SqliteState(home / "state" / "state.db", clock=SystemClock())
    try:
        return bool(state.running())
    finally:
        state.close()


def _children_of(pid: int, word: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            argv = (path / "cmdline").read_text().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and word in argv and "setpriv" not in argv[0]:
            found.append(int(path.name))
    return found


def test_sigterm_ends_a_run_that_is_at_work_and_the_next_life_tries_it_again(
    home: Path,
    endless_rsync: None,  # noqa: ARG001 - on PATH
) -> None:
    with started(home, "run") as opsd:
        eventually(lambda: _is_running(home))
        opsd.process.send_signal(signal.SIGTERM)
        status = opsd.process.wait(30)

    (run,) = runs(home)
    assert status == 0
    assert not _is_running(home)
    assert run.outcome is Outcome.INTERRUPTED
    assert run.retry_at is not None


@pytest.mark.real
def test_a_run_that_hangs_in_the_kernel_does_not_keep_the_daemon_from_ending(home: Path) -> None:
    with hungfs.mounted() as dead:
        write_config(home, dead)
        with started(home, "run") as opsd:
            eventually(lambda: _is_running(home))
            opsd.process.send_signal(signal.SIGTERM)
            status = opsd.process.wait(40)
        ended = runs(home)

    assert status == 0
    assert [run.outcome for run in ended] == [Outcome.INTERRUPTED]
