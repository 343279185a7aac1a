from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.alerts.render import (
    BODY_CHARACTERS,
    TITLE_CHARACTERS,
    News,
    body,
    escalation,
    lasting,
    page,
    reminder,
    title,
)
from opsd.incidents import Incident
from opsd.model import Change, Fact, Finding, Severity

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BREAK = timedelta(minutes=3)


def news(
    *,
    kind: Change = Change.OPENED,
    severity: Severity = Severity.CRITICAL,
    summary: str = "dump of app failed",
    subject: str = "database/main/app",
    remedy: str = "opsd run-job postgres-backup",
    facts: dict[str, Fact] | None = None,
    comebacks: int = 0,
    muted_by: str = "",
    followers: tuple[str, ...] = (),
    opened_at: datetime = NOON,
    closed_at: datetime | None = None,
) -> News:
    finding = Finding(
        check="postgres.dump_failed",
        subject=subject,
        severity=severity,
        summary=summary,
        remedy=remedy,
        facts=facts or {},
    )
    incident = Incident(
        job="postgres-backup",
        finding=finding,
        opened_at=opened_at,
        changed_at=opened_at,
        closed_at=closed_at,
        fell_at=opened_at - BREAK if comebacks else None,
        first_told_at=None if kind is Change.OPENED else opened_at,
        comebacks=comebacks,
        muted_by=muted_by,
    )
    return News(change=kind, incident=incident, severity=severity, followers=followers)


def text(*changes: News, at: datetime = NOON) -> str:
    return body(changes, at=at, timezone=UTC)


@pytest.mark.parametrize(
    ("kind", "severity", "first_words"),
    [
        (Change.OPENED, Severity.CRITICAL, "Act now: dump of app failed"),
        (Change.WORSENED, Severity.WARNING, "Act within days: dump of app failed"),
        (Change.EASED, Severity.WARNING, "Less urgent: dump of app failed"),
        (Change.RESOLVED, Severity.CRITICAL, "Resolved: dump of app failed"),
    ],
)
def test_a_title_says_first_what_to_do(kind: Change, severity: Severity, first_words: str) -> None:
    assert title([news(kind=kind, severity=severity)]) == first_words


def test_a_title_counts_what_it_does_not_show() -> None:
    assert title([news(), news(), news()]) == "Act now: dump of app failed (and 2 more)"


@pytest.mark.parametrize(
    ("gate", "first_words"),
    [("silence", "Silence over, still open"), ("maintenance", "Maintenance over, still open")],
)
def test_what_was_muted_says_so(gate: str, first_words: str) -> None:
    assert title([news(muted_by=gate)]) == f"{first_words}: dump of app failed"


def test_a_message_gives_evidence_the_next_command_and_the_page_that_explains_it() -> None:
    told = text(news(facts={"exit_status": 1, "host": "db", "none": None, "empty": ""}))

    assert told == (
        "Act now: dump of app failed\n"
        "database/main/app, since Sun 22 Nov 12:00 UTC\n"
        "exit_status: 1\n"
        "host: db\n"
        "Next: opsd run-job postgres-backup\n"
        "See docs/findings.md#postgres-dump-failed\n"
        "\n"
        "found by postgres-backup"
    )


def test_the_page_has_a_place_for_every_check() -> None:
    text = (Path(__file__).parent.parent / "docs/findings.md").read_text()
    tables = re.findall(r"\| check \| meaning \|\n(?:\|.*\n)+", text)
    checks = [
        name
        for table in tables
        for name in re.findall(r"^\|[^|`]*`([\w.]+)`", table, re.MULTILINE)
    ]

    assert len(checks) > 20
    for check in checks:
        _, anchor = page(check).split("#")
        assert f'<a id="{anchor}"></a>`{check}`' in text, f"docs/findings.md: {check}: no anchor"


def test_times_are_those_of_the_operator() -> None:
    told = body([news()], at=NOON, timezone=ZoneInfo("Europe/Berlin"))

    assert "since Sun 22 Nov 13:00 CET" in told


def test_good_news_says_how_long_it_lasted_and_asks_for_nothing() -> None:
    ended = NOON + timedelta(hours=3, minutes=5)
    told = text(news(kind=Change.RESOLVED, closed_at=ended), at=ended + timedelta(hours=1))

    assert "lasted 3 h 5 min" in told
    assert "Next:" not in told
    assert "See " not in told


