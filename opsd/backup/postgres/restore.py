"""Bring a database back, so that it is whole under its name or not there at all.

A restore goes into a new database under a scratch name. Only when pg_restore ended without
an error, and the rows were counted and held against the manifest, does it get its name. It
never touches a database that exists. A restore that fails drops what it began.

The stored bytes are read twice: once to see that they are what the manifest promises, before
anything is done to the server, and once to restore them. A damaged backup is so told within
the time of a download, and no disk has to hold a copy; the price is the second read.

Limits: pg_restore works on one table at a time, because it reads a stream. A database that
is restored into an older major version than it came from may lack what that version lacks.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from opsd.backup.catalog import read_back
from opsd.backup.manifest import Level, Manifest, Verification
from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.sealed import unseal
from opsd.backup.postgres.source import SCRATCH_PREFIX, DumpSource, dump_source, row_facts
from opsd.backup.proof import Comparison
from opsd.backup.repository import Repository
from opsd.backup.stream import opened
from opsd.clients.pginspect import ServerFacts, inspect
from opsd.clients.pgserver import (
    Postgres,
    Server,
    Session,
    StatementFailed,
    quote_identifier,
    quote_literal,
)
from opsd.clients.pgsnapshot import count_rows, open_snapshot
from opsd.clients.process import Process, complaint
from opsd.clock import Deadline
from opsd.errors import OpsdError, PermanentError, TransientError
from opsd.progress import Progress
from opsd.text import printable

log = structlog.get_logger()

CLEANUP_S = 30.0  # for dropping a scratch database, also when the deadline has passed
ADMIN_S = 120.0  # for one administrative statement; creating a database copies a template
MOST_NAMED = 5  # roles or extensions that an error names
TRANSACTION_TIMEOUT_SINCE = 17  # major version whose pg_restore sets transaction_timeout


class Damaged(PermanentError):
    """The stored bytes are not what the manifest promises; nothing was done to the server."""


class RestoreFailed(PermanentError):
    """pg_restore or the server rejected the archive; what was begun was dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Into:
    """The server that a restore goes to, and with what."""

    postgres: Postgres
    server: Server  #: with a role that may create databases and act for their owners
    tools: Sequence[pgtools.Tools]
    deadline: Deadline
    progress: Progress
    identity: Path | None = None  #: age identity file, for what is encrypted
    owners: bool = True  #: give objects their owners and grants; the roles must exist


def restore_database(
    repository: Repository, manifest: Manifest, into: Into, *, database: str = ""
) -> Comparison:
    """Restore a dump into a new database and hold it against the manifest.

    Args:
        repository: where the dump is.
        manifest: of kind ``pg_dump``.
        into: the server.
        database: the new database's name; empty: the name that it had.

    The database gets its name also when rows differ; the comparison says which.

    Raises:
        Damaged: the backup is not what it was.
        RestoreFailed: it cannot be restored there; nothing was left behind.
        PermanentError: the name is taken, a role, extension or program is missing.
        TransientError, DeadlineExceeded: the server or repository failed on the way.
    """
    source = dump_source(manifest)
    name = database or source.database
    restore = _Restore(repository, manifest, source, into)
    with into.postgres.connect(into.server, within_s=restore.within()) as session:
        facts = inspect(session)
        _refuse_taken(name, facts, into.server)
        _refuse_missing(session, source, facts, into)
    with restore.scratch(facts) as scratch:
        comparison = restore.compare(scratch)
        restore.adopt(scratch, name)
    return replace(comparison, notes=(*restore.notes, *comparison.notes))


def drill(repository: Repository, manifest: Manifest, into: Into) -> Verification:
    """Restore a dump into a scratch database, compare, and drop it.

    Owners and grants are left out, so the server needs none of the roles.

    Raises:
        PermanentError: the server lacks an extension or program: nothing is known.
        TransientError, DeadlineExceeded: likewise, something failed on the way.
    """
    source = dump_source(manifest)
    into = replace(into, owners=False)
    restore = _Restore(repository, manifest, source, into)
    with into.postgres.connect(into.server, within_s=restore.within()) as session:
        facts = inspect(session)
        _refuse_missing(session, source, facts, into)
    try:
        with restore.scratch(facts) as scratch:
            comparison = restore.compare(scratch)
    except (Damaged, RestoreFailed) as exc:
        return _verdict(into, str(exc), ok=False)
    if comparison.differences:
        return _verdict(into, "; ".join(comparison.differences), ok=False)
    detail = f"restored into PostgreSQL {facts.version}, {comparison.compared} tables compared"
    return _verdict(into, detail, ok=True)


def _verdict(into: Into, detail: str, *, ok: bool) -> Verification:
    now = into.deadline.clock.now()
    return Verification(level=Level.RESTORED.label, at=now, ok=ok, detail=detail)


