"""How `opsd status` looks: jobs, newest backups, findings, what is held back, messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from opsd.cli.backups import proof_cell
from opsd.cli.expiry import until_text
from opsd.cli.overview import outcome_cell, show_findings
from opsd.cli.places import Reading
from opsd.cli.records import JobStatus, Records
from opsd.cli.render import (
    Cell,
    Column,
    Screen,
    Tone,
    age_text,
    count_text,
    name_text,
    size_text,
    span_text,
    time_text,
)
from opsd.cli.selecting import newest
from opsd.cli.silencing import silence_text

if TYPE_CHECKING:
    from opsd.configfile import Config


def show(
    screen: Screen,
    config: Config,
    records: Records,
    readings: Sequence[Reading],
    *,
    now: datetime,
) -> None:
    """Print everything but the verdict."""
    _show_jobs(screen, config, records, now)
    _show_series(screen, readings, now)
    if records.findings:
        screen.line()
        screen.line("FINDINGS", Tone.DIM)
        show_findings(screen, records.findings, records.marks, now=now, timezone=config.timezone)
    _show_silences(screen, config, records, now)
    _show_messages(screen, config, records, now)
    if records.daemon is None and not records.error:
        screen.line()
        told = "the daemon is not running: nothing starts by itself, unless cron does it"
        screen.detail(told, indent=0, mark="! ", tone=Tone.WARNING)
        screen.detail("opsd run", indent=2, mark="> ")


def _show_jobs(screen: Screen, config: Config, records: Records, now: datetime) -> None:
    if records.error:
        told = f"could not tell what was run: {records.error}"
        screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
        return
    if not records.jobs:
        screen.line("No job is configured: add a table [jobs.NAME].", Tone.WARNING)
        return
    rows = [
        (
            Cell(one.job, Tone.TITLE),
            outcome_cell(one.last.outcome) if one.last else Cell("never run", Tone.WARNING),
            age_text(one.last.started_at, now) if one.last else "",
            _now_cell(one, now),
            age_text(one.next_slot, now) if one.enabled else "disabled",
        )
        for one in records.jobs
    ]
    titles = ("JOB", "LAST", "WHEN", "NOW", "NEXT")
    screen.table([Column(title, folds=title == "NOW") for title in titles], rows)
    for one in records.jobs:
        if told := hold_text(config, one, now):
            screen.detail(told, indent=0, mark="! ", tone=Tone.WARNING)


def _now_cell(one: JobStatus, now: datetime) -> Cell:
    """What is going on with a job, in the order of its importance."""
    if one.running_since:
        return Cell(f"running {span_text(now - one.running_since)}")
    if one.pause:
        return Cell("paused", Tone.WARNING)
    if one.maintenance:
        return Cell("waits", Tone.WARNING)
    if one.overdue_since:
        return Cell("overdue", Tone.BAD)
    if one.last and one.last.retry_at and one.last.retry_at > now:
        return Cell(f"again {age_text(one.last.retry_at, now)}")
    return Cell("")


def hold_text(config: Config, one: JobStatus, now: datetime) -> str:
    """Why a job is not started, or that it should have been; empty when all is as planned."""
    timezone = config.timezone
    if one.pause:
        until = until_text(one.pause.until, now, timezone)
        return f"{one.job} is paused until {until}: {one.pause.reason}"
    if one.maintenance:
        name, until_at = one.maintenance
        until = until_text(until_at, now, timezone)
        return f"{one.job} waits for the end of maintenance {name}: {until}"
    if one.overdue_since:
        due = time_text(one.overdue_since, timezone)
        return f"{one.job} was due at {due}, and nothing is on record"
    return ""


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
        _show_reading(screen, reading)


def _show_reading(screen: Screen, reading: Reading) -> None:
    if reading.error:
        told = f"could not tell what is in {reading.repository.name}: {reading.error}"
        screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
    elif not reading.backups:
        screen.line(f"{reading.repository.name} holds no backup yet.", Tone.WARNING)
    if damaged := reading.damaged:
        told = f"{reading.repository.name} holds {count_text(len(damaged), 'damaged backup')}"
        screen.detail(f"{told}: {damaged[-1]}", indent=0, mark="✗ ", tone=Tone.BAD)
        screen.detail("opsd backups list --all; docs/repositories.md#damage", indent=2, mark="> ")


def _show_silences(screen: Screen, config: Config, records: Records, now: datetime) -> None:
    if not records.silences:
        return
    screen.line()
    screen.line("SILENCED", Tone.DIM)
    for one in records.silences:
        told = silence_text(one, now=now, timezone=config.timezone)
        screen.detail(f"{told}: {one.reason}", indent=2)


def _show_messages(screen: Screen, config: Config, records: Records, now: datetime) -> None:
    lines = list(messages(config, records, now))
    if lines:
        screen.line()
    for told, remedy in lines:
        screen.detail(told, indent=0, mark="! ", tone=Tone.WARNING)
        if remedy:
            screen.detail(remedy, indent=2, mark="> ")


def messages(config: Config, records: Records, now: datetime) -> Iterator[tuple[str, str]]:
    """What keeps people from being told, and what to do about it."""
    if records.error:
        return
    if not config.targets:
        yield "nobody is told anything: there is no alert target", "docs/alerts.md"
    if held := records.held:
        count = count_text(held.count, "change")
        if held.until:
            until = until_text(held.until, now, config.timezone)
            yield f"{count} held by quiet hours, told at their end: {until}", ""
        else:
            yield f"{count} held, because too many messages were sent this hour", ""
    if waiting := records.undelivered:
        count = count_text(len(waiting), "message")
        told = f"{count} not delivered, the oldest from {age_text(waiting[0].created_at, now)}"
        yield f"{told}: {waiting[0].last_error or 'not tried yet'}", "opsd notify-test"
