"""`opsd backups verify`: prove again, from storage, that backups are what they promise.

What was found out is kept beside the manifest, good or bad: retention and `opsd status`
count on it. What could not be told is said, and changes nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsd.backup.catalog import record_verification, verify_stored
from opsd.backup.manifest import Verification
from opsd.backup.naming import stamp
from opsd.cli.calling import Command, Exit, wants_json
from opsd.cli.places import Opened, Place, Reading, open_places, place_options, read_all
from opsd.cli.progress import shown
from opsd.cli.render import (
    Cell,
    Column,
    Row,
    Screen,
    Tone,
    count_text,
    name_text,
    print_json,
)
from opsd.cli.results import LEVEL_WORDS
from opsd.cli.selecting import Held, matching, newest
from opsd.clock import Deadline, SystemClock
from opsd.errors import OpsdError, PermanentError
from opsd.progress import Progress
from opsd.secrets import describe

if TYPE_CHECKING:
    from opsd.backup.postgres.restore import Into

LIMIT_S = 7 * 86400.0  # a repository of terabytes on a slow line takes days; more is a hang
DUMP = "pg_dump"
ETCD = "etcd_snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What came of one backup."""

    held: Held
    verification: Verification | None  #: None: it could not be told
    error: str = ""  #: why not, or why it could not be kept

    @property
    def is_good(self) -> bool:
        """Whether it was proven, and that was kept."""
        return self.verification is not None and self.verification.ok and not self.error


@click.command(cls=Command)
@click.argument("selector", default="")
@click.option("--all", "everything", is_flag=True, help="Every backup, not the newest of each.")
@click.option(
    "--restore",
    is_flag=True,
    help="Restore dumps and snapshots of etcd into scratch servers and compare.",
)
@click.option(
    "--on",
    default="",
    metavar="SERVER",
    help="With --restore: on this server instead of an embedded one; its name in the "
    "configuration, or postgres://USER@HOST:PORT with PGPASSWORD.",
)
@click.option(
    "--identity",
    type=click.Path(path_type=Path),
    help="age identity file, to restore what is encrypted.",
)
@place_options
def verify(
    *,
    selector: str,
    everything: bool,
    restore: bool,
    on: str,
    identity: Path | None,
    place: Place,
) -> int:
    """Read backups back and compare them with their manifests; --restore restores some too.

    Without SELECTOR the newest backup of everything is verified.
    """
    opened = open_places(place)
    deadline = Deadline.after(LIMIT_S, SystemClock())
    with shown() as progress, contextlib.ExitStack() as stack:
        readings = read_all(opened.repositories)
        found = matching([held for reading in readings for held in reading.backups], selector)
        chosen = found if everything else newest(found)
        into = None
        if restore and any(held.backup.manifest.kind == DUMP for held in chosen):
            from opsd.cli.servers import Means, scratch  # noqa: PLC0415 - loads psycopg

            means = Means(
                config=opened.config, deadline=deadline, progress=progress, identity=identity
            )
            into = stack.enter_context(scratch(on, means))
        proof = _Proof(
            opened,
            into=into,
            drills=restore,
            identity=identity,
            deadline=deadline,
            progress=progress,
        )
        proven = [proof.of(held) for held in chosen]
    if not chosen and not any(reading.error for reading in readings):
        raise PermanentError(f"no backup fits {selector}" if selector else "there are no backups")
    if wants_json():
        print_json(_as_json(proven, readings))
    else:
        _show(proven, readings)
    unread = any(reading.error for reading in readings)
    good = all(one.is_good for one in proven) and not unread
    return Exit.COMPLETED if good else Exit.FAILED


