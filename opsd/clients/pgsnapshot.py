"""Hold a database still, so that what is counted is exactly what pg_dump writes.

The snapshot is exported; pg_dump reads through it while the rows of every table are counted
in the same snapshot. Whatever the applications do meanwhile, both see one state. Restored
data can therefore be compared row by row count, exactly.

Limits: counting stops when its time budget is used up; what is left gets the planner's
estimate, marked as such. An open snapshot keeps VACUUM from removing rows deleted since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from opsd.clients.pginspect import Contents, Table, contents
from opsd.clients.pgserver import Postgres, Server, Session, StatementFailed, StatementTimeout
from opsd.clock import Clock

CATALOG_S = 300  # for one query of the catalog

# Timeouts that a role or database may have set and that would end the snapshot early.
_NO_TIMEOUTS = """
SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN
    ('idle_in_transaction_session_timeout', 'transaction_timeout',
     'idle_session_timeout', 'max_parallel_workers_per_gather')
"""
# Rather an error than rows that a policy hides from us.
_SEE_ALL = "SET row_security = off"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """How many rows a table had."""

    rows: int | None  #: None: not counted and never analysed
    exact: bool  #: counted in the dump's own snapshot; else the planner's estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One state of one database, usable by other connections while it is open."""

    session: Session  #: the connection that holds it
    identifier: str  #: for ``pg_dump --snapshot``
    taken_at: datetime  #: the server's clock, aware UTC
    contents: Contents


@contextlib.contextmanager
def open_snapshot(
    postgres: Postgres, server: Server, database: str, *, within_s: float
) -> Iterator[Snapshot]:
    """Export a snapshot of `database`; it is held until the context ends.

    Raises:
        TransientError, PermanentError: as `Postgres.connect` and `Session.query`.
    """
    with postgres.connect(server, database, within_s=within_s) as session:
        session.query(_NO_TIMEOUTS)
        session.query(_SEE_ALL)
        session.query(f"SET statement_timeout = '{CATALOG_S}s'")
        session.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        identifier, taken_at = session.query("SELECT pg_export_snapshot(), now()")[0]
        yield Snapshot(
            session=session,
            identifier=identifier,
            taken_at=taken_at.astimezone(UTC),
            contents=contents(session),
        )


def count_rows(
    session: Session, tables: Iterable[Table], *, budget_s: float, clock: Clock
) -> dict[str, RowCount]:
    """Count `tables` in the session's transaction, in their order, for `budget_s` seconds.

    Raises:
        TransientError: the connection broke or was cut.
    """
    ends_at = clock.monotonic() + budget_s
    counts = {}
    for table in tables:
        remaining_ms = int((ends_at - clock.monotonic()) * 1000)
        exact = _count(session, table, remaining_ms) if remaining_ms > 0 else None
        counts[table.name] = RowCount(
            rows=table.estimate if exact is None else exact, exact=exact is not None
        )
    return counts


def _count(session: Session, table: Table, within_ms: int) -> int | None:
    """The exact number of rows, or None when it cannot be had in time or at all."""
    try:
        with session.savepoint():
            session.query("SELECT set_config('statement_timeout', %s, true)", str(within_ms))
            # ONLY: the rows of inheriting tables are counted with those tables.
            return int(session.query(f"SELECT count(*) FROM ONLY {table.sql}")[0][0])  # noqa: S608 - quoted
    except (StatementTimeout, StatementFailed):
        return None
