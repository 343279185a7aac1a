"""The machine has no more memory, processes or open files for opsd: it fails and says so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from opsd.model import Outcome
from tests.faults.failpoints import Failpoint, command
from tests.rig import scratch
from tests.rig.home import Home, await_stopped

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(os.geteuid() != 0, reason="limits of another user are set by root only"),
]

NOBODY = "61234"  # a user of whom nothing else runs
FEW_FILES = ("prlimit", "--nofile={}")
LITTLE_MEMORY = ("prlimit", "--as={}")
# Root is exempt from this limit; the right to read is kept for a Python that root keeps at home.
FEW_PROCESSES = (
    *("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"),
    *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
    *("prlimit", "--nproc={}"),
)


def limited(limit: tuple[str, ...], number: int) -> tuple[str, ...]:
    """The program and arguments that run opsd with the limit."""
    return (*(word.format(number) for word in limit), *Home.command)


@pytest.fixture(scope="module")
def made() -> Iterator[Home]:
    """An installation with a good backup of its share."""
    with scratch.directory("limits-made") as place:
        home = Home(place=place, is_measured=False)
        home.fill_share()
        home.write(home.shares("rsync"))
        assert home.opsd("run-job", "nfs-backup").status == 0
        yield home


@pytest.fixture
def home(made: Home) -> Iterator[Home]:
    """A copy of it."""
    with scratch.directory("limits") as place:
        shutil.copytree(made.place, place, symlinks=True, dirs_exist_ok=True)
        home = Home(place=place, is_measured=False)
        home.write(home.shares("rsync"))
        yield home


@pytest.mark.parametrize(
    ("limit", "number", "said"),
    [
        pytest.param(FEW_FILES, 8, "Too many open files", id="8 files"),
        pytest.param(FEW_FILES, 14, "Too many open files", id="14 files"),
        pytest.param(FEW_FILES, 16, "Too many open files", id="16 files"),
        pytest.param(FEW_PROCESSES, 1, "", id="1 process"),
        pytest.param(FEW_PROCESSES, 3, "", id="3 processes"),
        pytest.param(LITTLE_MEMORY, 60 << 20, "", id="60 MiB"),
        pytest.param(LITTLE_MEMORY, 80 << 20, "", id="80 MiB"),
    ],
)
def test_a_run_without_means_fails_says_so_and_costs_no_backup(
    home: Home, limit: tuple[str, ...], number: int, said: str
) -> None:
    if limit is FEW_PROCESSES:
        subprocess.run(["chown", "-R", NOBODY, home.place], check=True)

    starved = home.opsd("run-job", "nfs-backup", launcher=limited(limit, number))
    outcomes = [run.outcome for run in home.runs("nfs-backup")]
    time.sleep(1.1)  # a slot of a run on demand is its second
    again = home.opsd("run-job", "nfs-backup")

    # Libraries written in Rust end the process when memory is refused to them.
    assert starved.status in ((1, -signal.SIGABRT) if limit is LITTLE_MEMORY else (1,)), starved
    assert said in starved.out + starved.err
    assert outcomes in ([Outcome.COMPLETED], [Outcome.FAILED, Outcome.COMPLETED])
    assert again.status == 0, again.err
    assert home.good_backups()["share/rsync"] >= 2  # it may have failed after it was published
    assert home.leftovers() == []


def test_a_frozen_run_goes_on_where_it_was_and_is_told_once(home: Home) -> None:
    freeze = Failpoint(at="opsd.backup.catalog:publish", do="stop")
    time.sleep(1.1)

    with home.running(launcher=command(freeze, "run-job", "nfs-backup")) as run:
        await_stopped(run)
        turned_away = home.opsd("run-job", "nfs-backup")
        run.send_signal(signal.SIGCONT)
        _, err = run.communicate(timeout=60)

    assert (run.returncode, turned_away.status) == (0, 75), err
    assert [one.outcome for one in home.runs("nfs-backup")] == [Outcome.COMPLETED] * 2
    assert home.good_backups() == {"share/rsync": 2}
