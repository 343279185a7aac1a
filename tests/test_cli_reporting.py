"""A job that reports at length, and one that is asked about something else than it does daily."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import jobs
from opsd.cli import main
from opsd.config import Table
from opsd.job import AnyJob, Context, Job, Observation
from opsd.model import Finding, Report, Severity
from opsd.secrets import conceal

PASSWORD = "canary-of-a-report"


class Asked(Table):
    """A job that can be asked about a release."""

    to: str = ""


class Plain(Table):
    """A job that cannot."""


def odd(severity: Severity) -> Finding:
    return Finding(check="test.check", subject="thing/one", severity=severity, summary="it is odd")


def reports(_ctx: Context, settings: Asked) -> Iterator[Observation]:
    yield odd(Severity.WARNING)
    yield Report(
        text=f"# To {settings.to or 'the next'}\n\n  - {PASSWORD}",
        data={"to": settings.to, "said": [PASSWORD]},
    )


def warns(_ctx: Context, _settings: Plain) -> Iterator[Observation]:
    yield odd(Severity.WARNING)


def job(run: Any, settings: type[Table], fail_on: Severity) -> AnyJob:
    return Job(
        name=run.__name__,
        summary="on purpose",
        group="both",
        schedule="0 3 * * *",
        timeout=timedelta(minutes=1),
        settings=settings,
        run=run,
        fail_on=fail_on,
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    registry = (
        job(reports, Asked, Severity.WARNING),
        job(warns, Plain, Severity.CRITICAL),
    )
    tables = "".join(f"[jobs.{one.name}]\n" for one in registry)
    (tmp_path / "config.toml").write_text(f'[opsd]\nstate_dir = "{tmp_path}/state"\n{tables}')
    monkeypatch.setattr(jobs, "JOBS", registry)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPSD_CONFIG", raising=False)
    conceal(PASSWORD)
    return tmp_path


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["reports"], 3),
        (["reports", "--fail-on", "critical"], 0),
        (["reports", "--fail-on", "never"], 0),
        (["warns"], 0),
        (["warns", "--fail-on", "warning"], 3),
        (["both"], 3),
    ],
)
def test_each_job_says_from_which_severity_on_it_fails(argv: list[str], status: int) -> None:
    assert main(["run-job", *argv]) == status


def test_a_report_is_shown_as_it_is_written_and_nothing_after_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["run-job", "reports"])

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["# To the next", ""]
    assert lines[2].startswith("  - ")
    assert len(lines) == 3


def test_a_report_is_part_of_the_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "reports", "--to", "1.36", "-o", "json"])

    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert run["report"]["to"] == "1.36"


def test_a_job_without_a_report_has_none_in_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "warns", "-o", "json"])

    [run] = json.loads(capsys.readouterr().out)["runs"]
    assert "report" not in run


@pytest.mark.parametrize("output", ["text", "json"])
def test_no_secret_reaches_a_report(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "reports", "-o", output])

    assert PASSWORD not in capsys.readouterr().out


def test_what_was_only_asked_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run-job", "reports", "--to", "1.36"])
    capsys.readouterr()

    main(["history", "-o", "json"])

    assert json.loads(capsys.readouterr().out)["runs"] == []


@pytest.mark.parametrize("name", ["warns", "both"])
def test_a_job_without_a_target_cannot_be_asked(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["run-job", name, "--to", "1.36"])

    assert status == 2
    assert "warns has no target" in capsys.readouterr().err
