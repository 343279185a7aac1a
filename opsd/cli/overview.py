"""`opsd jobs`, `history` and `findings`: what opsd can do, did, and wants to be known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, load_config, wants_json
from opsd.cli.render import (
    Cell,
    Column,
    Screen,
    Tone,
    age_text,
    count_text,
    joined,
    name_text,
    print_json,
    severity_cell,
    span_text,
    time_text,
)
from opsd.cli.results import finding_json, run_json, show_full_error
from opsd.clock import SystemClock
from opsd.model import Outcome

if TYPE_CHECKING:
    from opsd.configfile import Config
    from opsd.job import AnyJob
    from opsd.model import OpenFinding, Run

OUTCOME_TONES = {
    Outcome.COMPLETED: Tone.GOOD,
    Outcome.SKIPPED: Tone.DIM,
    Outcome.INTERRUPTED: Tone.WARNING,
    Outcome.MISSED: Tone.WARNING,
}


def outcome_cell(outcome: Outcome) -> Cell:
    """How a run ended, in its colour."""
    return Cell(outcome.value.replace("_", " "), OUTCOME_TONES.get(outcome, Tone.BAD))


@click.command(cls=Command)
def jobs() -> None:
    """List what opsd can run, and when it is due."""
    from jobs import JOBS  # noqa: PLC0415 - loads pydantic

    config = load_config()
    now = SystemClock().now()
    described = [_described(job, config, now) for job in JOBS]
    if wants_json():
        import msgspec  # noqa: PLC0415 - not for --help

        from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

        print_json(
            {
                "state_dir": str(config.state_dir),
                "timezone": config.timezone.key,
                "log_level": config.log_level,
                "alert_targets": [target.name for target in config.targets],
                "policy": msgspec.to_builtins(Wiring(config, SystemClock()).policy),
                "jobs": described,
            }
        )
        return
    titles = ("JOB", "GROUP", "DUE", "NEXT", "WHAT")
    columns = [Column(title, folds=title in ("DUE", "WHAT")) for title in titles]
    Screen().table(columns, [_job_row(one, config) for one in described])


def _described(job: AnyJob, config: Config, now: datetime) -> dict[str, Any]:
    from opsd.cron import parse  # noqa: PLC0415 - not for --help

    entry = config.jobs.get(job.name)
    described: dict[str, Any] = {
        "job": job.name,
        "group": job.group,
        "summary": job.summary,
        "configured": entry is not None,
        "enabled": entry is not None and entry.enabled,
        "schedule": entry.schedule if entry else None,
        "due": None,
        "next_slot": None,
        "timeout_s": entry.timeout.total_seconds() if entry else None,
        "catch_up_s": entry.catch_up.total_seconds() if entry and entry.catch_up else None,
        "jitter_s": entry.jitter.total_seconds() if entry else None,
        "retries": entry.retries if entry else None,
    }
    if entry and entry.enabled:
        cron = parse(entry.schedule, timezone=config.timezone, spread_by=job.name)
        described |= {"due": cron.describe(), "next_slot": cron.next_slot(now)}
    return described


def _job_row(one: dict[str, Any], config: Config) -> tuple[Cell | str, ...]:
    due: Cell | str = one["due"] or Cell("disabled", Tone.DIM)
    if not one["configured"]:
        due = Cell(f"not configured: no [jobs.{one['job']}]", Tone.DIM)
    next_slot = time_text(one["next_slot"], config.timezone) if one["next_slot"] else "-"
    return (Cell(one["job"], Tone.TITLE), one["group"], due, next_slot, one["summary"])


@click.command(cls=Command)
@click.option("--job", metavar="NAME", help="Only the runs of this job.")
@click.option("--limit", default=20, show_default=True, help="How many runs, newest first.")
def history(job: str | None, limit: int) -> None:
    """List what was run and how it ended, newest first."""
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    wiring = Wiring(load_config(), SystemClock())
    with wiring.state() as state:
        runs = state.runs(job=job, limit=limit)
    if wants_json():
        print_json({"runs": [run_json(run) for run in runs]})
        return
    screen = Screen()
    if not runs:
        of_job = f" of {job}" if job else ""
        screen.line(f"No run{of_job} yet. Start one: opsd run-job {job or 'backup'}", Tone.DIM)
        return
    titles = ("STARTED", "JOB", "OUTCOME", "TOOK", "RESULT")
    screen.table(
        [Column(title, right=title == "TOOK", folds=title == "RESULT") for title in titles],
        [_run_row(run, wiring.config) for run in runs],
    )


def _run_row(run: Run, config: Config) -> tuple[Cell | str, ...]:
    made = [count_text(len(run.artifacts), "backup")] if run.artifacts else []
    found = [count_text(len(run.findings), "finding")] if run.findings else []
    result = ", ".join(made + found)
    return (
        time_text(run.started_at, config.timezone),
        run.job,
        outcome_cell(run.outcome),
        span_text(run.duration),
        ": ".join(part for part in (result, run.error) if part),
    )


@click.command(cls=Command)
@click.option("--job", metavar="NAME", help="Only the findings of this job.")
def findings(job: str | None) -> None:
    """List what a person should know or do, most severe first."""
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    clock = SystemClock()
    with Wiring(load_config(), clock).state() as state:
        entries = state.open_findings(job=job)
        has_run = bool(state.runs(job=job, limit=1))
    if wants_json():
        print_json({"findings": [open_finding_json(entry) for entry in entries]})
        return
    screen = Screen()
    show_findings(screen, entries, now=clock.now())
    if not entries:
        nothing = "No open findings." if has_run else "Nothing was run yet, so nothing is known."
        screen.line(nothing, Tone.GOOD if has_run else Tone.WARNING)
    else:
        screen.line()
        screen.line(_tally(entries))


def show_findings(screen: Screen, entries: tuple[OpenFinding, ...], *, now: datetime) -> None:
    """Print each finding: what, on what, since when, the evidence, what to do."""
    for entry in entries:
        finding = entry.finding
        severity = severity_cell(finding.severity)
        screen.detail(
            f"{name_text(finding.subject)}: {finding.summary}",
            indent=0,
            mark=f"{severity.text:<9}",
            tone=severity.tone,
        )
        show_full_error(screen, finding, indent=9)
        since = f"{finding.check}, since {age_text(entry.opened_at, now)}, {entry.job}"
        screen.detail(since, indent=9, tone=Tone.DIM)
        if finding.remedy:
            screen.detail(finding.remedy, indent=9, mark="> ")


def open_finding_json(entry: OpenFinding) -> dict[str, Any]:
    """One open finding, as in every JSON output."""
    return {**finding_json(entry.finding), "job": entry.job, "opened_at": entry.opened_at}


def _tally(entries: tuple[OpenFinding, ...]) -> str:
    return joined(list(_counts(entries)))


def _counts(entries: tuple[OpenFinding, ...]) -> Iterator[str]:
    for severity in sorted({entry.finding.severity for entry in entries}, reverse=True):
        number = sum(entry.finding.severity == severity for entry in entries)
        yield count_text(number, f"{severity.label} finding")
