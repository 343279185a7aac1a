"""The page and the JSON say the same, worst first, and the same thing once."""

from __future__ import annotations

import json

from opsd.upgrade.check import failed, passed, unknown, warned
from opsd.upgrade.memory import Difference
from opsd.upgrade.page import Plan, report
from opsd.upgrade.runbook import Step
from tests.upgrade.made import FIRST, NOW, SECOND, assessment, result

PLAN = Plan(
    hop=FIRST,
    steps=(
        Step(title="Look"),
        Step(title="Go", on="rpi1", commands=("kubeadm upgrade",), is_point_of_no_return=True),
    ),
)


def test_the_page_begins_with_the_verdict_and_tells_the_worst_first() -> None:
    found = assessment(
        result("disk", passed("rpi3", "fine")),
        result("dns", warned("coredns", "old")),
        result("clock", unknown("rpi4", "no answer")),
        result("swap", failed("rpi3", "on")),
    )

    lines = report(found, [PLAN], None).text.splitlines()

    assert lines[0] == "# Kubernetes 1.35 → 1.36 is blocked by 1"
    titles = [line for line in lines if line.startswith("## ")]
    assert titles == [
        "## In the way (1)",
        "## Unknown (1)",
        "## Warnings (1)",
        "## Passed (1)",
        "## Runbook: 1.35 → 1.36",
    ]
    assert "  - ✗ rpi3: on" in lines
    assert "  Fix: mend the swap" in lines


def test_what_several_checks_could_not_read_for_one_reason_is_told_once() -> None:
    why = unknown("machines", "there is no [ssh]", fix="configure it")
    found = assessment(result("swap", why), result("clock", why), result("dns", unknown("b", "c")))

    text = report(found, [], None).text

    assert text.count("there is no [ssh]") == 1
    assert "? **2 checks** [swap, clock]" in text


def test_a_failure_does_not_hide_what_was_not_read() -> None:
    found = assessment(result("swap", failed("rpi3", "on"), unknown("rpi4", "no answer")))

    text = report(found, [], None).text

    assert "? rpi4: no answer" in text


def test_many_pieces_of_evidence_are_cut_on_the_page_and_whole_in_the_json() -> None:
    notes = [failed(f"rpi{number}", "on") for number in range(9)]

    found = report(assessment(result("swap", *notes)), [], None)

    assert "and 3 more: -o json" in found.text
    assert len(found.data["checks"][0]["evidence"]) == 9


def test_the_point_of_no_return_is_marked_before_the_step() -> None:
    lines = report(assessment(result("a", passed("b", "c"))), [PLAN], None).text.splitlines()

    marked = next(n for n, line in enumerate(lines) if "Point of no return" in line)
    assert lines[marked + 1 : marked + 3] == ["2. Go", "       rpi1# kubeadm upgrade"]


def test_the_runbook_warns_as_long_as_something_is_in_the_way() -> None:
    blocked = report(assessment(result("a", failed("b", "c"))), [PLAN], None).text
    free = report(assessment(result("a", passed("b", "c"))), [PLAN], None).text

    assert "Not before what is in the way is mended." in blocked
    assert "Not before" not in free


def test_a_runbook_that_cannot_be_made_says_why() -> None:
    plan = Plan(hop=FIRST, problem="nodes: 403")

    assert "It cannot be told: nodes: 403" in report(assessment(), [plan], None).text


def test_each_hop_has_a_verdict_of_its_own() -> None:
    found = assessment(
        result("a", passed("b", "c")),
        result("gates", failed("b", "c"), hop=SECOND),
        hops=(FIRST, SECOND),
    )

    made = report(found, [], None)

    assert "- 1.35 → 1.36: ready" in made.text
    assert "- 1.36 → 1.37: blocked" in made.text
    assert [one["verdict"] for one in made.data["hops"]] == ["ready", "blocked"]


def test_what_changed_since_the_last_time_stands_at_the_top() -> None:
    changed = Difference(since=NOW, new=("swap",), gone=("disk",))
    same = Difference(since=NOW, new=(), gone=())

    found = assessment(result("swap", failed("a", "b")))

    told = "Since 2026-11-22 06:17 UTC new in the way: swap; out of the way: disk."
    assert told in report(found, [], changed).text
    assert "Since 2026-11-22 06:17 UTC nothing changed." in report(found, [], same).text
    assert "Since" not in report(found, [], None).text


def test_the_json_is_json_and_has_everything() -> None:
    found = report(assessment(result("swap", failed("rpi3", "on"))), [PLAN], None, warnings="old")

    data = json.loads(json.dumps(found.data, default=str))

    assert (data["verdict"], data["server"], data["target"]) == ("blocked", "1.35.4", "1.36")
    assert data["blocked_by"] == ["swap"]
    assert data["checks"][0] == {
        "id": "swap",
        "title": "The swap is fine",
        "target": None,
        "status": "fail",
        "blocks": True,
        "evidence": [{"status": "fail", "where": "rpi3", "value": "on"}],
        "fix": "mend the swap",
        "source": "a book",
    }
    assert data["runbook"][0]["steps"][1]["is_point_of_no_return"] is True
    assert data["warnings"] == "old"
