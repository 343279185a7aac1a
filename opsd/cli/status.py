"""`opsd status`: is everything all right? Asked of the records and of the repositories.

"Could not tell" is said, and never shown as healthy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.backups import held_json, proof_cell
from opsd.cli.calling import Command, Exit, load_config, wants_json
from opsd.cli.overview import open_finding_json, outcome_cell, show_findings
from opsd.cli.places import Reading, read_all
from opsd.cli.progress import shown
from opsd.cli.render import (
    Cell,
    Column,
    Screen,
    Tone,
    age_text,
    count_text,
    name_text,
    print_json,
    size_text,
    time_text,
)
from opsd.cli.selecting import newest
from opsd.cli.wiring import Wiring
from opsd.clock import SystemClock
from opsd.errors import OpsdError
from opsd.model import OpenFinding, Outcome, Run

if TYPE_CHECKING:
    from opsd.configfile import Config
    from opsd.state import OutboxEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """One configured job."""

    job: str
    enabled: bool
    last: Run | None
    running_since: datetime | None
    next_slot: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """What the state says."""

    jobs: tuple[JobStatus, ...] = ()
    findings: tuple[OpenFinding, ...] = ()
    undelivered: tuple[OutboxEntry, ...] = ()
    error: str = ""  #: why it could not be read


@click.command(cls=Command)
def status() -> int:
    """Show whether everything is all right: jobs, backups, findings, messages.

    Exits with 1 when something could not be told, 3 when something needs a person, else 0.
    """
    clock = SystemClock()
    wiring = Wiring(load_config(), clock)
    now = clock.now()
    with shown() as progress:
        progress.update("read the repositories")
        readings = read_all([wiring.repository(name) for name in wiring.config.repositories])
        progress.finish("read the repositories")
    records = _read_records(wiring, now)
    if wants_json():
        print_json(_as_json(records, readings))
    else:
        _show(wiring.config, records, readings, now)
    return _exit_status(records, readings)


def _read_records(wiring: Wiring, now: datetime) -> Records:
    try:
        with wiring.state() as state:
            running = {job: since for job, _, since in state.running()}
            return Records(
                jobs=tuple(
                    JobStatus(
                        job=name,
                        enabled=entry.enabled,
                        last=next(iter(state.runs(job=name, limit=1)), None),
                        running_since=running.get(name),
                        next_slot=next_slot(wiring.config, name, now),
                    )
                    for name, entry in wiring.config.jobs.items()
                ),
                findings=state.open_findings(),
                undelivered=state.undelivered(),
            )
    except OpsdError as exc:
        return Records(error=str(exc))


def next_slot(config: Config, name: str, now: datetime) -> datetime | None:
    """When a job is due next; None for one that is not enabled."""
    from opsd.cron import parse  # noqa: PLC0415 - not for --help

    entry = config.jobs[name]
    if not entry.enabled:
        return None
    return parse(entry.schedule, timezone=config.timezone, spread_by=name).next_slot(now)


def _exit_status(records: Records, readings: Sequence[Reading]) -> Exit:
    if records.error or any(reading.error for reading in readings):
        return Exit.FAILED
    ended_badly = any(
        one.last and one.last.outcome is not Outcome.COMPLETED for one in records.jobs
    )
    damaged = any(reading.damaged for reading in readings)
    if ended_badly or damaged or records.findings or records.undelivered:
        return Exit.FINDINGS
    return Exit.COMPLETED


def _as_json(records: Records, readings: Sequence[Reading]) -> dict[str, Any]:
    from opsd.cli.results import run_json  # noqa: PLC0415 - not for --help

    return {
        "state": {"readable": not records.error, "error": records.error},
        "jobs": [
            {
                "job": one.job,
                "enabled": one.enabled,
                "last_run": run_json(one.last) if one.last else None,
                "running_since": one.running_since,
                "next_slot": one.next_slot,
            }
            for one in records.jobs
        ],
        "repositories": [
            {
                "name": reading.repository.name,
                "location": reading.repository.location,
                "readable": not reading.error,
                "error": reading.error,
                "newest": [held_json(held) for held in newest(reading.backups)],
                "damaged": reading.damaged,
            }
            for reading in readings
        ],
        "findings": [open_finding_json(entry) for entry in records.findings],
        "undelivered": [
            {
                "title": entry.message.title,
                "created_at": entry.created_at,
                "attempts": entry.attempts,
                "last_error": entry.last_error,
            }
            for entry in records.undelivered
        ],
    }


def _show(config: Config, records: Records, readings: Sequence[Reading], now: datetime) -> None:
    screen = Screen()
    _show_jobs(screen, config, records, now)
    _show_series(screen, readings, now)
    if records.findings:
        screen.line()
        screen.line("FINDINGS", Tone.DIM)
        show_findings(screen, records.findings, now=now)
    _show_undelivered(screen, records, now)
    screen.line()
    screen.line(*_verdict(records, readings))


def _show_jobs(screen: Screen, config: Config, records: Records, now: datetime) -> None:
    if records.error:
        told = f"could not tell what was run: {records.error}"
        screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
        return
    rows = [
        (
            Cell(one.job, Tone.TITLE),
            outcome_cell(one.last.outcome) if one.last else Cell("never run", Tone.WARNING),
            age_text(one.last.started_at, now) if one.last else "",
            f"running since {age_text(one.running_since, now)}" if one.running_since else "",
            time_text(one.next_slot, config.timezone) if one.enabled else "disabled",
        )
        for one in records.jobs
    ]
    if rows:
        screen.table([Column(title) for title in ("JOB", "LAST", "WHEN", "NOW", "NEXT")], rows)
    else:
        screen.line("No job is configured: add a table [jobs.NAME].", Tone.WARNING)


def _show_series(screen: Screen, readings: Sequence[Reading], now: datetime) -> None:
    held = sorted(
        (one for reading in readings for one in newest(reading.backups)),
        key=lambda one: (one.subject, one.repository),
    )
    screen.line()
    if held:
        titles = ("NEWEST BACKUP", "AGE", "SIZE", "PROVEN", "WHERE")
        screen.table(
            [Column(title, right=title == "SIZE", folds=title == titles[0]) for title in titles],
            [
                (
                    name_text(one.subject),
                    age_text(one.slot, now),
                    size_text(one.backup.manifest.size_bytes),
                    proof_cell(one),
                    one.repository,
                )
                for one in held
            ],
        )
    for reading in readings:
        if reading.error:
            told = f"could not tell what is in {reading.repository.name}: {reading.error}"
            screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
        elif not reading.backups:
            screen.line(f"{reading.repository.name} holds no backup yet.", Tone.WARNING)
        if damaged := reading.damaged:
            told = f"{reading.repository.name} holds {count_text(len(damaged), 'damaged backup')}"
            screen.detail(f"{told}: {damaged[-1]}", indent=0, mark="✗ ", tone=Tone.BAD)
            screen.detail(
                "opsd backups list --all; docs/repositories.md#damage", indent=2, mark="> "
            )


def _show_undelivered(screen: Screen, records: Records, now: datetime) -> None:
    if not records.undelivered:
        return
    oldest = records.undelivered[0]
    count = count_text(len(records.undelivered), "message")
    screen.line()
    told = f"{count} not delivered, the oldest from {age_text(oldest.created_at, now)}"
    why = oldest.last_error or "not tried yet"
    screen.detail(f"{told}: {why}", indent=0, mark="! ", tone=Tone.WARNING)
    screen.detail("opsd notify-test", indent=2, mark="> ")


def _verdict(records: Records, readings: Sequence[Reading]) -> tuple[str, Tone]:
    match _exit_status(records, readings):
        case Exit.FAILED:
            return "Not everything could be looked at: see ✗.", Tone.BAD
        case Exit.FINDINGS:
            return "Something needs you: see above.", Tone.WARNING
    if not any(one.last for one in records.jobs):
        return "Nothing was run yet: opsd run-job backup", Tone.WARNING
    return "All is well.", Tone.GOOD
