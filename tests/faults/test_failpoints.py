"""Failpoints strike where they were put, and say so when they were not reached."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import kill_after
from tests.faults.failpoints import NOT_REACHED, Failpoint, arm, command

ROOT = Path(__file__).parents[2]
HERE = __name__


def answer() -> int:
    return 42


def numbers(seen: list[int]) -> Iterator[int]:
    for number in (1, 2):
        seen.append(number)
        yield number


class Store:
    def __init__(self) -> None:
        self.kept: list[str] = []

    def keep(self, what: str) -> None:
        self.kept.append(what)


@pytest.fixture(autouse=True)
def unarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test the functions as they were."""
    module = sys.modules[HERE]
    monkeypatch.setattr(module, "answer", answer)
    monkeypatch.setattr(module, "numbers", numbers)
    monkeypatch.setattr(Store, "keep", Store.keep)


def opsd(failpoint: Failpoint, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(failpoint, *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_before_the_nth_call_the_first_ones_have_happened() -> None:
    store = Store()
    struck = arm(Failpoint(at=f"{HERE}:Store.keep", nth=2, do="raise:OSError:ENOSPC"))

    store.keep("first")
    with pytest.raises(OSError, match="No space") as caught:
        store.keep("second")

    assert caught.value.errno == errno.ENOSPC
    assert store.kept == ["first"]
    assert struck()


def test_after_the_call_its_work_is_done() -> None:
    store = Store()
    arm(Failpoint(at=f"{HERE}:Store.keep", when="after", do="raise:opsd.errors.TransientError:x"))

    with pytest.raises(Exception, match="x"):
        store.keep("first")

    assert store.kept == ["first"]


def test_after_a_generator_means_after_its_last_value() -> None:
    seen: list[int] = []
    arm(Failpoint(at=f"{HERE}:numbers", when="after", do="raise:KeyError:end"))

    with pytest.raises(KeyError):
        list(numbers(seen))

    assert seen == [1, 2]


def test_what_is_not_reached_does_not_strike() -> None:
    struck = arm(Failpoint(at=f"{HERE}:answer", nth=2, do="kill"))

    assert answer() == 42
    assert not struck()


@pytest.mark.parametrize("at", ["opsd.errors:nothing", "opsd.errors:OpsdError", f"{HERE}:HERE"])
def test_a_failpoint_that_names_no_function_is_an_error(at: str) -> None:
    with pytest.raises(LookupError, match=at):
        arm(Failpoint(at=at, do="kill"))


def test_a_killed_command_ends_by_sigkill() -> None:
    done = opsd(Failpoint(at="opsd.cli:main", do="kill"), "--version")

    assert done.returncode == -signal.SIGKILL


def test_a_name_that_was_imported_before_is_wrapped_too() -> None:
    done = opsd(Failpoint(at="opsd.text:printable", do="exit:7"), "no-such-command")

    assert done.returncode == 7


def test_a_command_that_never_came_by_says_so() -> None:
    done = opsd(Failpoint(at="opsd.cli:main", nth=2, do="kill"), "--version")

    assert done.returncode == NOT_REACHED
    assert "never reached" in done.stderr


@pytest.fixture
def printer(tmp_path: Path) -> Path:
    program = tmp_path / "real" / "printer"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s" "$1"; exit 3\n')
    program.chmod(0o755)
    return program


def run_wrapped(wrapper: Path, text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([wrapper, text], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("then", "status"), [("kill", -signal.SIGKILL), ("exit:0", 0), ("exit:1", 1)]
)
def test_a_program_ends_as_told_after_so_many_bytes(
    printer: Path, tmp_path: Path, then: str, status: int
) -> None:
    wrapper = kill_after.install(printer, tmp_path, after_bytes=3, then=then)

    done = run_wrapped(wrapper, "abcdef")

    assert (done.stdout, done.returncode) == ("abc", status)


@pytest.mark.parametrize("text", ["", "ab", "abc"])
def test_a_program_that_prints_no_more_than_the_limit_is_left_alone(
    printer: Path, tmp_path: Path, text: str
) -> None:
    wrapper = kill_after.install(printer, tmp_path, after_bytes=3)

    done = run_wrapped(wrapper, text)

    assert (done.stdout, done.returncode) == (text, 3)


def test_only_the_named_calls_are_wrapped(printer: Path, tmp_path: Path) -> None:
    wrapper = kill_after.install(printer, tmp_path, after_bytes=0, only="dbname")

    other, named = run_wrapped(wrapper, "--version"), run_wrapped(wrapper, "--dbname=x")

    assert (other.stdout, other.returncode) == ("--version", 3)
    assert (named.stdout, named.returncode) == ("", -signal.SIGKILL)


def test_a_hanging_program_is_killed_with_its_group(printer: Path, tmp_path: Path) -> None:
    wrapper = kill_after.install(printer, tmp_path, after_bytes=1, then="hang")

    hanging = subprocess.Popen(
        [wrapper, "abc"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert hanging.stdout
    first = hanging.stdout.read(1)
    os.killpg(hanging.pid, signal.SIGKILL)
    rest = hanging.stdout.read()
    hanging.stdout.close()

    assert (first, rest, hanging.wait()) == ("a", "", -signal.SIGKILL)
