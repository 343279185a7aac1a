from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opsd.model import Change, Finding, OpenFinding, Outcome, Run, Severity
from opsd.triage import JOB_CHECK, findings_of, transitions

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def finding(subject: str = "s/a", severity: Severity = Severity.WARNING) -> Finding:
    return Finding(check="x.y", subject=subject, severity=severity, summary="s")


def run(
    *findings: Finding,
    outcome: Outcome = Outcome.COMPLETED,
    seen: tuple[str, ...] = (),
    unseen: tuple[str, ...] = (),
    error: str = "",
) -> Run:
    return Run(
        job="j",
        run_id="0",
        slot=NOON,
        started_at=NOON,
        duration=timedelta(0),
        outcome=outcome,
        findings=findings,
        seen=seen,
        unseen=unseen,
        error=error,
    )


def opened(one: Finding) -> OpenFinding:
    return OpenFinding(finding=one, job="j", opened_at=NOON)


def changes(done: Run, *open_before: Finding) -> list[tuple[Change, str, datetime]]:
    return [
        (one.change, one.finding.subject, one.opened_at)
        for one in transitions(done, map(opened, open_before), at=LATER)
    ]


def test_a_new_finding_opens_now() -> None:
    assert changes(run(finding())) == [(Change.OPENED, "s/a", LATER)]


def test_a_finding_that_stays_is_no_news() -> None:
    assert changes(run(finding()), finding()) == []


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (Severity.WARNING, Severity.CRITICAL, Change.WORSENED),
        (Severity.CRITICAL, Severity.WARNING, Change.EASED),
    ],
)
def test_a_finding_that_changes_its_severity_keeps_its_age(
    before: Severity, after: Severity, change: Change
) -> None:
    assert changes(run(finding(severity=after)), finding(severity=before)) == [
        (change, "s/a", NOON)
    ]


def test_a_completed_run_resolves_what_it_no_longer_finds() -> None:
    assert changes(run(), finding()) == [(Change.RESOLVED, "s/a", NOON)]


def test_what_could_not_be_looked_at_stays_open_and_all_below_it() -> None:
    before = [finding(subject) for subject in ("s", "s/a", "s/a/b", "s/ab")]

    over = changes(run(unseen=("s/a",)), *before)

    assert [subject for _, subject, _ in over] == ["s", "s/ab"]


def test_what_was_seen_in_part_only_was_not_seen() -> None:
    done = run(outcome=Outcome.FAILED, seen=("s/a",), unseen=("s/a",))

    assert Change.RESOLVED not in [change for change, *_ in changes(done, finding())]


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - {Outcome.COMPLETED}))
def test_a_run_that_did_not_complete_resolves_only_what_it_saw(outcome: Outcome) -> None:
    done = run(outcome=outcome, seen=("s/a",))

    resolved = [
        one for one in changes(done, finding("s/a"), finding("s/b")) if one[0] is Change.RESOLVED
    ]

    assert resolved == [(Change.RESOLVED, "s/a", NOON)]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.INTERRUPTED])
def test_a_run_that_did_not_complete_is_itself_a_finding(outcome: Outcome) -> None:
    (about_run,) = findings_of(run(outcome=outcome, error="x" * 500))

    assert (about_run.check, about_run.subject) == (JOB_CHECK, "job/j")
    assert about_run.severity is Severity.CRITICAL
    assert len(about_run.summary) <= 120
    assert "j" in about_run.remedy


@pytest.mark.parametrize(
    ("outcome", "severities", "cause"),
    [
        (Outcome.FAILED, (Severity.WARNING, Severity.CRITICAL, Severity.CRITICAL), "s/1"),
        (Outcome.FAILED, (Severity.INFO, Severity.WARNING), "s/1"),
        (Outcome.FAILED, (Severity.INFO,), ""),
        (Outcome.FAILED, (), ""),
        (Outcome.TIMED_OUT, (Severity.CRITICAL,), ""),
        (Outcome.INTERRUPTED, (Severity.CRITICAL,), ""),
    ],
)
def test_that_a_run_failed_follows_from_the_worst_that_it_found(
    outcome: Outcome, severities: tuple[Severity, ...], cause: str
) -> None:
    found = [finding(f"s/{number}", severity) for number, severity in enumerate(severities)]

    assert findings_of(run(*found, outcome=outcome))[-1].cause == cause


def test_a_slot_that_was_missed_wakes_nobody_and_eases_no_failure() -> None:
    (missed,) = findings_of(run(outcome=Outcome.MISSED, error="opsd was not running"))
    (failed,) = findings_of(run(outcome=Outcome.FAILED))

    assert (missed.check, missed.severity) == ("job.missed", Severity.WARNING)
    assert missed.key != failed.key


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.SKIPPED])
def test_a_run_that_completed_or_was_skipped_is_not(outcome: Outcome) -> None:
    assert findings_of(run(outcome=outcome)) == ()


def test_the_next_completed_run_resolves_the_finding_about_the_job() -> None:
    (about_run,) = findings_of(run(outcome=Outcome.FAILED))

    assert changes(run(), about_run) == [(Change.RESOLVED, "job/j", NOON)]


def test_the_same_problem_found_twice_in_a_run_is_one() -> None:
    worse = finding(severity=Severity.CRITICAL)

    assert len(changes(run(finding(), worse))) == 1
