from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.alerts.render import TITLE_CHARACTERS, body, lasting, title
from opsd.model import Change, Finding, Severity, Transition

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def change(
    *,
    kind: Change = Change.OPENED,
    severity: Severity = Severity.CRITICAL,
    summary: str = "dump of app failed",
    subject: str = "database/main/app",
    remedy: str = "opsd run-job postgres-backup",
    facts: dict[str, str | int | None] | None = None,
) -> Transition:
    finding = Finding(
        check="postgres.dump_failed",
        subject=subject,
        severity=severity,
        summary=summary,
        remedy=remedy,
        facts=facts or {},
    )
    return Transition(change=kind, finding=finding, job="postgres-backup", opened_at=NOON)


def text(*changes: Transition, at: datetime = NOON) -> str:
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
    assert title([change(kind=kind, severity=severity)]) == first_words


def test_a_title_counts_what_it_does_not_show() -> None:
    assert title([change(), change(), change()]) == "Act now: dump of app failed (and 2 more)"


def test_a_message_gives_evidence_and_the_next_command() -> None:
    told = text(change(facts={"exit_status": 1, "host": "db", "none": None, "empty": ""}))

    assert told == (
        "Act now: dump of app failed\n"
        "database/main/app, since Sun 22 Nov 12:00 UTC\n"
        "exit_status: 1\n"
        "host: db\n"
        "Next: opsd run-job postgres-backup\n"
        "\n"
        "found by postgres-backup"
    )


def test_times_are_those_of_the_operator() -> None:
    told = body([change()], at=NOON, timezone=ZoneInfo("Europe/Berlin"))

    assert "since Sun 22 Nov 13:00 CET" in told


def test_good_news_says_how_long_it_lasted_and_asks_for_nothing() -> None:
    told = text(change(kind=Change.RESOLVED), at=NOON + timedelta(hours=3, minutes=5))

    assert "lasted 3 h 5 min" in told
    assert "Next:" not in told


def test_what_the_summary_says_is_not_repeated() -> None:
    told = text(change(summary="dump of app failed", facts={"what": "app", "host": "db"}))

    assert "what:" not in told
    assert "host: db" in told


def test_four_facts_are_enough() -> None:
    told = text(change(facts={f"fact_{number}": number for number in range(9)}))

    assert "fact_3" in told
    assert "fact_4" not in told


@pytest.mark.parametrize(("count", "hidden"), [(5, ""), (6, "and 1 more: opsd findings")])
def test_what_does_not_fit_is_counted(count: int, hidden: str) -> None:
    told = text(*(change(subject=f"database/main/db{number}") for number in range(count)))

    assert told.count("database/main/") == 5
    assert (hidden in told) if hidden else ("more" not in told)


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
)
def test_no_name_breaks_a_message(name: str, value: str, count: int) -> None:
    one = change(summary=name, subject=name, remedy=name, facts={name: value})

    head, told = title([one] * count), text(*[one] * count)

    assert len(head) <= TITLE_CHARACTERS
    assert len(told) < 5000
    for line in (head, *told.split("\n")):
        line.encode("utf-8")
        assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in line)