def _refuse_taken(name: str, facts: ServerFacts, server: Server) -> None:
    if any(database.name == name for database in facts.databases):
        raise PermanentError(
            f"restore to server {server.name}: a database {printable(name)} exists and is not"
            " touched; restore under another name, or rename the old one first: ALTER DATABASE"
            f" {quote_identifier(name)} RENAME TO ..."
        )


def _refuse_missing(session: Session, source: DumpSource, facts: ServerFacts, into: Into) -> None:
    """Say what the server lacks, all at once, before anything is read."""
    available = {row[0] for row in session.query("SELECT name FROM pg_available_extensions")}
    extensions = [name for name in source.extensions if name not in available]
    if extensions:
        raise PermanentError(
            f"restore to server {into.server.name}: extensions are not installed there:"
            f" {', '.join(extensions)}; install their packages for PostgreSQL {facts.major}"
        )
    roles = sorted({*source.roles, source.owner} - set(facts.roles))
    if into.owners and roles:
        raise PermanentError(
            f"restore to server {into.server.name}: roles are missing there:"
            f" {printable(', '.join(roles[:MOST_NAMED]))}; restore the roles first, or restore"
            " without owners"
        )


class _Restore:
    """One restore on its way."""

    def __init__(
        self, repository: Repository, manifest: Manifest, source: DumpSource, into: Into
    ) -> None:
        self._repository = repository
        self._manifest = manifest
        self._source = source
        self._into = into
        self._step = f"restore {into.server.name}/{printable(source.database)}"
        self.notes: list[str] = []

    def within(self) -> float:
        """Seconds for a few administrative statements."""
        return min(ADMIN_S, self._into.deadline.remaining())

    @contextlib.contextmanager
    def scratch(self, facts: ServerFacts) -> Iterator[str]:
        """Restore into a new database with a scratch name; dropped if it still has it."""
        self._verify()
        name = f"{SCRATCH_PREFIX}{secrets.token_hex(6)}"
        try:
            self._create(name)
            self._fill(name, facts)
            yield name
        finally:
            self._into.progress.finish(self._step)
            self._drop(name)

    def compare(self, database: str) -> Comparison:
        """Count every row of `database` and hold it against the manifest."""
        into, source = self._into, self._source
        within_s = into.deadline.remaining()
        with open_snapshot(into.postgres, into.server, database, within_s=within_s) as snapshot:
            found = row_facts(
                count_rows(
                    snapshot.session,
                    snapshot.contents.tables,
                    budget_s=within_s,
                    clock=into.deadline.clock,
                )
            )
            large_objects = snapshot.contents.large_objects
        return compared(source, found, large_objects=large_objects)

    def adopt(self, scratch: str, name: str) -> None:
        """Let a restored database be what it was, under its name."""
        into, source = self._into, self._source
        within_s = into.deadline.remaining()
        with into.postgres.connect(into.server, scratch, within_s=within_s) as session:
            session.query("ANALYZE")
        quoted = quote_identifier(name)
        with into.postgres.connect(into.server, within_s=self.within()) as session:
            if into.owners:
                owner = quote_identifier(source.owner)
                session.query(f"ALTER DATABASE {quote_identifier(scratch)} OWNER TO {owner}")
            session.query(f"ALTER DATABASE {quote_identifier(scratch)} RENAME TO {quoted}")
            sealed = unseal(source.sealed_settings, into.identity)
            for role, setting, value in (*source.settings, *sealed):
                self._set(session, quoted, role, setting, value)

    def _verify(self) -> None:
        manifest, into = self._manifest, self._into
        verdict = read_back(
            self._repository,
            manifest.key,
            size_bytes=manifest.size_bytes,
            sha256=manifest.sha256,
            deadline=into.deadline,
            progress=into.progress,
        )
        if not verdict.ok:
            raise Damaged(
                f"repository {self._repository.name}: {manifest.key}: {verdict.detail};"
                " restore another backup"
            )

    def _create(self, name: str) -> None:
        source, into = self._source, self._into
        create = (
            f"CREATE DATABASE {quote_identifier(name)} TEMPLATE template0"
            f" ENCODING {quote_literal(source.encoding)}"
        )
        with into.postgres.connect(into.server, within_s=self.within()) as session:
            try:
                session.query(create + _locale(source))
            except StatementFailed as exc:
                session.query(f"{create} LOCALE 'C'")
                self.notes.append(
                    f"locale {source.locale or source.collation} is not usable on this server,"
                    f" the database sorts by C instead: {exc}"
                )

    def _fill(self, name: str, facts: ServerFacts) -> None:
        into, source = self._into, self._source
        tools = pgtools.for_restore(
            into.tools, dumped_with=_major(source.client_version), server_major=facts.major
        )
        trap = tools.major >= TRANSACTION_TIMEOUT_SINCE > facts.major
        argv = [tools.program("pg_restore"), "--no-password", f"--dbname={pgtools.KEEPALIVE}"]
        argv[-1] += f" dbname={name}"  # our own name: letters, digits and underscores
        if not trap:
            argv.append("--exit-on-error")
        if not into.owners:
            argv += ["--no-owner", "--no-privileges", "--no-subscriptions"]
        with (
            pgtools.environment(into.server, name) as env,
            Process(argv, deadline=into.deadline, env=env, stdin=True) as process,
        ):
            self._feed(process)
            returncode = process.wait()
            if returncode != 0 and not (trap and _is_trap_only(process.stderr)):
                raise _failed(process.stderr, returncode, into.server, source.database)

    def _feed(self, process: Process) -> None:
        """Stream the archive into pg_restore until it has enough."""
        into, manifest = self._into, self._manifest

        def report(done: int) -> None:
            into.deadline.remaining()
            into.progress.update(self._step, done=done, total=manifest.size_bytes)

        with contextlib.suppress(BrokenPipeError):  # its exit status tells why
            opened(
                self._repository,
                manifest,
                process.write,
                identity=into.identity,
                report=report,
            )
        process.close_stdin()

    def _set(self, session: Session, quoted: str, role: str, setting: str, value: str) -> None:
        """Repeat one ALTER DATABASE ... SET, in the server's own quoting of the value."""
        whose = f"ROLE {quote_identifier(role)} IN DATABASE {quoted}" if role else ""
        try:
            session.query("BEGIN")
            session.query("SELECT set_config(%s, %s, true)", setting, value)
            session.query(
                f"ALTER {whose or f'DATABASE {quoted}'} SET {_parameter(setting)} FROM CURRENT"
            )
            session.query("COMMIT")
        except StatementFailed as exc:
            session.query("ROLLBACK")
            self.notes.append(f"setting {setting} was not restored: {exc}")

    def _drop(self, name: str) -> None:
        into = self._into
        try:
            with into.postgres.connect(into.server, within_s=CLEANUP_S) as session:
                session.query(f"DROP DATABASE IF EXISTS {quote_identifier(name)} WITH (FORCE)")
        except OpsdError as exc:
            log.warning("scratch_database.left_behind", database=name, error=str(exc))


