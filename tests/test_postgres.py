"""The client on real servers: bounded, and clear about what is wrong."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from opsd.clients.pginspect import contents
from opsd.clients.pgserver import (
    Server,
    StatementFailed,
    StatementTimeout,
    quote_identifier,
    quote_literal,
    readable_identifier,
)
from opsd.clients.pgsnapshot import RowCount, count_rows, open_snapshot
from opsd.clients.postgres import PsycopgPostgres
from opsd.clock import SystemClock
from opsd.errors import TransientError
from tests.rig import dumps
from tests.rig.postgres import PgServer

pytestmark = pytest.mark.real
HOSTILE = ("plain", 'with "quotes"', "it's", "back\\slash", "new\nline", "ä 🦀", "user", "%s")


@pytest.fixture
def server(pg: PgServer, tmp_path: Path) -> Server:
    return dumps.server_of(pg, tmp_path)


@pytest.mark.parametrize("name", HOSTILE)
def test_quoted_names_and_texts_mean_themselves(server: Server, name: str) -> None:
    with PsycopgPostgres().connect(server, within_s=20) as session:
        session.query(f"CREATE TEMP TABLE {quote_identifier(name)} (a int)")
        [(found,)] = session.query(
            "SELECT relname FROM pg_class WHERE relname = "  # noqa: S608 - what is tested
            + quote_literal(name)
        )

    assert found == name


@pytest.mark.parametrize(
    ("name", "readable"),
    [("users", "users"), ("user", "user"), ("Users", '"Users"'), ('a"b', '"a""b"')],
)
def test_readable_names_do_not_depend_on_keywords(name: str, readable: str) -> None:
    assert readable_identifier(name) == readable


def test_a_statement_that_is_too_slow_is_cut_off_at_the_clients_side(server: Server) -> None:
    with (
        PsycopgPostgres().connect(server, within_s=1) as session,
        pytest.raises(TransientError, match="no answer in time"),
    ):
        session.query("SELECT pg_sleep(60)")


def test_a_frozen_backend_does_not_hang_the_client(own_pg: PgServer, tmp_path: Path) -> None:
    frozen = dumps.server_of(own_pg, tmp_path)
    with PsycopgPostgres().connect(frozen, within_s=2) as session:
        [(pid,)] = session.query("SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(TransientError, match="no answer in time"):
                session.query("SELECT 1")
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_session_is_cut_from_another_thread(server: Server) -> None:
    with PsycopgPostgres().connect(server, within_s=60) as session:
        threading.Timer(0.2, session.cut).start()

        with pytest.raises(TransientError, match="cut"):
            session.query("SELECT pg_sleep(60)")


def test_a_savepoint_keeps_the_transaction_alive(server: Server) -> None:
    with PsycopgPostgres().connect(server, within_s=20) as session:
        session.query("BEGIN")

        with pytest.raises(StatementFailed) as caught, session.savepoint():
            session.query("SELECT 1 / 0")

        assert caught.value.state == "22012"
        assert session.query("SELECT 1") == [(1,)]


def test_a_statement_timeout_is_told_apart(server: Server) -> None:
    with PsycopgPostgres().connect(server, within_s=20) as session:
        session.query("SET statement_timeout = '100ms'")

        with pytest.raises(StatementTimeout, match="server main, database postgres"):
            session.query("SELECT pg_sleep(60)")


def test_an_error_names_no_password(server: Server) -> None:
    with (
        PsycopgPostgres().connect(server, within_s=20) as session,
        pytest.raises(StatementFailed) as caught,
    ):
        session.query("ALTER ROLE gone_role WITH PASSWORD 'canary-value'")

    assert "canary-value" not in str(caught.value)
    assert "gone_role" in str(caught.value)


def test_counts_are_those_of_the_snapshot_whatever_happens_meanwhile(
    pg: PgServer, server: Server
) -> None:
    database = pg.fresh_database()
    pg.execute("CREATE TABLE t AS SELECT generate_series(1, 100) AS a", database)
    with open_snapshot(PsycopgPostgres(), server, database, within_s=30) as snapshot:
        pg.execute("INSERT INTO t SELECT 1 FROM generate_series(1, 50)", database)

        found = count_rows(
            snapshot.session, snapshot.contents.tables, budget_s=20, clock=SystemClock()
        )

    assert found == {"public.t": RowCount(rows=100, exact=True)}


def test_beyond_the_budget_there_are_estimates_and_the_snapshot_lives_on(
    pg: PgServer, server: Server
) -> None:
    database = pg.fresh_database()
    pg.execute("CREATE TABLE known AS SELECT generate_series(1, 500) AS a", database)
    pg.execute("ANALYZE known; CREATE TABLE unknown (a int)", database)
    with open_snapshot(PsycopgPostgres(), server, database, within_s=30) as snapshot:
        found = count_rows(
            snapshot.session, snapshot.contents.tables, budget_s=0, clock=SystemClock()
        )
        alive = snapshot.session.query("SELECT count(*) FROM known")

    assert found == {
        "public.known": RowCount(rows=500, exact=False),
        "public.unknown": RowCount(rows=None, exact=False),
    }
    assert alive == [(500,)]


def test_a_count_that_takes_too_long_becomes_an_estimate(pg: PgServer, server: Server) -> None:
    database = pg.fresh_database()
    pg.execute("CREATE TABLE t AS SELECT generate_series(1, 500) AS a; ANALYZE t", database)
    with (
        open_snapshot(PsycopgPostgres(), server, database, within_s=30) as snapshot,
        pg.connect(database, autocommit=False) as holder,
    ):
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

        found = count_rows(
            snapshot.session, snapshot.contents.tables, budget_s=0.5, clock=SystemClock()
        )

    assert found == {"public.t": RowCount(rows=500, exact=False)}


def test_looking_at_a_database_waits_for_no_lock(pg: PgServer, server: Server) -> None:
    database = pg.fresh_database()
    pg.execute(dumps.SAMPLE, database)
    with (
        pg.connect(database, autocommit=False) as holder,
        PsycopgPostgres().connect(server, database, within_s=20) as session,
    ):
        holder.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")

        assert {table.name for table in contents(session).tables} == set(dumps.ROWS)


def test_timeouts_of_the_role_do_not_end_a_snapshot(empty_pg: PgServer, tmp_path: Path) -> None:
    empty_pg.execute("CREATE ROLE hurried SUPERUSER LOGIN PASSWORD 'hurried'")
    empty_pg.execute("ALTER ROLE hurried SET idle_in_transaction_session_timeout = '200ms'")
    empty_pg.execute("ALTER ROLE hurried SET transaction_timeout = '200ms'")
    empty_pg.execute("ALTER ROLE hurried SET statement_timeout = '200ms'")
    server = dumps.server_of(empty_pg, tmp_path, user="hurried", password="hurried")

    with open_snapshot(PsycopgPostgres(), server, "postgres", within_s=30) as snapshot:
        found = snapshot.session.query("SELECT 1 FROM pg_sleep(0.5)")

    assert found == [(1,)]
