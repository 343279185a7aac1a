"""What results come to, and what is new since the last time."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.upgrade import memory
from opsd.upgrade.assessment import Verdict, assess, verdict_of
from opsd.upgrade.check import Note, Scope, failed, passed, skipped, unknown, warned
from tests.upgrade.made import FIRST, NOTHING, NOW, SECOND, assessment, check, result


@pytest.mark.parametrize(
    ("notes", "verdict"),
    [
        ((passed("a", ""), skipped("b", "")), Verdict.READY),
        ((passed("a", ""), warned("b", "")), Verdict.WARNINGS),
        ((passed("a", ""), unknown("b", "")), Verdict.WARNINGS),
        ((warned("a", ""), failed("b", "")), Verdict.BLOCKED),
    ],
)
def test_the_verdict_is_that_of_the_worst_result(
    notes: tuple[Note, ...], verdict: Verdict
) -> None:
    results = [result(f"check-{number}", note) for number, note in enumerate(notes)]

    assert verdict_of(results) is verdict


def test_no_result_at_all_is_not_ready() -> None:
    assert verdict_of(()) is Verdict.WARNINGS


def test_what_is_so_now_is_asked_once_and_what_changes_at_each_hop() -> None:
    checks = (check("now", passed("a", "")), check("then", passed("a", ""), scope=Scope.HOP))

    found = assess(NOTHING, (FIRST, SECOND), checks, known_as_of=NOW.date())

    assert [(one.check.id, one.target) for one in found.results] == [
        ("now", None),
        ("then", FIRST.target),
        ("then", SECOND.target),
    ]
    assert [one.check.id for one in found.of_hop(FIRST)] == ["now", "then"]
    assert [one.check.id for one in found.of_hop(SECOND)] == ["then"]


def test_without_a_hop_only_the_cluster_as_it_is_is_judged() -> None:
    checks = (check("now", passed("a", "")), check("then", failed("a", ""), scope=Scope.HOP))

    found = assess(NOTHING, (), checks, known_as_of=NOW.date())

    assert [one.check.id for one in found.results] == ["now"]
    assert found.words == "1.35 is ready"


def test_one_check_that_stands_in_the_way_of_two_hops_is_counted_once() -> None:
    found = assessment(
        result("gates", failed("a", ""), hop=FIRST),
        result("gates", failed("a", ""), hop=SECOND),
        result("swap", failed("b", "")),
        hops=(FIRST, SECOND),
    )

    assert found.blocked_by == ("gates", "swap")
    assert found.words == "1.35 → 1.37 is blocked by 2"


def test_nobody_calls_anything_new_at_the_first_time() -> None:
    assert memory.difference(None, assessment(result("swap", failed("a", "")))) is None


def test_what_came_into_the_way_and_out_of_it_is_told(tmp_path: Path) -> None:
    place = tmp_path / "last.json"
    before = assessment(result("swap", failed("a", "")), result("disk", failed("a", "")))
    now = assessment(result("disk", failed("a", "")), result("gates", failed("a", "")))
    memory.write(place, dataclasses.replace(before, at=NOW - timedelta(days=1)))

    since = memory.difference(memory.read(place), now)

    assert since is not None
    assert (since.new, since.gone) == (("gates",), ("swap",))
    assert since.since == NOW - timedelta(days=1)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"at": "yesterday", "blockers": []}',
        '{"at": "2026-11-22T00:00:00", "blockers": []}',
    ],
)
def test_a_memory_that_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    place = tmp_path / "last.json"
    place.write_text(content)

    assert memory.read(place) is None
    assert memory.read(tmp_path / "nowhere") is None


def test_a_memory_that_cannot_be_kept_costs_no_report(tmp_path: Path) -> None:
    place = tmp_path / "gone" / "last.json"

    memory.write(place, assessment(result("swap", failed("a", ""))))

    assert memory.read(place) is None
