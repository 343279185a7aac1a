from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from opsd.cron import parse
from opsd.model import Artifact, Finding, Outcome, Run, Severity
from opsd.retry import (
    PAUSES,
    Patience,
    next_attempt,
    retry_due,
    with_earlier_findings,
    with_retry,
)

SLOT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DAILY = parse("0 3 * * *", timezone=UTC, spread_by="")


def run(**changes: object) -> Run:
    values: dict[str, object] = {
        "job": "test-job",
        "run_id": "a1",
        "slot": SLOT,
        "started_at": SLOT,
        "duration": MINUTE,
        "outcome": Outcome.FAILED,
        "attempt": 1,
        "may_pass": True,
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


def patience(**changes: object) -> Patience:
    values: dict[str, object] = {"cron": DAILY, "retries": 2}
    return Patience(**{**values, **changes})  # type: ignore[arg-type]


def finding(subject: str, check: str = "backup.shrunk") -> Finding:
    return Finding(check=check, subject=subject, severity=Severity.WARNING, summary="s")


def artifact(subject: str) -> Artifact:
    return Artifact(
        kind="pg_dump",
        subject=subject,
        repository="usb",
        key="k",
        size_bytes=1,
        sha256="",
        level="parsed",
    )


@pytest.mark.parametrize(
    ("changes", "is_tried_again"),
    [
        ({}, True),
        ({"may_pass": False}, False),
        ({"outcome": Outcome.INTERRUPTED, "may_pass": False}, True),
        ({"outcome": Outcome.TIMED_OUT}, False),
        ({"outcome": Outcome.COMPLETED}, False),
        ({"outcome": Outcome.MISSED}, False),
        ({"outcome": Outcome.SKIPPED}, False),
        ({"attempt": 0}, False),
        ({"attempt": 2}, True),
        ({"attempt": 3}, False),
    ],
)
def test_what_a_second_look_may_heal_is_tried_again(
    changes: dict[str, object], *, is_tried_again: bool
) -> None:
    judged = with_retry(run(**changes), patience(), at=SLOT + MINUTE)

    assert (judged.retry_at is not None) is is_tried_again


def test_no_run_is_tried_again_without_patience() -> None:
    assert with_retry(run(), None, at=SLOT).retry_at is None
    assert with_retry(run(), patience(retries=0), at=SLOT).retry_at is None


@pytest.mark.parametrize("attempt", range(1, 11))
def test_the_pauses_grow_and_then_stay(attempt: int) -> None:
    judged = with_retry(run(attempt=attempt), patience(retries=10), at=SLOT)

    assert judged.retry_at == SLOT + PAUSES[min(attempt, 5) - 1]


@pytest.mark.parametrize(
    ("at", "catch_up", "is_tried_again"),
    [
        (SLOT + 24 * HOUR - 2 * MINUTE, None, True),
        (SLOT + 24 * HOUR - MINUTE, None, False),
        (SLOT + HOUR - 2 * MINUTE, HOUR, True),
        (SLOT + HOUR - MINUTE, HOUR, False),
        (SLOT + 24 * HOUR - MINUTE, 48 * HOUR, False),
    ],
)
def test_no_try_comes_when_it_is_of_no_use_any_more(
    at: datetime, catch_up: timedelta | None, *, is_tried_again: bool
) -> None:
    judged = with_retry(run(), patience(catch_up=catch_up), at=at)

    assert (judged.retry_at is not None) is is_tried_again


@pytest.mark.parametrize(
    ("runs", "now", "is_due"),
    [
        ((), SLOT, False),
        ((run(),), SLOT + HOUR, False),
        ((run(retry_at=SLOT + MINUTE),), SLOT + MINUTE, True),
        ((run(retry_at=SLOT + MINUTE),), SLOT + MINUTE - timedelta(seconds=1), False),
        ((run(retry_at=SLOT + MINUTE),), SLOT + 24 * HOUR, False),
        ((run(retry_at=SLOT + MINUTE), run(attempt=2)), SLOT + HOUR, False),
    ],
)
def test_a_try_is_due_because_the_ledger_says_so(
    runs: tuple[Run, ...], now: datetime, *, is_due: bool
) -> None:
    assert retry_due(runs, patience(), now=now) is is_due


def test_tries_are_counted_and_records_without_a_run_are_not() -> None:
    asked, missed = run(attempt=0), run(outcome=Outcome.MISSED)

    assert next_attempt(()) == 1
    assert next_attempt((asked, missed, run())) == 2


def test_a_later_try_keeps_what_was_found_about_backups_that_it_does_not_make_again() -> None:
    first = run(
        artifacts=(artifact("database/main/a"),),
        findings=(
            finding("database/main/a"),
            finding("repository/usb/database/main/a", "backup.retention_refused"),
            finding("database/main/b", "postgres.dump_failed"),
        ),
    )
    second = run(attempt=2, artifacts=(artifact("database/main/b"),))

    kept = with_earlier_findings(second, (first,))

    assert kept.findings == first.findings[:2]


def test_what_a_later_try_looked_at_itself_counts() -> None:
    first = run(artifacts=(artifact("s/a"),), findings=(finding("s/a"),))
    worse = replace(finding("s/a"), severity=Severity.CRITICAL)

    assert with_earlier_findings(run(findings=(worse,)), (first,)).findings == (worse,)
    assert with_earlier_findings(run(artifacts=(artifact("s/a"),)), (first,)).findings == ()
    assert with_earlier_findings(run(), ()).findings == ()