def compared(
    source: DumpSource,
    found: dict[str, tuple[int | None, bool]],
    *,
    large_objects: int,
) -> Comparison:
    """Hold what a restored database has against what its dump promised. Pure."""
    differences, notes, tables = [], [], 0
    for table, (promised, exact) in sorted(source.rows.items()):
        if table not in found:
            differences.append(f"{printable(table)}: missing")
        elif not exact:
            notes.append(f"{printable(table)}: was not counted when it was dumped")
        else:
            tables += 1
            rows = found[table][0]
            if rows != promised:
                differences.append(f"{printable(table)}: {rows} rows, {promised} promised")
    differences += [
        f"{printable(table)}: not in the manifest"
        for table in sorted(found.keys() - source.rows.keys())
    ]
    if large_objects != source.large_objects:
        differences.append(f"{large_objects} large objects, {source.large_objects} promised")
    notes += [f"the dump lacks {missing}" for missing in source.partial]
    return Comparison(
        unit="tables",
        compared=tables,
        nothing_promised=not source.rows,
        differences=tuple(differences),
        notes=tuple(notes),
    )


def _locale(source: DumpSource) -> str:
    text = f" LC_COLLATE {quote_literal(source.collation)}"
    text += f" LC_CTYPE {quote_literal(source.character_type)}"
    option = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(source.locale_provider)
    if option:
        text += f" LOCALE_PROVIDER {source.locale_provider} {option} "
        text += quote_literal(source.locale)
    return text


def _major(version: str) -> int:
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


def _parameter(setting: str) -> str:
    """A parameter's name in SQL; extensions' have two parts."""
    return ".".join(quote_identifier(part) for part in setting.split("."))


def _is_trap_only(stderr: str) -> bool:
    """Whether the only error was a parameter that the older server does not know."""
    return "transaction_timeout" in stderr and "errors ignored on restore: 1\n" in stderr + "\n"


# Errors of pg_restore that say nothing about the archive.
_NOT_THE_ARCHIVE = re.compile(
    r"no space left|could not extend file|connection to server|closed the connection"
    r"|terminating connection|too many|out of memory|permission denied|must be",
    re.IGNORECASE,
)


def _failed(stderr: str, returncode: int, server: Server, database: str) -> OpsdError:
    """What stopped pg_restore, as an error of the archive or of the server."""
    prefix = "pg_restore: error: "
    errors = [line for line in stderr.splitlines() if line.startswith(prefix)]
    said = errors[0].removeprefix(prefix) if errors else complaint(stderr, returncode)
    text = f"restore {printable(database)} to server {server.name}: pg_restore: {printable(said)}"
    if returncode < 0 or _NOT_THE_ARCHIVE.search(said):
        return TransientError(text)
    return RestoreFailed(text)
