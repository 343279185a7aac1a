"""Dump one database, or the roles of one server, so that the dump is whole or is not there.

pg_dump reads through a snapshot in which every row is counted meanwhile, so a restore can be
held against exact numbers. What pg_dump would stumble over is looked for first, and told
with the SQL that mends it.

Limits: pg_dump reads one table after another, so one huge table takes as long as it takes.
Subscriptions are dumped for superusers only; pg_dump leaves them out otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from opsd.backup.delivery import Delivery, Order, Source, deliver
from opsd.backup.naming import subject
from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.sealed import seal
from opsd.backup.postgres.source import PG_DUMP, PG_GLOBALS, DumpSource, GlobalsSource, row_facts
from opsd.backup.postgres.source import to_builtins as facts_of
from opsd.backup.postgres.tools import Tools
from opsd.backup.repository import Repository
from opsd.backup.stream import (
    ArchiveCheck,
    ScriptCheck,
    SourceFailed,
    Write,
    output_of,
    pump,
)
from opsd.clients.pginspect import Contents, Database, ServerFacts
from opsd.clients.pgserver import CONNECT_TIMEOUT_S, Postgres, Server, quote_identifier
from opsd.clients.pgsnapshot import RowCount, Snapshot, count_rows, open_snapshot
from opsd.clients.process import Process
from opsd.clock import Deadline
from opsd.errors import PermanentError, TransientError
from opsd.progress import Progress
from opsd.text import printable, storable

MOST_NAMED = 5  # tables that an error names; the remedy covers all
HEX_GROWTH = 2  # COPY writes bytea as hexadecimal digits: twice the bytes, at most


class RightsMissing(PermanentError):
    """The role cannot read everything; `remedy` is the SQL that changes it."""

    def __init__(self, place: str, *, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.reason = reason
        self.remedy = remedy


class DumpFailed(TransientError):
    """pg_dump did not end well, and nothing of it was kept."""

    def __init__(self, place: str, *, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What is the same for all dumps of a run."""

    postgres: Postgres
    tools: Tools
    repositories: Sequence[Repository]
    recipients: Sequence[str]  #: age public keys; empty: not encrypted
    slot: datetime
    run_id: str
    lock_wait_s: float  #: how long pg_dump waits for a locked table
    count_budget_s: float  #: for counting one database; then estimates
    skip_large_objects: bool
    deadline: Deadline
    progress: Progress


def database_subject(server: Server, database: str) -> str:
    """``database/main/app``: also the prefix of the series' keys."""
    return subject("database", server.name, database)


def globals_subject(server: Server) -> str:
    """``globals/main``."""
    return subject("globals", server.name)


def dump_database(
    server: Server, facts: ServerFacts, database: Database, how: How, *, expected_bytes: int = 0
) -> Delivery:
    """Dump one database into every repository of `how`.

    Args:
        server: where it is.
        facts: the server, as `inspect` saw it.
        database: one of `facts.databases`.
        how: everything else.
        expected_bytes: size of the last dump, for the progress only; 0 when unknown.

    Raises:
        RightsMissing: the role cannot read all of it; nothing was dumped.
        DumpFailed: pg_dump did not end well; nothing was kept.
        Incomplete: pg_restore cannot read what pg_dump wrote; nothing was kept.
        TransientError, PermanentError: the server cannot be talked to.
        DeadlineExceeded: there was no time to end it.
    """
    dump = _Dump(server, facts, database, how, expected_bytes)
    order = _order(
        how,
        kind=PG_DUMP,
        subject=database_subject(server, database.name),
        suffix=".dump",
        size_hint=HEX_GROWTH * database.size_bytes,
    )
    return deliver(order, dump.produce)


def dump_globals(server: Server, facts: ServerFacts, how: How) -> Delivery:
    """Dump the roles and tablespaces of a server; raises as `dump_database` does.

    Password hashes are in it when the role may read them; the manifest says whether.
    """
    order = _order(
        how, kind=PG_GLOBALS, subject=globals_subject(server), suffix=".sql", size_hint=0
    )
    return deliver(order, partial(_produce_globals, server, facts, how))


