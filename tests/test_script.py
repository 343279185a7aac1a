"""One script with many questions, and its output taken apart again, in every shell there is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.hosts.script import Probe, Script, Section

SHELLS = [
    pytest.param(
        argv,
        id=argv[0],
        marks=pytest.mark.skipif(not shutil.which(argv[0]), reason=f"no {argv[0]} here"),
    )
    for argv in (["dash", "-s"], ["bash", "-s"], ["busybox", "ash", "-s"])
]


def ran(shell: Sequence[str], *probes: Probe) -> dict[str, Section]:
    script = Script.of(probes)
    done = subprocess.run(
        shell, input=script.text.encode(), capture_output=True, check=True, timeout=60
    )
    return dict(script.read(done.stdout, done.stderr))


def probe(command: str, *, name: str = "q", within_s: float = 10.0) -> Probe:
    return Probe(name=name, command=command, within_s=within_s)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_question_has_its_answer_its_complaint_and_its_status(shell: list[str]) -> None:
    answers = ran(
        shell,
        probe("echo one; echo un >&2", name="a.b-1"),
        probe("printf two; exit 7", name="second"),
        probe("cat", name="third"),
    )

    assert answers["a.b-1"] == Section(name="a.b-1", stdout="one\n", stderr="un\n", status=0)
    assert (answers["second"].stdout, answers["second"].status) == ("two", 7)
    assert (answers["third"].stdout, answers["third"].status) == ("", 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_question_that_takes_too_long_is_killed(shell: list[str]) -> None:
    answers = ran(shell, probe("sleep 60", name="slow", within_s=0.2), probe("echo on", name="on"))

    assert answers["slow"].status == 137
    assert answers["on"].stdout == "on\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_language_and_the_place_are_always_the_same(shell: list[str]) -> None:
    answers = ran(shell, probe("echo $LC_ALL; pwd; ls /nowhere"))

    assert answers["q"].stdout == "C\n/\n"
    assert "No such file" in answers["q"].stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_quotes_and_marks_in_a_question_are_harmless(shell: list[str]) -> None:
    answers = ran(shell, probe("""echo "it's" '@@' $((1 + 1)); echo '@@0 q 0'"""))

    assert answers["q"].stdout == "it's @@ 2\n@@0 q 0\n"


def test_the_clock_is_read_before_the_first_question() -> None:
    script = Script.of([probe("true")])
    done = subprocess.run(
        ["sh", "-s"], input=script.text.encode(), capture_output=True, check=True
    )
    now = int(subprocess.run(["date", "+%s"], capture_output=True, check=True).stdout)

    shown_s = script.clock_s(done.stdout)

    assert shown_s is not None
    assert 0 <= now - shown_s <= 30


def test_a_clock_that_says_nothing_is_unknown() -> None:
    script = Script.of([])

    assert script.clock_s(b"") is None
    assert script.clock_s(script.mark + b".begin \n") is None
    assert script.clock_s(script.mark + b".begin 12x\n") is None
    assert script.clock_s(script.mark + b".begin 12\n") == 12


def test_of_two_questions_with_one_name_the_first_is_asked() -> None:
    script = Script.of([probe("echo one"), probe("echo two")])

    assert [one.command for one in script.probes] == ["echo one"]


def test_an_answer_without_its_end_is_no_answer() -> None:
    script = Script.of([probe("true")])
    begun = f"\n@@{script.token} q\nhello\n".encode()

    assert script.read(begun, b"") == {}
    assert script.read(begun + f"\n@@{script.token} q \n".encode(), b"") == {}
    assert script.read(begun + f"\n@@{script.token} q 0\n".encode(), b"")["q"].stdout == "hello\n"


def test_how_long_it_may_take_and_be_silent_is_known() -> None:
    script = Script.of([probe("a", name="a", within_s=2.0), probe("b", name="b", within_s=5.0)])

    assert script.longest_s == 7.0
    assert script.silence_s == 5.0
    assert Script.of([]).silence_s == 0.0


@given(st.binary(), st.binary())
def test_no_output_of_another_program_is_taken_for_an_answer(out: bytes, err: bytes) -> None:
    assert Script.of([probe("true")]).read(out, err) == {}


@given(st.binary(max_size=200))
def test_an_answer_may_hold_any_bytes(content: bytes) -> None:
    script = Script.of([probe("true")])
    mark = script.mark

    out = b"junk" + mark + b"q\n" + content + mark + b"q 4\n"
    section = script.read(out, b"")["q"]

    assert section.status == 4
    assert section.stdout == content.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("complaint", "is_refused"),
    [
        ("sudo: a password is required\n", True),
        ("bash: line 3: sudo: command not found\n", True),
        ("sh: 1: sudo: not found\n", True),
        ("sh: 1: smartctl: not found\n", False),
        ("cat: /x: Permission denied\n", False),
        ("", False),
    ],
)
def test_sudo_refusing_is_told_apart(complaint: str, is_refused: bool) -> None:  # noqa: FBT001
    section = Section(name="q", stdout="", stderr=complaint, status=1)

    assert section.is_refused is is_refused


def test_the_last_complaint_is_what_is_told() -> None:
    said = Section(name="q", stdout="", stderr="first\n  last \n\n", status=2)

    assert said.complaint() == "last (exit status 2)"
    assert Section(name="q", stdout="", stderr="\n", status=2).complaint() == "exit status 2"
