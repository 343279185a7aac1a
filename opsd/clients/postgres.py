"""Talk to a PostgreSQL server without hanging on it, and say what is wrong in plain words.

libpq waits for ever on a server that is frozen, and its errors do not say which server, nor
what to do. Here every connection has a fuse: when the time is over its socket is cut, from
another thread if need be, and the caller gets an error that names server, action and remedy.

Limits: a server that refuses a connection explains itself in its own language; the advice
is recognised in English only, the server's own words are always shown. This is the only
module that imports psycopg. Dumps are made by the real pg_dump, never through here.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import Loader

from opsd.clients.pgserver import (
    APPLICATION,
    CONNECT_TIMEOUT_S,
    Row,
    Server,
    ServerRefused,
    ServerUnreachable,
    Session,
    StatementFailed,
    StatementTimeout,
)
from opsd.errors import OpsdError, TransientError
from opsd.secrets import redact
from opsd.text import printable

_ACTION_CHARACTERS = 60  # of a statement, in an error
_TEXT_TYPES = ("name", "text", "varchar", "bpchar", '"char"')

_NOISE = re.compile(
    r"^connection (failed|is bad): |connection to server (at|on socket) .*? failed: |FATAL: +"
    r"| Is the server running .*\?$"
)

# What a refused connection says, and what to do about it. libpq gives no SQLSTATE for these.
_REFUSALS: tuple[tuple[str, bool, str], ...] = (
    ("password authentication failed", True, "check the password and the role"),
    ("no password supplied", True, "set password for this server"),
    ("no pg_hba.conf entry", True, "add a pg_hba.conf line for this role and address"),
    ("too many connections", False, "raise max_connections or the role's CONNECTION LIMIT"),
    ("too many clients", False, "raise max_connections, or find who holds the connections"),
    ("remaining connection slots", False, "raise max_connections, or find who holds them"),
    ('role "', True, "create the role: docs/postgres.md"),
    ("server does not support ssl", True, 'switch TLS on there, or set sslmode = "disable"'),
    ("certificate", True, "check ca_file, and that host is a name in the certificate"),
    ("not currently accepting connections", True, "ALTER DATABASE ... ALLOW_CONNECTIONS true"),
    ("permission denied for database", True, "GRANT CONNECT ON DATABASE ... TO the role"),
    ("does not exist", True, "the database was dropped, or its name is wrong"),
    ("no such file or directory", False, "is PostgreSQL running, with its socket in host?"),
    ("refused", False, "is PostgreSQL running, and listening on this address?"),
    ("timeout expired", False, "the server is frozen, overloaded or behind a firewall"),
    ("could not translate host name", False, "check the host name and DNS"),
    ("failed to resolve host", False, "check the host name and DNS"),
    ("starting up", False, "wait until its recovery has ended"),
    ("shutting down", False, "wait until it is back"),
)

# The same for a statement that failed, by SQLSTATE or its class.
_TRANSIENT_STATES = ("08", "40", "53", "55", "57", "58")


class PsycopgPostgres:
    """Connections through psycopg."""

    @contextlib.contextmanager
    def connect(
        self, server: Server, database: str | None = None, *, within_s: float
    ) -> Iterator[Session]:
        """Connect; see `Postgres.connect`."""
        database = server.maintenance_database if database is None else database
        connection = _open(server, database, within_s)
        session = _PsycopgSession(connection, server, database)
        fuse = threading.Timer(within_s, session.cut)
        fuse.daemon = True
        fuse.start()
        try:
            yield session
        finally:
            fuse.cancel()
            connection.close()


class _PsycopgSession:
    def __init__(self, connection: psycopg.Connection[Row], server: Server, database: str) -> None:
        self._connection = connection
        self._server = server
        self._place = f"server {server.name}, database {printable(database)}"
        self._cut = False

    @property
    def server(self) -> Server:
        return self._server

    def query(self, sql: str, *parameters: object) -> list[Row]:
        try:
            cursor = self._connection.execute(sql.encode(), parameters or None)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as exc:
            raise self._translated(exc, _action(sql)) from exc

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        self.query("SAVEPOINT opsd")
        try:
            yield
        except OpsdError:
            self.query("ROLLBACK TO SAVEPOINT opsd")
            raise
        self.query("RELEASE SAVEPOINT opsd")

    def cut(self) -> None:
        self._cut = True
        with (
            contextlib.suppress(OSError, psycopg.Error),
            # A duplicate, so that its number cannot become somebody else's in between.
            socket.socket(fileno=os.dup(self._connection.fileno())) as duplicate,
        ):
            duplicate.shutdown(socket.SHUT_RDWR)

    def _translated(self, exc: psycopg.Error, action: str) -> OpsdError:
        what = f"{self._place}: {action}: {_one_line(exc)}"
        state = exc.sqlstate or ""
        if self._cut or self._connection.broken:
            reason = "no answer in time, the connection was cut" if self._cut else _one_line(exc)
            return TransientError(f"{self._place}: {action}: {reason}")
        if state in ("57014", "55P03"):
            return StatementTimeout(what)
        if state[:2] in _TRANSIENT_STATES and state != "55006":
            return TransientError(what)
        return StatementFailed(what, state=state)


class _LenientText(Loader):
    """Text as the server sent it; SQL_ASCII databases hold bytes of any encoding."""

    format = pq.Format.TEXT

    def load(self, data: Any) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


def _open(server: Server, database: str, within_s: float) -> psycopg.Connection[Row]:
    password = server.password.reveal() if server.password else None
    place = f"connect to server {server.name} ({server.address}, database {printable(database)})"
    try:
        connection = psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=password,
            dbname=database,
            sslmode=server.sslmode,
            sslrootcert=str(server.sslrootcert) if server.sslrootcert else None,
            application_name=APPLICATION,
            client_encoding="UTF8",
            connect_timeout=max(2, min(CONNECT_TIMEOUT_S, int(within_s))),
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            tcp_user_timeout=int(CONNECT_TIMEOUT_S * 3 * 1000),
            autocommit=True,
        )
    except UnicodeEncodeError as exc:
        reason = "the name is not valid UTF-8"
        raise ServerRefused(place, reason=reason, remedy="rename the database") from exc
    except psycopg.Error as exc:
        raise _refusal(place, _one_line(exc)) from exc
    for name in _TEXT_TYPES:
        connection.adapters.register_loader(name, _LenientText)
    return connection


def _refusal(place: str, reason: str) -> OpsdError:
    for sign, permanent, remedy in _REFUSALS:
        if sign in reason.lower():
            kind = ServerRefused if permanent else ServerUnreachable
            return kind(place, reason=reason, remedy=remedy)
    return ServerUnreachable(place, reason=reason, remedy="opsd check")


def _action(sql: str) -> str:
    """The beginning of a statement, for messages, up to where a password could stand."""
    beginning = " ".join(sql.split())[:_ACTION_CHARACTERS]
    return printable(beginning.partition(" PASSWORD ")[0])


def _one_line(exc: psycopg.Error) -> str:
    """What the server or libpq says, without where it was: the caller names that."""
    # The primary message only: the rest may quote the statement, and a password in it.
    text = printable(exc.diag.message_primary or str(exc))
    return redact(_NOISE.sub("", text).strip())