@pytest.mark.parametrize(
    ("kind", "comebacks", "words"),
    [
        (Change.OPENED, 0, "12:00 UTC\n"),
        (Change.OPENED, 1, ", came back after 3 min\n"),
        (Change.OPENED, 2, ", came and went 2 times before\n"),
        (Change.RESOLVED, 1, ", came and went 2 times\n"),
        (Change.WORSENED, 1, ", comes and goes\n"),
    ],
)
def test_what_comes_and_goes_is_counted(kind: Change, comebacks: int, words: str) -> None:
    assert words in text(news(kind=kind, comebacks=comebacks))


@pytest.mark.parametrize(
    ("kind", "followers", "line"),
    [
        (Change.OPENED, ("pod/a",), "Follows from it: pod/a\n"),
        (Change.OPENED, ("pod/a", "pod/b", "pod/c"), "Follows from it: pod/a and 2 more\n"),
        (Change.RESOLVED, ("pod/a",), "Still open of what followed: pod/a\n"),
    ],
)
def test_a_cause_names_what_follows(kind: Change, followers: tuple[str, ...], line: str) -> None:
    assert line in text(news(kind=kind, followers=followers))


def test_what_the_summary_says_is_not_repeated() -> None:
    told = text(news(summary="dump of app failed", facts={"what": "app", "host": "db"}))

    assert "what:" not in told
    assert "host: db" in told


def test_four_facts_are_enough() -> None:
    told = text(news(facts={f"fact_{number}": number for number in range(9)}))

    assert "fact_3" in told
    assert "fact_4" not in told


@pytest.mark.parametrize("count", [1, 5, 6, 20])
def test_five_get_a_paragraph_and_the_others_a_line(count: int) -> None:
    told = text(*(news(summary=f"dump {number:02} failed") for number in range(count)))

    assert told.count("Next:") == min(count, 5)
    assert all(f"dump {number:02} failed" in told for number in range(count))
    assert "more" not in told


def test_what_has_no_room_for_a_line_is_counted() -> None:
    told = text(*(news(summary=f"dump {number:03} failed") for number in range(500)))

    named = sum(f"dump {number:03} failed" in told for number in range(500))
    assert f"and {500 - named} more: opsd findings" in told


def test_a_reminder_names_the_oldest_and_how_long_it_has_been_open() -> None:
    older = news(summary="share is gone", severity=Severity.WARNING)
    newer = news(opened_at=NOON + timedelta(hours=1))

    head, told = reminder([newer, older], at=NOON + timedelta(hours=52), timezone=UTC)

    assert head == "Still open: share is gone, for 2 d 4 h (and 1 more)"
    assert told.startswith("Still open, act now: dump of app failed")
    assert "I take care of it: opsd ack SUBJECT" in told


def test_a_reminder_of_one_gives_the_command_that_ends_it() -> None:
    _, told = reminder([news(subject="share/a b")], at=NOON, timezone=UTC)

    assert "I take care of it: opsd ack 'share/a b'" in told


def test_an_escalation_says_that_nobody_acknowledged() -> None:
    told = news(kind=Change.WORSENED)

    head, _ = escalation([told, told], at=NOON + timedelta(minutes=30), timezone=UTC)

    assert head == "Nobody has acknowledged for 30 min: dump of app failed (and 1 more)"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (11100, "3 h 5 min"),
        (187200, "2 d 4 h"),
        (172800 + 60, "2 d"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: int, expected: str) -> None:
    assert lasting(timedelta(seconds=seconds)) == expected


@given(
    st.text(alphabet=st.characters(codec=None)),
    st.text(alphabet=st.characters(codec=None)),
    st.integers(1, 30),
    st.sampled_from(Change),
)
def test_no_name_breaks_a_message(name: str, value: str, count: int, kind: Change) -> None:
    one = news(
        kind=kind, summary=name, subject=name, remedy=name, facts={name: value}, followers=(name,)
    )

    for head, told in (
        (title([one] * count), text(*[one] * count)),
        reminder([one] * count, at=NOON, timezone=UTC),
        escalation([one] * count, at=NOON, timezone=UTC),
    ):
        assert len(head) <= TITLE_CHARACTERS
        assert len(told) < BODY_CHARACTERS
        for line in (head, *told.split("\n")):
            line.encode("utf-8")
            assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in line)


def test_the_longest_names_fit_a_phone() -> None:
    one = news(
        kind=Change.WORSENED,
        summary="s" * 9000,
        subject="n" * 9000,
        remedy="r" * 9000,
        facts={f"{number}" * 900: "f" * 9000 for number in range(9)},
        followers=("x" * 9000,) * 12,
    )

    head, told = title([one] * 600), text(*[one] * 600)

    assert len(head) <= TITLE_CHARACTERS
    assert len(told) < BODY_CHARACTERS