def _order(how: How, *, kind: str, subject: str, suffix: str, size_hint: int) -> Order:
    return Order(
        kind=kind,
        subject=subject,
        slot=how.slot,
        run_id=how.run_id,
        suffix=suffix,
        repositories=how.repositories,
        recipients=how.recipients,
        size_hint=size_hint,
        deadline=how.deadline,
        progress=how.progress,
    )


class _Dump:
    """One pg_dump and what surrounds it."""

    def __init__(
        self,
        server: Server,
        facts: ServerFacts,
        database: Database,
        how: How,
        expected_bytes: int,
    ) -> None:
        self._server = server
        self._facts = facts
        self._database = database
        self._how = how
        self._expected_bytes = expected_bytes
        self._step = f"dump {server.name}/{printable(database.name)}"

    def produce(self, write: Write) -> Source:
        how = self._how
        try:
            with open_snapshot(
                how.postgres,
                self._server,
                self._database.name,
                within_s=how.deadline.remaining(),
            ) as snapshot:
                self._refuse_partial(snapshot.contents)
                method = pgtools.compression(how.tools, deadline=how.deadline)
                argv = self._argv(snapshot, method)
                counts = self._dump_and_count(argv, snapshot, write)
        finally:
            how.progress.finish(self._step)
        return facts_of(self._source(snapshot, argv, method, counts))

    def _dump_and_count(
        self, argv: Sequence[str], snapshot: Snapshot, write: Write
    ) -> Mapping[str, RowCount]:
        how, clock = self._how, self._how.deadline.clock
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="count") as pool:
            counting = pool.submit(
                count_rows,
                snapshot.session,
                snapshot.contents.tables,
                budget_s=min(how.count_budget_s, how.deadline.remaining()),
                clock=clock,
            )
            try:
                self._dump(argv, write)
            except BaseException:
                snapshot.session.cut()  # else the pool would wait for the counting
                raise
            return counting.result()

    def _dump(self, argv: Sequence[str], write: Write) -> None:
        how = self._how
        with pgtools.environment(self._server, self._database.name) as env:
            program = [how.tools.program("pg_dump"), *argv[1:]]
            with Process(program, deadline=how.deadline, env=env) as process:
                try:
                    self._pump(process, write)
                except SourceFailed as exc:
                    raise _explained(exc, "pg_dump", self._server, self._database.name) from exc

    def _pump(self, process: Process, write: Write) -> None:
        done = 0

        def counted(chunk: bytes) -> None:
            nonlocal done
            write(chunk)
            done += len(chunk)
            total = self._expected_bytes or None
            self._how.progress.update(self._step, done=done, total=total)

        pg_restore = self._how.tools.program("pg_restore")
        with ArchiveCheck(pg_restore, deadline=self._how.deadline) as check:
            pump(output_of(process, check=check), counted, recipients=self._how.recipients)

    def _refuse_partial(self, contents: Contents) -> None:
        """Say what pg_dump would fail on, all at once."""
        role = quote_identifier(self._facts.role)
        where = f"database {printable(self._database.name)} on server {self._server.name}"
        hidden = [table.name for table in contents.tables if table.row_security]
        if contents.unreadable:
            remedy = f"GRANT pg_read_all_data TO {role};"
            raise RightsMissing(
                where,
                reason=f"role {role} cannot read {_some(contents.unreadable)}",
                remedy=contents.grants[0] if self._facts.reads_all_data else remedy,
            )
        if hidden:
            raise RightsMissing(
                where,
                reason=f"row-level security hides rows of {_some(hidden)} from role {role}",
                remedy=f"ALTER ROLE {role} BYPASSRLS;",
            )
        if contents.unreadable_large_objects and not self._how.skip_large_objects:
            raise RightsMissing(
                where,
                reason=f"role {role} cannot read {contents.unreadable_large_objects}"
                f" of {contents.large_objects} large objects",
                remedy=f"let their owner grant SELECT to {role} (docs/postgres.md), dump as a"
                ' superuser, or set large_objects = "skip"',
            )

    def _argv(self, snapshot: Snapshot, method: str) -> tuple[str, ...]:
        tools = self._how.tools
        options = [
            "--format=custom",
            pgtools.compress_option(tools, method),
            f"--dbname={pgtools.KEEPALIVE}",  # the name itself comes from the environment
            f"--snapshot={snapshot.identifier}",
            f"--lock-wait-timeout={int(self._how.lock_wait_s * 1000)}",
            "--no-password",
        ]
        if self._how.skip_large_objects:
            options.append("--no-blobs")
        if tools.major != self._facts.major:
            options.append("--quote-all-identifiers")  # its keywords are not the server's
        return ("pg_dump", *options)

    def _source(
        self,
        snapshot: Snapshot,
        argv: tuple[str, ...],
        method: str,
        counts: Mapping[str, RowCount],
    ) -> DumpSource:
        database, contents, tools = self._database, snapshot.contents, self._how.tools
        recipients = self._how.recipients
        skipped = contents.large_objects if self._how.skip_large_objects else 0
        return DumpSource(
            server=self._server.name,
            server_version=self._facts.version,
            client_version=tools.version,
            database=storable(database.name),
            owner=storable(database.owner),
            encoding=database.encoding,
            collation=database.collation,
            character_type=database.character_type,
            locale_provider=database.locale_provider,
            locale=database.locale,
            database_size_bytes=database.size_bytes,
            extensions=dict(contents.extensions),
            roles=tuple(storable(role) for role in contents.roles),
            settings=() if recipients else contents.settings,
            sealed_settings=seal(contents.settings, recipients) if recipients else "",
            large_objects=contents.large_objects - skipped,
            rows=row_facts(counts),
            snapshot_at=snapshot.taken_at,
            command=argv,
            compression=method,
            partial=(f"{skipped} large objects",) if skipped else (),
            client_is_newer=tools.major > self._facts.major,
        )


