"""`opsd status --html`: the page as a browser gets it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from opsd.model import Finding, Outcome, Severity
from tests.rig.typed import NAMES, Desk, ago, finding, run

VOID = {"meta", "link", "rect"}


class Page(HTMLParser):
    """Text by section and the tags, of well-formed HTML only."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {data.strip()}" if data.strip() else ""


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    """With a completed run of every job, of two hours ago."""
    desk = Desk(tmp_path, monkeypatch, capsys)
    desk.record(*(run(job, job=job, started_at=ago(hours=2)) for job in NAMES))
    return desk


def page(desk: Desk, status: int) -> Page:
    ended = desk.type("status", "--html")
    assert ended.status == status, ended.err
    assert ended.out.startswith("<!doctype html>")
    return Page(ended.out)


def headline(shown: Page) -> str:
    found = re.search(r"<header class=\"(\w+)\">\s*<h1>(.*)</h1>", shown.html)
    assert found is not None
    return f"{found[1]}: {found[2]}"


def test_it_asks_nobody_for_anything(desk: Desk) -> None:
    desk.record(run("a2", findings=(finding(),)))

    shown = page(desk, 3)

    asking = {"src", "srcset", "action", "onclick", "onload", "background", "poster"}
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not asking & {name for _, attributes in shown.tags for name in attributes}
    assert [one["href"] for tag, one in shown.tags if tag == "link"] == ["data:,"]
    assert not re.search(r"url\(|@import|//", shown.html.partition("</style>")[0])


def test_all_is_well_is_said_first(desk: Desk) -> None:
    shown = page(desk, 0)

    assert headline(shown) == "warning: All is well, as of the last runs"
    assert "What is wrong now" not in shown.text
    assert "the daemon is not running" in shown.text
    assert "There is no backup of anything yet." in shown.text
    assert "completed 2 h ago" in shown.text


def test_what_is_wrong_stands_with_its_cause_its_evidence_and_the_next_command(
    desk: Desk,
) -> None:
    cause = replace(
        finding("server/main", severity=Severity.CRITICAL),
        summary="cannot be reached",
        remedy="opsd check",
        facts={"error": "no route", "is_new": True, "age": None},
    )
    effect = replace(finding("database/main/app"), cause="server/main", summary="not dumped")
    desk.record(run("a2", findings=(effect, cause)))

    shown = page(desk, 3)

    assert headline(shown) == "bad: Something needs you"
    assert shown.html.count("<article") == 1
    assert "critical cannot be reached" in shown.text
    assert "Next opsd check" in shown.text
    assert "Follows from it: database/main/app (not dumped)" in shown.text
    assert "error no route is new yes age unknown" in shown.text


def test_what_has_no_backup_is_a_row_and_comes_first(desk: Desk) -> None:
    missing = Finding(
        check="backup.not_covered",
        subject="database/main/app",
        severity=Severity.WARNING,
        summary="there is no good backup of it",
    )
    desk.record(run("a2", findings=(missing,)))

    shown = page(desk, 3)

    assert "database main/app no good backup none never" in shown.text


def test_a_job_that_failed_says_why(desk: Desk) -> None:
    failed = run("a2", outcome=Outcome.FAILED, error="1 of 2 failed: share/nfs")
    desk.record(failed)

    shown = page(desk, 3)

    assert "1 of 2 failed: share/nfs" in shown.text


def test_a_repository_that_cannot_be_read_is_not_an_empty_one(desk: Desk) -> None:
    (desk.home / "repository").rmdir()

    shown = page(desk, 1)

    assert headline(shown) == "bad: Not everything could be looked at"
    assert "could not tell what is in usb" in shown.text


def test_a_state_that_cannot_be_read_is_told_and_nothing_is_made_up(desk: Desk) -> None:
    (desk.home / "state/state.db").write_text("this is no database\n" * 100)
    for leftover in desk.home.glob("state/state.db-*"):
        leftover.unlink()

    shown = page(desk, 1)

    assert headline(shown) == "bad: Not everything could be looked at"
    assert "could not tell what was run" in shown.text
    assert "All is well" not in shown.text


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '" onload="x', "</style><b>"])
def test_names_from_the_world_are_text(desk: Desk, hostile: str) -> None:
    bad = replace(
        finding(f"database/main/{hostile}"),
        summary=hostile,
        remedy=hostile,
        facts={hostile: hostile},
    )
    desk.record(run("a2", findings=(bad,)))

    shown = page(desk, 3)

    assert {"script", "b"}.isdisjoint(tag for tag, _ in shown.tags)
    assert "onload" not in {name for _, attributes in shown.tags for name in attributes}
    assert hostile not in shown.html.replace("</style>", "", 1)
    assert hostile in shown.text
