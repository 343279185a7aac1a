"""`opsd history` and `findings`: what opsd did, and what it wants to be known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
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
from opsd.model import VOID, Outcome

if TYPE_CHECKING:
    from opsd.alerts.marks import Key, Mark
    from opsd.configfile import Config
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
    if screen.is_narrow:
        _show_runs_below_each_other(screen, runs, wiring.config)
        return
    titles = ("STARTED", "JOB", "OUTCOME", "TOOK", "RESULT")
    screen.table(
        [Column(title, right=title == "TOOK", folds=title == "RESULT") for title in titles],
        [_run_row(run, wiring.config) for run in runs],
    )


def _show_runs_below_each_other(screen: Screen, runs: Sequence[Run], config: Config) -> None:
    for run in runs:
        outcome = outcome_cell(run.outcome)
        started = time_text(run.started_at, config.timezone)
        told = f"{started}  {run.job}  {outcome.text}, took {span_text(run.duration)}"
        screen.line(told, outcome.tone)
        if result := _result(run, config):
            screen.detail(result, indent=2)


def _run_row(run: Run, config: Config) -> tuple[Cell | str, ...]:
    return (
        time_text(run.started_at, config.timezone),
        run.job,
        outcome_cell(run.outcome),
        span_text(run.duration),
        _result(run, config),
    )


def _result(run: Run, config: Config) -> str:
    """What was made and found, which try it was, and why it ended as it did."""
    told = [count_text(len(run.artifacts), "backup")] if run.artifacts else []
    if run.findings:
        told.append(count_text(len(run.findings), "finding"))
    if run.attempt == VOID:
        told.append("the clock was wrong, it counts for nothing")
    if run.attempt > 1:
        told.append(f"try {run.attempt}")
    if run.retry_at:
        told.append(f"tried again at {run.retry_at.astimezone(config.timezone):%H:%M}")
    return ": ".join(part for part in (", ".join(told), run.error) if part)


@click.command(cls=Command)
@click.option("--job", metavar="NAME", help="Only the findings of this job.")
def findings(job: str | None) -> None:
    """List what a person should know or do, most severe first."""
    from opsd.alerts.marks import key_of, marks  # noqa: PLC0415 - not for --help
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - likewise

    clock = SystemClock()
    wiring = Wiring(load_config(), clock)
    with wiring.state() as state:
        entries = state.open_findings(job=job)
        marked = marks(state.alerts(), entries, now=clock.now())
        has_run = bool(state.runs(job=job, limit=1))
    if wants_json():
        print_json(
            {"findings": [open_finding_json(one, marked.get(key_of(one))) for one in entries]}
        )
        return
    screen = Screen()
    show_findings(screen, entries, marked, now=clock.now(), timezone=wiring.config.timezone)
    if not entries:
        nothing = "No open findings." if has_run else "Nothing was run yet, so nothing is known."
        screen.line(nothing, Tone.GOOD if has_run else Tone.WARNING)
    else:
        screen.line()
        screen.line(_tally(entries))


def show_findings(
    screen: Screen,
    entries: Sequence[OpenFinding],
    marked: Mapping[Key, Mark],
    *,
    now: datetime,
    timezone: tzinfo,
) -> None:
    """Print each finding: what, on what, since when, the evidence, what to do, who has it."""
    from opsd.alerts.marks import key_of  # noqa: PLC0415 - not for --help

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
        if mark := marked.get(key_of(entry)):
            screen.detail(mark_text(mark, now=now, timezone=timezone), indent=9, mark="· ")


def mark_text(mark: Mark, *, now: datetime, timezone: tzinfo) -> str:
    """``acknowledged 2 h ago: new disk is coming; silenced until ...``."""
    said = []
    if seen := mark.acknowledged:
        said.append(
            ": ".join(filter(None, (f"acknowledged {age_text(seen.at, now)}", seen.reason)))
        )
    if silence := mark.silence:
        until = f"{silence.until.astimezone(timezone):%a %d %b %H:%M}"
        said.append(f"silenced until {until} (opsd silence)")
    return "; ".join(said)


def open_finding_json(entry: OpenFinding, mark: Mark | None) -> dict[str, Any]:
    """One open finding, as in every JSON output."""
    seen, silence = (mark.acknowledged, mark.silence) if mark else (None, None)
    return {
        **finding_json(entry.finding),
        "job": entry.job,
        "opened_at": entry.opened_at,
        "acknowledged": {"at": seen.at, "reason": seen.reason} if seen else None,
        "silenced": {"id": silence.id, "until": silence.until} if silence else None,
    }


def _tally(entries: Sequence[OpenFinding]) -> str:
    return joined(list(_counts(entries)))


def _counts(entries: Sequence[OpenFinding]) -> Iterator[str]:
    for severity in sorted({entry.finding.severity for entry in entries}, reverse=True):
        number = sum(entry.finding.severity == severity for entry in entries)
        yield count_text(number, f"{severity.label} finding")
