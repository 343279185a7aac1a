"""`opsd backups restore`: the worst day, one command, nothing overwritten.

A database comes back under a new name or not at all; a share or a control plane comes back in a
new place; of volumes the manifests are written to a new file. At the end what was restored is
held against the manifest, and the difference is told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsd.backup import naming
from opsd.cli.backups import held_json
from opsd.cli.calling import Command, Exit, wants_json
from opsd.cli.places import Opened, Place, open_places, place_options, read_all
from opsd.cli.progress import shown
from opsd.cli.render import Screen, Tone, count_text, joined, name_text, print_json, time_text
from opsd.cli.selecting import Held, one_backup, parse_moment
from opsd.clock import Deadline, SystemClock
from opsd.errors import PermanentError, TransientError
from opsd.progress import Progress

if TYPE_CHECKING:
    from opsd.backup.postgres.restore import Into
    from opsd.backup.proof import Comparison

LIMIT_S = 7 * 86400.0  # terabytes on a slow line take days; more is a hang
SHOWN_DIFFERENCES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person wants back, and where to."""

    to: Path | None
    new_name: str
    server: str
    path: str
    roles: bool
    owners: bool
    identity: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What came back."""

    where: str
    comparison: Comparison | None = None  #: None for roles, which are not compared
    notes: tuple[str, ...] = ()


@click.command(cls=Command)
@click.argument("selector")
@click.option("--slot", default="", metavar="SLOT", help="This one, as listed: 20261122T030000Z.")
@click.option(
    "--at-time", metavar="TIME", help='The newest good one until then: "2026-11-22 03:00".'
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Share, control plane: the new, empty directory. Volumes: a new file for their "
    "manifests.",
)
@click.option(
    "--path",
    default="",
    metavar="PATH",
    help="Share: only this file or directory. Volumes: only NAMESPACE/CLAIM.",
)
@click.option("--as", "new_name", default="", metavar="NAME", help="Database: its new name.")
@click.option(
    "--server",
    default="",
    metavar="SERVER",
    help="Database, roles: the server, by its name in the configuration or as "
    "postgres://USER@HOST:PORT with PGPASSWORD.  [default: where it came from]",
)
@click.option("--roles", is_flag=True, help="Database: create the roles that are missing first.")
@click.option("--no-owner", is_flag=True, help="Database: without owners and grants.")
@click.option(
    "--identity", type=click.Path(path_type=Path), help="age identity file, if it is encrypted."
)
@place_options
def restore(
    *,
    selector: str,
    slot: str,
    at_time: str | None,
    to: Path | None,
    path: str,
    new_name: str,
    server: str,
    roles: bool,
    no_owner: bool,
    identity: Path | None,
    place: Place,
) -> int:
    """Get a database, roles, a share, a directory, a file, a volume or the control plane back.

    Nothing that exists is overwritten. SELECTOR is a subject such as database/main/shop; the
    newest good backup is taken.
    """
    wish = Wish(
        to=to,
        new_name=new_name,
        server=server,
        path=path,
        roles=roles,
        owners=not no_owner,
        identity=identity,
    )
    opened = open_places(place)
    until = parse_moment(at_time, opened.timezone) if at_time else None
    with shown() as progress:
        backups = _read(opened, progress)
        held = one_backup(backups, selector, slot=slot, until=until)
        restored = _Restore(opened, backups, wish, progress).of(held)
    _show(held, restored, opened)
    comparison = restored.comparison
    return Exit.COMPLETED if comparison is None or comparison.matches else Exit.FAILED


def _read(opened: Opened, progress: Progress) -> tuple[Held, ...]:
    progress.update("read the repositories")
    readings = read_all(opened.repositories)
    progress.finish("read the repositories")
    errors = [reading.error for reading in readings if reading.error]
    if len(errors) == len(readings):
        raise TransientError("; ".join(errors))
    return tuple(held for reading in readings for held in reading.backups)


class _Restore:
    """One restore."""

    def __init__(
        self, opened: Opened, backups: tuple[Held, ...], wish: Wish, progress: Progress
    ) -> None:
        self._opened = opened
        self._backups = backups
        self._wish = wish
        self._progress = progress
        self._deadline = Deadline.after(LIMIT_S, SystemClock())

    def of(self, held: Held) -> Restored:
        """Restore one backup by its kind.

        Raises:
            click.UsageError: an option was given that means nothing for this kind.
        """
        _refuse_useless(self._wish, held)
        match held.backup.manifest.kind:
            case "pg_dump":
                return self._database(held)
            case "pg_globals":
                return self._roles(held, self._server(held))
            case "restic" | "rsync":
                return self._share(held)
            case "pv_catalog":
                return self._volumes(held)
            case "etcd_snapshot":
                return self._control_plane(held)
        raise PermanentError(
            f"{held.backup.key}: this opsd cannot restore a {held.backup.manifest.kind}"
        )

    def _database(self, held: Held) -> Restored:
        from opsd.backup.postgres.restore import restore_database  # noqa: PLC0415 - loads psycopg

        into = self._server(held)
        notes: tuple[str, ...] = ()
        if self._wish.roles:
            notes = self._roles(self._roles_of(held), into).notes
        comparison = restore_database(
            self._opened.named(held.repository),
            held.backup.manifest,
            into,
            database=self._wish.new_name,
        )
        original = naming.unquote(held.subject.rpartition("/")[2])
        name = self._wish.new_name or original
        where = f"database {name} on server {into.server.name}"
        return Restored(where=where, comparison=comparison, notes=(*notes, *comparison.notes))

    def _share(self, held: Held) -> Restored:
        from opsd.backup.share.restore import restore_share  # noqa: PLC0415 - loads the engines
        from opsd.cli.shares import engine_of  # noqa: PLC0415 - likewise

        if self._wish.to is None:
            raise click.UsageError(f"{held.subject}: name a new directory with --to")
        manifest = held.backup.manifest
        repository = self._opened.named(held.repository)
        with engine_of(manifest, repository, self._opened.config) as engine:
            comparison = restore_share(
                engine,
                manifest,
                target=self._wish.to.absolute(),
                path=self._wish.path,
                deadline=self._deadline,
                progress=self._progress,
            )
        return Restored(where=str(self._wish.to), comparison=comparison, notes=comparison.notes)

    def _control_plane(self, held: Held) -> Restored:
        from opsd.backup.etcd.restore import Means, restore_control_plane  # noqa: PLC0415 - as above

        if self._wish.to is None:
            raise click.UsageError(f"{held.subject}: name a new directory with --to")
        comparison = restore_control_plane(
            self._opened.named(held.repository),
            held.backup.manifest,
            to=self._wish.to.absolute(),
            means=Means(
                identity=self._wish.identity, deadline=self._deadline, progress=self._progress
            ),
        )
        return Restored(where=str(self._wish.to), comparison=comparison, notes=comparison.notes)

    def _volumes(self, held: Held) -> Restored:
        to = self._wish.to
        if to is None:
            raise click.UsageError(f"{held.subject}: name a new file with --to")
        source, wanted = self._newest_with(held)
        try:
            with to.open("x", encoding="utf-8") as file:
                json.dump(wanted, file, indent=1)
        except OSError as exc:
            raise PermanentError(f"write {to}: {exc.strerror}; name a new file") from exc
        taken = time_text(source.slot, self._opened.timezone)
        return Restored(where=str(to), notes=(f"as of {taken}; next: kubectl create -f {to}",))

    def _newest_with(self, held: Held) -> tuple[Held, dict[str, Any]]:
        """What was asked for, of `held` or the newest before: after a loss, the last lacks it."""
        from opsd.cluster.volumes import catalogue  # noqa: PLC0415 - only when used

        older = [
            one
            for one in self._backups
            if (one.repository, one.subject) == (held.repository, held.subject)
            and one.slot < held.slot
        ]
        repository = self._opened.named(held.repository)
        for one in (held, *sorted(older, key=lambda one: one.slot, reverse=True)):
            content = b"".join(repository.read(one.backup.manifest.key))
            try:
                found = catalogue.decode(content, name=one.backup.key)
                return one, catalogue.only(found, self._wish.path)
            except catalogue.NotListed:
                continue
        raise PermanentError(f"no catalogue of {held.subject} has a claim {self._wish.path}")

    def _roles(self, held: Held, into: Into) -> Restored:
        from opsd.backup.postgres.roles import restore_globals  # noqa: PLC0415 - loads psycopg

        repository = self._opened.named(held.repository)
        done = restore_globals(repository, held.backup.manifest, into)
        notes = [f"created: {', '.join(done.created)}"] if done.created else []
        notes += [f"existed, left as they are: {', '.join(done.kept)}"] if done.kept else []
        return Restored(where=f"roles of server {into.server.name}", notes=(*notes, *done.notes))

    def _roles_of(self, held: Held) -> Held:
        """The roles of the server from which a database came, of about the same time."""
        subject = f"globals/{held.subject.split('/')[1]}"
        here = [one for one in self._backups if one.repository == held.repository]
        return one_backup(here, subject, until=held.slot)

    def _server(self, held: Held) -> Into:
        from opsd.cli.servers import Means, target  # noqa: PLC0415 - loads psycopg

        name = self._wish.server or naming.unquote(held.subject.split("/")[1])
        means = Means(
            config=self._opened.config,
            deadline=self._deadline,
            progress=self._progress,
            identity=self._wish.identity,
            owners=self._wish.owners,
        )
        return target(name, means)


def _refuse_useless(wish: Wish, held: Held) -> None:
    """An option that would be ignored is a misunderstanding; on the worst day it is told."""
    kind = held.backup.manifest.kind
    of_shares = {"--to": wish.to is not None, "--path": bool(wish.path)}
    of_servers = {"--server": bool(wish.server)}
    of_databases = {"--as": bool(wish.new_name), "--roles": wish.roles}
    useless = {
        "pg_dump": of_shares,
        "pg_globals": of_shares | of_databases,
        "restic": of_servers | of_databases,
        "rsync": of_servers | of_databases,
        "pv_catalog": of_servers | of_databases,
        "etcd_snapshot": of_servers | of_databases | {"--path": bool(wish.path)},
    }.get(kind, {})
    given = [option for option, is_given in useless.items() if is_given]
    if given:
        raise click.UsageError(f"{held.subject} is a {kind}: {joined(given)} means nothing for it")


def _show(held: Held, restored: Restored, opened: Opened) -> None:
    comparison = restored.comparison
    if wants_json():
        print_json(
            {
                "backup": held_json(held),
                "restored": restored.where,
                "matches": comparison.matches if comparison else None,
                "compared": comparison.compared if comparison else 0,
                "unit": comparison.unit if comparison else None,
                "differences": comparison.differences if comparison else (),
                "notes": restored.notes,
            }
        )
        return
    screen = Screen()
    taken = time_text(held.slot, opened.timezone)
    subject = name_text(held.subject)
    screen.line(f"{subject} as of {taken}, from {held.repository}, is back: {restored.where}.")
    for note in restored.notes:
        screen.detail(note, indent=0, mark="· ", tone=Tone.DIM)
    if comparison is None:
        return
    for difference in comparison.differences[:SHOWN_DIFFERENCES]:
        screen.detail(difference, indent=0, mark="✗ ", tone=Tone.BAD)
    screen.line(*_verdict(comparison))


def _verdict(comparison: Comparison) -> tuple[str, Tone]:
    compared = count_text(comparison.compared, comparison.unit.removesuffix("s"))
    if comparison.differences:
        number = count_text(len(comparison.differences), "difference")
        return f"{number} from what the manifest promises; {compared} compared.", Tone.BAD
    if not comparison.matches:
        return "Nothing could be compared with the manifest.", Tone.WARNING
    if comparison.nothing_promised:
        return "It was empty, and is.", Tone.GOOD
    return f"{compared} compared with the manifest: all as promised.", Tone.GOOD
