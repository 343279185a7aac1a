"""`opsd status`: is everything all right? Asked of the records and of the repositories.

"Could not tell" is said, and never shown as healthy.

Limits: who starts runs by cron has no daemon; that none is running is said, and alone does not
count as a failure. A slot that nothing has answered does.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from opsd.alerts.marks import key_of
from opsd.cli.backups import held_json
from opsd.cli.calling import Command, Exit, load_config, wants_json
from opsd.cli.overview import open_finding_json
from opsd.cli.pausing import pause_json
from opsd.cli.places import Reading, read_all
from opsd.cli.progress import shown
from opsd.cli.records import JobStatus, Records, read_records
from opsd.cli.render import Screen, Tone, joined, print_json
from opsd.cli.results import run_json
from opsd.cli.selecting import newest
from opsd.cli.silencing import silence_json
from opsd.cli.statusscreen import show
from opsd.cli.wiring import Wiring
from opsd.clock import SystemClock
from opsd.model import Severity


@click.command(cls=Command)
@click.option("--html", is_flag=True, help="Print a page that needs nothing else, for a browser.")
def status(*, html: bool) -> int:
    """Show whether everything is all right: jobs, backups, findings, messages, the daemon.

    Exits with 1 when something could not be told, 3 when something needs a person, else 0.
    """
    clock = SystemClock()
    wiring = Wiring(load_config(), clock)
    now = clock.now()
    with shown() as progress:
        progress.update("read the repositories")
        readings = read_all([wiring.repository(name) for name in wiring.config.repositories])
        progress.finish("read the repositories")
    records = read_records(wiring, now)
    if html:
        click.echo(_page(wiring, records, readings, now), nl=False)
    elif wants_json():
        print_json(_as_json(wiring, records, readings))
    else:
        screen = Screen()
        show(screen, wiring.config, records, readings, now=now)
        screen.line()
        screen.line(*_verdict(records, readings))
    return _exit_status(records, readings)


def _page(wiring: Wiring, records: Records, readings: Sequence[Reading], now: datetime) -> str:
    from opsd.cli.jobs import read_past  # noqa: PLC0415 - not for the screen
    from opsd.cli.nodelist import read_pages  # noqa: PLC0415 - likewise
    from opsd.cli.page import rendered  # noqa: PLC0415 - loads jinja2
    from opsd.cli.statuspage import compose  # noqa: PLC0415 - likewise

    return rendered(
        compose(
            wiring,
            records,
            readings,
            past=read_past(wiring, now),
            machines=() if records.error else read_pages(wiring),
            verdict=_headline(records, readings),
            now=now,
        )
    )


def _exit_status(records: Records, readings: Sequence[Reading]) -> Exit:
    if records.error or any(reading.error for reading in readings):
        return Exit.FAILED
    damaged = any(reading.damaged for reading in readings)
    is_well = all(one.is_well for one in records.jobs)
    if damaged or not is_well or records.news or records.undelivered:
        return Exit.FINDINGS
    return Exit.COMPLETED


def _is_in_hand(records: Records, readings: Sequence[Reading]) -> bool:
    """Whether somebody takes care of everything that is wrong."""
    others = any(reading.damaged for reading in readings) or records.undelivered
    overdue = any(one.overdue_since for one in records.jobs)
    return not (others or overdue) and all(key_of(one) in records.marks for one in records.news)


def _verdict(records: Records, readings: Sequence[Reading]) -> tuple[str, Tone]:
    match _exit_status(records, readings):
        case Exit.FAILED:
            return "Not everything could be looked at: see ✗.", Tone.BAD
        case Exit.FINDINGS if _is_in_hand(records, readings):
            return "All that is open is acknowledged or silenced.", Tone.WARNING
        case Exit.FINDINGS:
            return "Something needs you: see above.", Tone.WARNING
    return _good_news(records)


def _headline(records: Records, readings: Sequence[Reading]) -> tuple[str, Tone]:
    """The verdict above everything else, and not below."""
    text, tone = _verdict(records, readings)
    if any(one.finding.severity is Severity.CRITICAL for one in records.news):
        tone = Tone.BAD
    return text.partition(": see ")[0].removesuffix("."), tone


def _good_news(records: Records) -> tuple[str, Tone]:
    """Nothing is known to be wrong: how much that is worth."""
    due = [one for one in records.jobs if one.enabled]
    never = [one.job for one in due if one.last is None]
    if len(never) == len(due):
        return "Nothing was run yet: opsd run-job backup", Tone.WARNING
    if never:
        return f"What was run is well; never run: {joined(never)}.", Tone.WARNING
    if records.daemon is None:
        return "All is well, as of the last runs.", Tone.WARNING
    return "All is well.", Tone.GOOD


def _as_json(wiring: Wiring, records: Records, readings: Sequence[Reading]) -> dict[str, Any]:
    daemon, held = records.daemon, records.held
    return {
        "state": {"readable": not records.error, "error": records.error},
        "daemon": {
            "running": None if records.error else daemon is not None,
            "since": daemon.since if daemon else None,
        },
        "jobs": [_job_json(one) for one in records.jobs],
        "repositories": [_reading_json(reading) for reading in readings],
        "findings": [
            open_finding_json(entry, records.marks.get(key_of(entry)))
            for entry in records.findings
        ],
        "silences": [silence_json(one, records.findings) for one in records.silences],
        "channels": [
            {"name": target.name, "down_since": records.down_since(target.name)}
            for target in wiring.config.targets
        ],
        "held": {"count": held.count if held else 0, "until": held.until if held else None},
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


def _job_json(one: JobStatus) -> dict[str, Any]:
    window = one.maintenance
    return {
        "job": one.job,
        "enabled": one.enabled,
        "last_run": run_json(one.last) if one.last else None,
        "running_since": one.running_since,
        "next_slot": one.next_slot,
        "overdue_since": one.overdue_since,
        "paused": pause_json(one.pause) if one.pause else None,
        "maintenance": {"name": window[0], "until": window[1]} if window else None,
    }


def _reading_json(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.repository.name,
        "location": reading.repository.location,
        "readable": not reading.error,
        "error": reading.error,
        "newest": [held_json(held) for held in newest(reading.backups)],
        "damaged": reading.damaged,
    }
