"""What could not be read is never a pass, whatever else a check saw."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Section
from opsd.upgrade.check import (
    Check,
    Hop,
    Note,
    Scope,
    Status,
    each,
    failed,
    judged,
    passed,
    skipped,
    unknown,
    warned,
)
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Reading, Unreadable
from opsd.upgrade.version import Minor, Version

HOP = Hop(start=Minor(1, 35), target=Minor(1, 36))
NOTHING = Facts(at=datetime(2026, 11, 22, tzinfo=UTC), server=Version(1, 35, 4))


def check_of(*notes: Note, fix: str = "mend it", unknown_blocks: bool = False) -> Check:
    def judge(_facts: Facts, _hop: Hop) -> Iterator[Note]:
        yield from notes

    return Check(
        id="a-check",
        title="It is fine",
        row=1,
        judge=judge,
        fix=fix,
        source="a book",
        unknown_blocks=unknown_blocks,
    )


@pytest.mark.parametrize(
    ("notes", "status"),
    [
        ((passed("a", ""), skipped("b", "")), Status.PASS),
        ((skipped("b", ""),), Status.SKIPPED),
        ((passed("a", ""), warned("b", "")), Status.WARN),
        ((warned("a", ""), unknown("b", "")), Status.UNKNOWN),
        ((unknown("a", ""), failed("b", ""), passed("c", "")), Status.FAIL),
    ],
)
def test_the_worst_note_is_the_result(notes: tuple[Note, ...], status: Status) -> None:
    result = judged(check_of(*notes), NOTHING, HOP)

    assert result.status is status
    assert {note.status for note in result.worst} == {status}


def test_a_check_that_says_nothing_has_not_looked() -> None:
    result = judged(check_of(), NOTHING, HOP)

    assert result.status is Status.UNKNOWN


def test_what_cannot_be_read_makes_the_check_unknown_and_keeps_what_it_saw() -> None:
    def judge(facts: Facts, _hop: Hop) -> Iterator[Note]:
        yield passed("first", "fine")
        yield from (passed(str(node), "fine") for node in facts.nodes.value)

    check = Check(id="x", title="t", row=1, judge=judge, fix="f", source="s")
    result = judged(check, NOTHING, HOP)

    assert [note.status for note in result.notes] == [Status.UNKNOWN, Status.PASS]


def test_one_that_cannot_be_read_does_not_hide_that_another_fails() -> None:
    def look(name: str) -> Iterator[Note]:
        if name == "dark":
            raise Unreadable("dark", "no light", fix="light a candle")
        yield failed(name, "broken")

    notes = list(each(("dark", "bright"), look))

    assert [note.status for note in notes] == [Status.UNKNOWN, Status.FAIL]
    assert notes[0].fix == "light a candle"


def test_every_check_is_unknown_or_skipped_when_nothing_could_be_read() -> None:
    passing = {
        check.id
        for check in CHECKS
        if judged(check, NOTHING, HOP).status in (Status.PASS, Status.SKIPPED)
    }

    # The version of the API server is known, or nothing would be; these ask for no more.
    assert passing <= {"support-window", "selinux-mount", "images"}


def test_the_fix_is_that_of_the_worst_note_or_else_that_of_the_check() -> None:
    own = judged(check_of(failed("a", "", fix="turn it"), warned("b", "", fix="no")), NOTHING, HOP)
    plain = judged(check_of(failed("a", ""), warned("b", "", fix="no")), NOTHING, HOP)

    assert (own.fix, plain.fix) == ("turn it", "mend it")


@pytest.mark.parametrize(
    ("note", "is_gamble", "blocks"),
    [
        (failed("a", ""), False, True),
        (unknown("a", ""), True, True),
        (unknown("a", ""), False, False),
        (warned("a", ""), True, False),
    ],
)
def test_a_failure_blocks_and_so_does_what_it_would_be_a_gamble_not_to_know(
    note: Note, *, is_gamble: bool, blocks: bool
) -> None:
    result = judged(check_of(note, unknown_blocks=is_gamble), NOTHING, HOP)

    assert result.blocks is blocks


def test_hostile_names_become_one_printable_line() -> None:
    result = judged(check_of(failed("pod \x1b[31m\n", "a\nb" + "x" * 999)), NOTHING, HOP)

    assert result.notes[0].where == "pod [31m"
    assert "\n" not in result.notes[0].value
    assert len(result.notes[0].value) == 300


def test_every_check_has_a_name_of_its_own_and_says_what_to_do() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS) >= 50
    assert all(check.fix and check.source and check.title for check in CHECKS)
    assert {check.row for check in CHECKS} <= set(range(1, 51))


def test_a_check_of_the_cluster_as_it_is_has_no_target() -> None:
    now = check_of(passed("a", ""))
    then = dataclasses.replace(now, scope=Scope.HOP)

    assert judged(now, NOTHING, HOP).target is None
    assert judged(then, NOTHING, HOP).target == HOP.target


def test_a_fact_that_nobody_read_raises_when_it_is_asked_for() -> None:
    readings = [getattr(NOTHING, field.name) for field in dataclasses.fields(NOTHING)]

    for reading in (one for one in readings if isinstance(one, Reading)):
        with pytest.raises(Unreadable):
            _ = reading.value


def machine_with(**sections: Section) -> MachineFacts:
    machine = Machine(name="rpi3", address="", roles=frozenset((Role.NODE,)))
    return MachineFacts(machine=machine, sections=sections, problem="the line was cut")


def section(stdout: str = "", *, stderr: str = "", status: int = 0) -> Section:
    return Section(name="df", stdout=stdout, stderr=stderr, status=status)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (machine_with(), "the line was cut"),
        (
            machine_with(df=section(stderr="sudo: a password is required", status=1)),
            "sudo refused",
        ),
        (machine_with(df=section("half", status=137)), "did not answer in time"),
        (machine_with(df=section(stderr="df: no such file", status=1)), "no such file"),
    ],
)
def test_a_section_that_is_missing_refused_killed_or_failed_is_unreadable(
    facts: MachineFacts, why: str
) -> None:
    with pytest.raises(Unreadable, match=why) as caught:
        facts.text("df")

    assert caught.value.where == "rpi3: df"


def test_a_section_that_succeeded_is_its_text() -> None:
    assert machine_with(df=section("fine")).text("df") == "fine"


def test_every_check_stands_in_the_documentation_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs/upgrades.md").read_text()

    row_of = r"^\| (\d+) \| `([a-z-]+)` \| (.*) \| \w+, (now|each hop) \| (yes)? ?\|$"
    rows = re.findall(row_of, page, re.MULTILINE)

    told = {(int(row), name, title, when, bool(blocks)) for row, name, title, when, blocks in rows}
    assert told == {
        (
            check.row,
            check.id,
            check.title,
            "each hop" if check.scope is Scope.HOP else "now",
            check.unknown_blocks,
        )
        for check in CHECKS
    }