class _Proof:
    """How backups are proven in this call."""

    def __init__(
        self,
        opened: Opened,
        *,
        into: Into | None,
        drills: bool,
        identity: Path | None,
        deadline: Deadline,
        progress: Progress,
    ) -> None:
        self._opened = opened
        self._into = into
        self._drills = drills
        self._identity = identity
        self._deadline = deadline
        self._progress = progress

    def of(self, held: Held) -> Proven:
        """Prove one backup and keep what was found out."""
        try:
            verification = self._prove(held)
        except OpsdError as exc:
            return Proven(held=held, verification=None, error=describe(exc))
        repository = self._opened.named(held.repository)
        try:
            record_verification(repository, held.backup, verification)
        except OpsdError as exc:
            error = f"the result could not be kept: {describe(exc)}"
            return Proven(held=held, verification=verification, error=error)
        return Proven(held=held, verification=verification)

    def _prove(self, held: Held) -> Verification:
        repository, manifest = self._opened.named(held.repository), held.backup.manifest
        if self._into is not None and manifest.kind == DUMP:
            from opsd.backup.postgres.restore import drill  # noqa: PLC0415 - loads psycopg

            return drill(repository, manifest, self._into)
        if self._drills and manifest.kind == ETCD:
            from opsd.backup.etcd.restore import Means  # noqa: PLC0415 - loads the TLS client
            from opsd.cli.controlplanes import prove  # noqa: PLC0415 - likewise

            means = Means(
                identity=self._identity, deadline=self._deadline, progress=self._progress
            )
            return prove(repository, manifest, self._opened.config, means)
        if not manifest.key:
            from opsd.cli.shares import check_share  # noqa: PLC0415 - loads the engines

            return check_share(
                held.backup,
                repository,
                self._opened.config,
                deadline=self._deadline,
                progress=self._progress,
            )
        return verify_stored(
            repository, held.backup, deadline=self._deadline, progress=self._progress
        )


def _as_json(proven: Sequence[Proven], readings: Sequence[Reading]) -> dict[str, Any]:
    return {
        "verified": [
            {
                "subject": one.held.subject,
                "repository": one.held.repository,
                "key": one.held.backup.key,
                "ok": one.verification.ok if one.verification else None,
                "level": one.verification.level if one.verification else None,
                "detail": one.verification.detail if one.verification else "",
                "error": one.error,
            }
            for one in proven
        ],
        "unreadable": [
            {"repository": reading.repository.name, "error": reading.error}
            for reading in readings
            if reading.error
        ],
    }


def _show(proven: Sequence[Proven], readings: Sequence[Reading]) -> None:
    screen = Screen()
    titles = ("", "BACKUP", "SLOT", "PROVEN", "HOW", "WHERE")
    rows = [_row(one) for one in sorted(proven, key=lambda one: one.held.subject)]
    screen.table([Column(title, folds=title in ("BACKUP", "HOW")) for title in titles], rows)
    for reading in readings:
        if reading.error:
            told = f"could not tell what is in {reading.repository.name}: {reading.error}"
            screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)
    screen.line()
    bad = [one for one in proven if one.verification is not None and not one.verification.ok]
    unknown = [one for one in proven if one.verification is None]
    if bad:
        text = f"{count_text(len(bad), 'backup')} DAMAGED. Make a new one now: opsd run-job backup"
        screen.line(text, Tone.BAD)
    if unknown:
        screen.line(f"{count_text(len(unknown), 'backup')} could not be verified.", Tone.WARNING)
    if all(one.is_good for one in proven):
        screen.line(f"{count_text(len(proven), 'backup')} proven.", Tone.GOOD)


def _row(one: Proven) -> Row:
    verification = one.verification
    slot = stamp(one.held.slot)
    where, name = one.held.repository, name_text(one.held.subject)
    if verification is None:
        return (Cell("?", Tone.WARNING), name, slot, "could not tell", one.error, where)
    mark = Cell("✓", Tone.GOOD) if verification.ok else Cell("✗", Tone.BAD)
    words = LEVEL_WORDS[verification.level] if verification.ok else Cell("DAMAGED", Tone.BAD)
    detail = f"{verification.detail}; {one.error}" if one.error else verification.detail
    return (mark, name, slot, words, detail, where)
