from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from opsd import runner, secrets
from opsd.config import Table
from opsd.errors import DeadlineExceeded, PartialFailure, PermanentError, TransientError
from opsd.job import Context, Job, Observation
from opsd.model import Artifact, Finding, Outcome, Run, Seen, Severity, Unseen
from opsd.testing import FakeClock, context

FINDING = Finding(check="x.y", subject="s/a", severity=Severity.WARNING, summary="s")
ARTIFACT = Artifact(
    kind="pg_dump", subject="s/a", repository="r", key="k", size_bytes=1, sha256="", level="parsed"
)


class Settings(Table):
    pass


def job_that(*steps: object) -> Job[Settings]:
    """A job that yields values and raises exceptions, in order."""

    def run(ctx: Context, settings: Settings) -> Iterator[Observation]:  # noqa: ARG001 - a job
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            yield step  # type: ignore[misc]

    return Job(
        name="test-job",
        summary="",
        group="",
        schedule="@daily",
        timeout=timedelta(minutes=1),
        settings=Settings,
        run=run,
    )


def execute(*steps: object, tmp_path: Path, **changes: Any) -> Run:
    return runner.execute(job_that(*steps), Settings(), context(scratch=tmp_path, **changes))


def test_a_job_that_ends_is_completed_with_all_that_it_saw(tmp_path: Path) -> None:
    looks = (Seen(subject="s/a"), Unseen(subject="s/b"))

    run = execute(FINDING, ARTIFACT, *looks, tmp_path=tmp_path)

    assert run.outcome is Outcome.COMPLETED
    assert (run.findings, run.artifacts) == ((FINDING,), (ARTIFACT,))
    assert (run.seen, run.unseen) == (("s/a",), ("s/b",))
    assert run.error == ""


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (DeadlineExceeded("too slow"), Outcome.TIMED_OUT, "DeadlineExceeded: too slow"),
        (PartialFailure("1 of 12 failed"), Outcome.FAILED, "1 of 12 failed"),
        (PermanentError("wrong password"), Outcome.FAILED, "PermanentError: wrong password"),
        (ZeroDivisionError(), Outcome.FAILED, "ZeroDivisionError"),
        (ValueError("two\nlines"), Outcome.FAILED, "ValueError: two lines"),
        (KeyboardInterrupt("SIGTERM"), Outcome.INTERRUPTED, "ended by SIGTERM"),
        (KeyboardInterrupt(), Outcome.INTERRUPTED, "ended by SIGINT"),
    ],
)
def test_an_error_ends_the_run_and_what_was_seen_stays(
    error: BaseException, outcome: Outcome, text: str, tmp_path: Path
) -> None:
    run = execute(FINDING, error, ARTIFACT, tmp_path=tmp_path)

    assert (run.outcome, run.error) == (outcome, text)
    assert (run.findings, run.artifacts) == ((FINDING,), ())


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (TransientError("connection refused"), True),
        (PermanentError("wrong password"), False),
        (PartialFailure("1 of 2 failed"), False),
        (PartialFailure("1 of 2 failed", may_pass=True), True),
        (DeadlineExceeded("too slow"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_a_run_says_whether_what_it_failed_for_may_pass(
    error: Exception, tmp_path: Path, *, may_pass: bool
) -> None:
    assert execute(error, tmp_path=tmp_path).may_pass is may_pass


def test_a_job_that_yields_something_else_fails(tmp_path: Path) -> None:
    run = execute("a text", tmp_path=tmp_path)

    assert run.outcome is Outcome.FAILED


def test_a_run_says_how_long_it_took_on_the_monotonic_clock(tmp_path: Path) -> None:
    clock = FakeClock()

    def run(ctx: Context, settings: Settings) -> Iterator[Observation]:  # noqa: ARG001 - a job
        clock.ticks_s += 90
        clock.wall -= timedelta(hours=1)
        yield FINDING

    job = Job(
        name="j",
        summary="",
        group="",
        schedule="",
        timeout=timedelta(0),
        settings=Settings,
        run=run,
    )

    assert runner.execute(
        job, Settings(), context(scratch=tmp_path, clock=clock)
    ).duration == timedelta(seconds=90)


def test_no_secret_gets_into_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_revealed", ())
    secrets.conceal("hunter2 hunter2")
    told = Finding(
        check="x.y",
        subject="s/a",
        severity=Severity.WARNING,
        summary="login with hunter2 hunter2",
        remedy="use hunter2 hunter2",
        facts={"dsn": "postgres://u:hunter2 hunter2@h", "port": 1, "tls": True, "size": None},
    )

    run = execute(told, PermanentError("no: hunter2 hunter2"), tmp_path=tmp_path)

    assert "hunter2" not in repr(run)
    assert run.findings[0].facts == {
        "dsn": f"postgres://u:{secrets.MASK}@h",
        "port": 1,
        "tls": True,
        "size": None,
    }


def test_a_fact_of_another_type_becomes_text(tmp_path: Path) -> None:
    odd = Finding(
        check="x.y",
        subject="s/a",
        severity=Severity.INFO,
        summary="s",
        facts={"path": tmp_path},  # type: ignore[dict-item]
    )

    run = execute(odd, tmp_path=tmp_path)

    assert run.findings[0].facts == {"path": str(tmp_path)}


def test_a_crash_is_logged_with_its_traceback(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        execute(ZeroDivisionError("boom"), tmp_path=tmp_path)

    assert [line["event"] for line in lines] == ["run.started", "run.crashed", "run.ended"]
    assert lines[1]["exc_info"] is True