def _produce_globals(server: Server, facts: ServerFacts, how: How, write: Write) -> Source:
    argv = ["pg_dumpall", "--globals-only", "--no-password", f"--dbname={pgtools.KEEPALIVE}"]
    argv.append(f"--database={pgtools.conninfo(server.maintenance_database)}")
    if not facts.reads_password_hashes:
        argv.append("--no-role-passwords")
    with pgtools.environment(server, server.maintenance_database) as env:
        program = [how.tools.program("pg_dumpall"), *argv[1:]]
        with Process(program, deadline=how.deadline, env=env) as process, ScriptCheck() as check:
            try:
                pump(output_of(process, check=check), write, recipients=how.recipients)
            except SourceFailed as exc:
                if "could not connect" in exc.stderr:
                    _connect(server, how)  # pg_dumpall keeps the reason to itself; this tells
                raise _explained(exc, "pg_dumpall", server, server.maintenance_database) from exc
    return facts_of(
        GlobalsSource(
            server=server.name,
            server_version=facts.version,
            client_version=how.tools.version,
            roles=tuple(storable(role) for role in facts.roles),
            passwords=facts.reads_password_hashes,
            command=tuple(argv),
        )
    )


def _connect(server: Server, how: How) -> None:
    within_s = min(CONNECT_TIMEOUT_S, how.deadline.remaining())
    with how.postgres.connect(server, within_s=within_s):
        pass


# What a failed pg_dump says, and what to do about it.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"server version mismatch", "install the client of the server's version"),
    (r"row-level security", "ALTER ROLE <role> BYPASSRLS; see docs/postgres.md"),
    (r"permission denied", "GRANT pg_read_all_data TO <role>; see docs/postgres.md"),
    (
        r"canceling statement due to (statement|lock) timeout",
        "a table stayed locked longer than lock_wait; who holds it: docs/postgres.md#locks",
    ),
    (
        r"snapshot",
        "host must be the server itself, not a connection pooler",
    ),
    (r"signal 9", "something killed pg_dump: out of memory? dmesg | grep -i oom"),
    (r"(closed the connection|terminating connection|connection to server)", "see its log"),
)


def _explained(exc: SourceFailed, program: str, server: Server, database: str) -> DumpFailed:
    """The first error of the program, with what to do about it."""
    prefix = f"{program}: error: "
    errors = [line for line in exc.stderr.splitlines() if line.startswith(prefix)]
    said = printable(errors[0].removeprefix(prefix)) if errors else printable(str(exc))
    remedy = next((text for sign, text in _REMEDIES if re.search(sign, f"{said} {exc}")), "")
    return DumpFailed(
        f"server {server.name}, database {printable(database)}",
        reason=f"{program}: {said}",
        remedy=remedy or f"see the log of server {server.name}",
    )


def _some(names: Sequence[str]) -> str:
    named = ", ".join(printable(name) for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
