"""`opsd backups`: what there is, whether it is good, and how to get it back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any

import click

from opsd.backup.catalog import Condition
from opsd.backup.naming import stamp
from opsd.cli.calling import Command, Exit, LazyGroup, wants_json
from opsd.cli.places import Place, Reading, open_places, place_options, read_all
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
from opsd.cli.results import LEVEL_WORDS
from opsd.cli.selecting import Held, matching, newest
from opsd.clock import SystemClock

COMMANDS = {
    "list": ("opsd.cli.backups:list_", "List what there is, how old it is, how far proven."),
    "verify": ("opsd.cli.verify:verify", "Prove again that backups are what they promise."),
    "restore": (
        "opsd.cli.restore:restore",
        "Get a database, a share, a file or the control plane back.",
    ),
}
_CONDITION_TONES = {
    Condition.GOOD: Tone.GOOD,
    Condition.UNVERIFIED: Tone.WARNING,
    Condition.FAILED: Tone.BAD,
}


@click.group(cls=LazyGroup, commands_by_name=COMMANDS)
def backups() -> None:
    """List, verify and restore backups. The repository alone says what exists."""


@click.command(name="list", cls=Command)
@click.argument("selector", default="")
@click.option("--all", "everything", is_flag=True, help="Every backup, not the newest of each.")
@place_options
def list_(selector: str, *, everything: bool, place: Place) -> int:
    """List backups: the newest of everything, or all that SELECTOR fits.

    SELECTOR is a subject such as database/main/shop, its beginning, or a manifest's key.
    """
    opened = open_places(place)
    with shown() as progress:
        progress.update("read the repositories")
        readings = read_all(opened.repositories)
        progress.finish("read the repositories")
    found = matching([held for reading in readings for held in reading.backups], selector)
    if wants_json():
        print_json(_as_json(readings, found))
    else:
        _show(readings, found, each=everything or bool(selector), timezone=opened.timezone)
    return Exit.FAILED if any(reading.error for reading in readings) else Exit.COMPLETED


def held_json(held: Held) -> dict[str, Any]:
    """One backup, as in every JSON output."""
    manifest = held.backup.manifest
    return {
        "subject": manifest.subject,
        "kind": manifest.kind,
        "slot": stamp(manifest.slot),
        "repository": held.repository,
        "key": held.backup.key,
        "created_at": manifest.created_at,
        "size_bytes": manifest.size_bytes,
        "sha256": manifest.sha256,
        "encryption": manifest.encryption,
        "condition": held.backup.condition.value,
        "level": held.backup.level.label,
    }


def _as_json(readings: Sequence[Reading], found: Sequence[Held]) -> dict[str, Any]:
    return {
        "repositories": [
            {
                "name": reading.repository.name,
                "location": reading.repository.location,
                "readable": not reading.error,
                "error": reading.error,
            }
            for reading in readings
        ],
        "backups": [held_json(held) for held in found],
        "problems": [
            {
                "repository": reading.repository.name,
                "key": problem.key,
                "reason": problem.reason,
            }
            for reading in readings
            for problem in reading.problems
        ],
    }


def _show(
    readings: Sequence[Reading], found: Sequence[Held], *, each: bool, timezone: tzinfo
) -> None:
    screen, now = Screen(), SystemClock().now()
    ordered = sorted(found, key=lambda held: held.subject)
    if each:
        _show_each(screen, ordered, now=now, timezone=timezone)
    elif found:
        _show_newest(screen, ordered, now=now)
    for reading in readings:
        _show_reading(screen, reading)
    if not found:
        readable = [reading for reading in readings if not reading.error]
        where = ", ".join(reading.repository.location for reading in readable)
        screen.line(f"No backups in {where}." if readable else "Nothing could be read.", Tone.BAD)


def _show_newest(screen: Screen, found: Sequence[Held], *, now: datetime) -> None:
    rows = []
    for held in newest(found):
        manifest = held.backup.manifest
        series = [one for one in found if (one.repository, one.subject) == _place(held)]
        good = sum(one.is_good for one in series)
        rows.append(
            (
                name_text(manifest.subject),
                age_text(manifest.slot, now),
                size_text(manifest.size_bytes),
                proof_cell(held),
                held.repository,
                str(good) if good == len(series) else f"{good} of {len(series)}",
            )
        )
    titles = ("BACKUP", "NEWEST", "SIZE", "PROVEN", "WHERE", "GOOD")
    screen.table(
        [Column(t, right=t in ("SIZE", "GOOD"), folds=t == "BACKUP") for t in titles], rows
    )


def _show_each(screen: Screen, found: Sequence[Held], *, now: datetime, timezone: tzinfo) -> None:
    rows = [
        (
            name_text(held.subject),
            stamp(held.slot),
            time_text(held.slot, timezone),
            age_text(held.slot, now),
            size_text(held.backup.manifest.size_bytes),
            proof_cell(held),
            held.repository,
        )
        for held in found
    ]
    titles = ("BACKUP", "SLOT", "TIME", "AGE", "SIZE", "PROVEN", "WHERE")
    if rows:
        screen.table([Column(t, right=t == "SIZE", folds=t == "BACKUP") for t in titles], rows)


def proof_cell(held: Held) -> Cell:
    """How far a backup is proven now, in its colour."""
    condition = held.backup.condition
    words = LEVEL_WORDS[held.backup.level.label]
    if condition is Condition.FAILED:
        words = "DAMAGED"
    return Cell(words, _CONDITION_TONES[condition])


def _show_reading(screen: Screen, reading: Reading) -> None:
    if reading.error:
        told = f"could not tell what is in {reading.repository.name}: {reading.error}"
        screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
    for problem in reading.problems:
        screen.detail(problem.reason, indent=0, mark="! ", tone=Tone.WARNING)
    damaged = [one for one in reading.backups if one.backup.condition is Condition.FAILED]
    if damaged:
        told = f"{count_text(len(damaged), 'backup')} in {reading.repository.name} damaged:"
        screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
        for held in damaged:
            screen.detail(f"{held.backup.key}: {why_failed(held)}", indent=2)


def why_failed(held: Held) -> str:
    """What is wrong with a backup, in one line."""
    failed = [one for one in held.backup.verdicts.values() if not one.ok]
    return held.backup.defect or (failed[-1].detail if failed else "")


def _place(held: Held) -> tuple[str, str]:
    return (held.repository, held.subject)
