"""Bring the roles of a server back, without changing one that exists.

The script of pg_dumpall would also be run by psql, but it sets the password of every role,
those included that somebody has changed since. Here roles that exist are left as they are;
only what is missing is created, all of it or nothing.

Limits: tablespaces are not created, their directories belong to another machine. Who once
granted a membership is not kept; the restoring role is the grantor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from opsd.backup.catalog import read_back
from opsd.backup.manifest import Manifest
from opsd.backup.postgres.restore import Damaged, Into
from opsd.backup.postgres.source import globals_source
from opsd.backup.repository import Repository
from opsd.backup.stream import opened
from opsd.errors import PermanentError
from opsd.text import printable

LARGEST_SCRIPT_BYTES = 64 << 20  # a hundred thousand roles; held in memory

# Strings, quoted names, comments, psql's own commands, and what lies between semicolons.
_TOKEN = re.compile(
    r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | ^\\[^\n]* | ; | [^'";\\-]+ | .""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)
_NAME = r'("(?:[^"]|"")+"|[^\s";]+)'
_CREATE = re.compile(rf"CREATE ROLE {_NAME}$")
_CHANGE = re.compile(rf"(?:ALTER ROLE|COMMENT ON ROLE) {_NAME} ", re.DOTALL)
_GRANT = re.compile(rf"GRANT {_NAME} TO {_NAME}(.*?)(?: GRANTED BY {_NAME})?$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesRestored:
    """What a restore of roles did."""

    created: tuple[str, ...]
    kept: tuple[str, ...]  #: existed, and were left as they are
    notes: tuple[str, ...] = ()  #: what was left out, and why


def restore_globals(repository: Repository, manifest: Manifest, into: Into) -> RolesRestored:
    """Create the roles of a dump that the server lacks, with their passwords and memberships.

    Args:
        repository: where the dump is.
        manifest: of kind ``pg_globals``.
        into: the server, with a role that may create roles.

    Raises:
        Damaged: the backup is not what it was.
        PermanentError, TransientError: the server refused; no role was created.
    """
    source = globals_source(manifest)
    script = _script(repository, manifest, into)
    with into.postgres.connect(into.server, within_s=into.deadline.remaining()) as session:
        there = {row[0] for row in session.query("SELECT rolname FROM pg_roles")}
        chosen = tuple(choose(statements(script), there))
        session.query("BEGIN")
        for statement in chosen:
            session.query(statement)
        session.query("COMMIT")
    notes = () if source.passwords else ("the dump has no passwords: set them",)
    return RolesRestored(
        created=tuple(role for role in source.roles if role not in there),
        kept=tuple(role for role in source.roles if role in there),
        notes=notes + _tablespaces(script),
    )


def statements(script: str) -> Iterator[str]:
    """The SQL statements of a script, without comments and psql's own commands."""
    parts: list[str] = []
    for match in _TOKEN.finditer(script):
        part = match[0]
        if part == ";":
            yield "".join(parts).strip()
            parts = []
        elif not part.startswith(("--", "\\")):
            parts.append(part)


def choose(script: Iterator[str], there: Collection[str]) -> Iterator[str]:
    """Keep the statements about roles that are not `there`; those can be repeated safely."""
    for statement in script:
        if match := _CREATE.match(statement) or _CHANGE.match(statement):
            if _unquoted(match[1]) not in there:
                yield statement
        elif (match := _GRANT.match(statement)) and _unquoted(match[2]) not in there:
            yield f"GRANT {match[1]} TO {match[2]}{match[3]}"


def _script(repository: Repository, manifest: Manifest, into: Into) -> str:
    if manifest.size_bytes > LARGEST_SCRIPT_BYTES:
        raise PermanentError(f"{manifest.key}: {manifest.size_bytes} bytes are no list of roles")
    verdict = read_back(
        repository,
        manifest.key,
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        deadline=into.deadline,
        progress=into.progress,
    )
    if not verdict.ok:
        raise Damaged(f"repository {repository.name}: {manifest.key}: {verdict.detail}")
    script = bytearray()
    opened(repository, manifest, script.extend, identity=into.identity, report=lambda _done: None)
    return script.decode("utf-8", "surrogateescape")


def _tablespaces(script: str) -> tuple[str, ...]:
    return tuple(
        f"not created: {printable(statement)}"
        for statement in statements(script)
        if statement.startswith("CREATE TABLESPACE ")
    )


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
