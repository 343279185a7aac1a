"""Which PostgreSQL server, as whom, and what can be asked of it.

Names of databases, roles and tables come from the world and may hold anything but NUL.
They are quoted here for SQL; for libpq they travel as separate keywords or environment
variables, never inside a connection string, which a hostile name could rewrite.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from opsd.errors import PermanentError, TransientError
from opsd.secrets import Secret

Row = tuple[Any, ...]

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

APPLICATION = "opsd"  # application_name of every connection
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
CONNECT_TIMEOUT_S = 10  # a small machine under load accepts within this


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One PostgreSQL server and the role that opsd uses on it."""

    name: str  #: configured, part of subjects: ``main``
    host: str  #: name, address, or absolute path of a socket directory
    port: int = 5432
    user: str = "postgres"
    password: Secret | None = None
    sslmode: SslMode = "prefer"
    sslrootcert: Path | None = None  #: None: libpq's own default
    maintenance_database: str = "postgres"

    @property
    def address(self) -> str:
        """``host:port``, for people."""
        return f"{self.host}:{self.port}"


class ServerRefused(PermanentError):
    """The server is there and does not let us in: password, pg_hba, TLS, rights."""

    def __init__(self, place: str, *, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class ServerUnreachable(TransientError):
    """Nobody answers, or the server is too busy to take one more connection."""

    def __init__(self, place: str, *, reason: str, remedy: str) -> None:
        super().__init__(f"{place}: {reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class StatementTimeout(TransientError):
    """A statement was cancelled because its time was over; the session goes on."""


class StatementFailed(PermanentError):
    """The server rejected a statement. `state` is its SQLSTATE."""

    def __init__(self, text: str, *, state: str) -> None:
        super().__init__(text)
        self.state = state


class Session(Protocol):
    """One connection, used by one thread at a time; `cut` may come from any thread."""

    @property
    def server(self) -> Server:
        """Where it leads."""
        ...

    def query(self, sql: str, *parameters: object) -> list[Row]:
        """Run one statement and return its rows; statements without rows give none.

        Text that is not valid UTF-8 comes as surrogate escapes.

        Raises:
            StatementTimeout: `statement_timeout` or `lock_timeout` ended it.
            StatementFailed: the server rejected it.
            TransientError: the connection broke or was cut.
        """
        ...

    def savepoint(self) -> AbstractContextManager[None]:
        """A part of the transaction that may fail without ending it."""
        ...

    def cut(self) -> None:
        """Break the connection now; whoever waits on it gets a TransientError."""
        ...


class Postgres(Protocol):
    """The way to every server."""

    def connect(
        self, server: Server, database: str | None = None, *, within_s: float
    ) -> AbstractContextManager[Session]:
        """Connect in autocommit mode, to `database` or else the maintenance database.

        Args:
            server: where, and as whom.
            database: any name; it is never parsed.
            within_s: after this many seconds the connection is cut, whatever it does.

        Raises:
            ServerUnreachable, ServerRefused: with server, cause and remedy.
        """
        ...


def quote_identifier(name: str) -> str:
    """`name` as an SQL identifier, always in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def readable_identifier(name: str) -> str:
    """`name` as an SQL identifier, quoted only where its characters need it.

    Unlike the server's own quoting it does not depend on a version's keywords, so it can be
    compared across versions. Not for SQL: ``user`` would be a keyword there.
    """
    return name if _PLAIN.fullmatch(name) else quote_identifier(name)


def quote_literal(text: str) -> str:
    """`text` as an SQL string that means the same under every server setting."""
    quoted = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{quoted}'"
