from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opsd.alerts.policy import compose
from opsd.model import Change, Finding, Message, Outcome, Run, Severity, Transition

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RUN = Run(
    job="postgres-backup",
    run_id="0123456789ab",
    slot=NOON,
    started_at=NOON,
    duration=timedelta(minutes=5),
    outcome=Outcome.COMPLETED,
)


def change(
    kind: Change = Change.OPENED, severity: Severity = Severity.CRITICAL, subject: str = "s/a"
) -> Transition:
    finding = Finding(check="x.y", subject=subject, severity=severity, summary=f"about {subject}")
    return Transition(change=kind, finding=finding, job=RUN.job, opened_at=NOON)


def only(*changes: Transition) -> Message:
    (message,) = compose(RUN, changes)
    return message


def test_a_run_that_changed_nothing_is_silent() -> None:
    assert compose(RUN, ()) == ()


def test_a_run_makes_one_message_however_much_it_changed() -> None:
    message = only(*(change(subject=f"s/{number}") for number in range(30)))

    assert message.title == "Act now: about s/0 (and 29 more)"


@pytest.mark.parametrize("kind", [Change.OPENED, Change.WORSENED, Change.RESOLVED])
def test_what_is_only_information_is_never_pushed(kind: Change) -> None:
    assert compose(RUN, [change(kind, Severity.INFO)]) == ()


@pytest.mark.parametrize("kind", list(Change))
def test_a_warning_is_told(kind: Change) -> None:
    assert compose(RUN, [change(kind, Severity.WARNING)])


def test_whoever_heard_the_worse_news_hears_that_it_eased() -> None:
    assert only(change(Change.EASED, Severity.WARNING)).severity is Severity.CRITICAL
    assert only(change(Change.EASED, Severity.INFO)).severity is Severity.WARNING


def test_a_message_is_as_severe_as_the_worst_in_it() -> None:
    warning = change(severity=Severity.WARNING)

    assert only(warning).severity is Severity.WARNING
    assert only(warning, change()).severity is Severity.CRITICAL


def test_bad_news_comes_first_and_the_worst_of_it_first_of_all() -> None:
    message = only(
        change(Change.RESOLVED, Severity.CRITICAL, "s/over"),
        change(Change.OPENED, Severity.WARNING, "s/minor"),
        change(Change.OPENED, Severity.CRITICAL, "s/major"),
    )

    order = [message.body.index(name) for name in ("s/major", "s/minor", "s/over")]
    assert order == sorted(order)
    assert message.title.startswith("Act now: about s/major")


def test_a_cause_comes_before_the_run_that_it_failed() -> None:
    about_run = Transition(
        change=Change.OPENED,
        finding=Finding(
            check="job.not_completed",
            subject="job/j",
            severity=Severity.CRITICAL,
            summary="failed",
        ),
        job=RUN.job,
        opened_at=NOON,
    )

    assert only(about_run, change()).title == "Act now: about s/a (and 1 more)"


def test_the_same_run_makes_the_same_message() -> None:
    changes = [change(subject="s/a"), change(subject="s/b")]

    assert compose(RUN, changes) == compose(RUN, changes[::-1])


def test_the_key_belongs_to_the_run() -> None:
    assert only(change()).key == "run/0123456789ab/1"


def test_a_finding_that_opened_before_the_clock_went_back_lasted_no_negative_time() -> None:
    late = Transition(
        change=Change.RESOLVED,
        finding=change().finding,
        job=RUN.job,
        opened_at=NOON + timedelta(days=1),
    )

    assert "lasted 0 s" in only(late).body
