"""What a PostgreSQL server holds, and what a whole backup of it would stumble over.

A role with too few rights makes pg_dump fail late, with one missing right at a time. So
everything is asked first, and answered with the SQL that mends it.

Limits: tables that belong to an extension are left out (the extension fills them), so are
materialised views (a restore computes them) and foreign tables (their data is elsewhere).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opsd.clients.pgserver import Session, quote_identifier, readable_identifier

MAJOR = 10_000  # server_version_num: 180006 is 18.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database of a server."""

    name: str
    size_bytes: int  #: on the server's disk, with indexes
    owner: str
    encoding: str  #: ``UTF8``
    collation: str
    character_type: str
    locale_provider: str  #: ``libc``, ``icu`` or ``builtin``
    locale: str  #: of ICU and builtin; empty for libc
    is_template: bool
    allows_connections: bool
    may_connect: bool  #: our role has CONNECT on it
    sessions: int  #: connections at this moment


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One server, as our role sees it."""

    version_num: int  #: ``180006``
    version: str  #: ``18.6``
    role: str
    superuser: bool
    bypasses_rls: bool
    reads_all_data: bool  #: superuser or member of pg_read_all_data
    reads_password_hashes: bool
    roles: tuple[str, ...]  #: all but those that PostgreSQL brings along
    databases: tuple[Database, ...]

    @property
    def major(self) -> int:
        """``18``."""
        return self.version_num // MAJOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table whose rows a dump holds."""

    name: str  #: for people and comparisons: ``public.users``
    sql: str  #: for statements: ``"public"."users"``
    estimate: int | None  #: rows, as the planner believes; None when never analysed
    row_security: bool  #: a policy would hide rows from our role


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What one database holds, seen in one snapshot."""

    tables: tuple[Table, ...]  #: smallest first
    extensions: tuple[tuple[str, str], ...]  #: name, version
    roles: tuple[str, ...]  #: that objects of the database are owned by or granted to
    settings: tuple[tuple[str, str, str], ...]  #: (role or "", name, value): ALTER ... SET
    large_objects: int
    unreadable_large_objects: int
    unreadable: tuple[str, ...]  #: ``table public.a``: pg_dump would fail on each
    grants: tuple[str, ...]  #: the SQL that makes them readable


_SERVER = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
       current_user, rolsuper, rolsuper OR rolbypassrls,
       rolsuper OR EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_read_all_data'
                           AND pg_has_role(oid, 'USAGE')),
       has_table_privilege('pg_catalog.pg_authid', 'SELECT')
FROM pg_roles WHERE rolname = current_user
"""

_ALL_ROLES = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"

_DATABASES = """
SELECT datname,
       CASE WHEN has_database_privilege(d.oid, 'CONNECT')
              OR pg_has_role('pg_read_all_stats', 'USAGE')
            THEN pg_database_size(d.oid) ELSE 0 END,
       pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype,
       CASE {provider} WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
       coalesce({locale}, ''), datistemplate, datallowconn,
       has_database_privilege(d.oid, 'CONNECT'),
       (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid)
FROM pg_database d ORDER BY datname
"""

# Members of extensions stand in pg_depend with deptype e.
_OURS = """
    n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype = 'e')
"""

# Nothing here may wait for a table's lock: pg_table_size and its like would, for ever.
_TABLES = f"""
SELECT n.nspname, c.relname,
       CASE WHEN c.reltuples >= 0 AND c.relpages > 0 THEN c.reltuples::bigint END,
       row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {_OURS}
ORDER BY c.relpages, 1, 2
"""  # noqa: S608 - constants only

_EXTENSIONS = "SELECT extname, extversion FROM pg_extension ORDER BY 1"

_ROLES = """
SELECT DISTINCT rolname FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_authid'::regclass
  AND s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND r.rolname !~ '^pg_'
ORDER BY 1
"""

_SETTINGS = """
SELECT coalesce(r.rolname, ''), split_part(one, '=', 1), substr(one, strpos(one, '=') + 1)
FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) one
    LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1, 2
"""

_LARGE_OBJECTS = """
SELECT count(*), count(*) FILTER (WHERE NOT CASE
    WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN true
    WHEN current_setting('lo_compat_privileges')::bool THEN true
    WHEN pg_has_role(lomowner, 'USAGE') THEN true
    ELSE EXISTS (SELECT FROM aclexplode(lomacl) a WHERE a.privilege_type = 'SELECT'
                 AND CASE a.grantee WHEN 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END)
    END)
FROM pg_largeobject_metadata
"""

_UNREADABLE_SCHEMAS = """
SELECT format('%I', nspname) FROM pg_namespace n
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
  AND NOT has_schema_privilege(oid, 'USAGE')
  AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid)
ORDER BY 1
"""

_UNREADABLE = f"""
SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END,
       format('%I.%I', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND {_OURS} AND CASE c.relkind
    WHEN 'S' THEN NOT has_sequence_privilege(c.oid, 'SELECT')
    WHEN 'r' THEN NOT has_table_privilege(c.oid, 'SELECT')
    WHEN 'p' THEN NOT has_table_privilege(c.oid, 'SELECT')
    ELSE false END
ORDER BY 1, 2
"""  # noqa: S608 - constants only


def inspect(session: Session) -> ServerFacts:
    """Ask a server, through any of its databases, what it is and what it holds.

    Raises:
        TransientError, PermanentError: as `Session.query`.
    """
    version_num, version, role, superuser, bypasses, reads, hashes = session.query(_SERVER)[0]
    return ServerFacts(
        version_num=version_num,
        version=version.split()[0],
        role=role,
        superuser=superuser,
        bypasses_rls=bypasses,
        reads_all_data=reads,
        reads_password_hashes=hashes,
        roles=tuple(name for (name,) in session.query(_ALL_ROLES)),
        databases=tuple(
            Database(
                name=name,
                size_bytes=size,
                owner=owner,
                encoding=encoding,
                collation=collation,
                character_type=ctype,
                locale_provider=provider,
                locale=locale,
                is_template=is_template,
                allows_connections=allows,
                may_connect=may_connect,
                sessions=sessions,
            )
            for (
                name,
                size,
                owner,
                encoding,
                collation,
                ctype,
                provider,
                locale,
                is_template,
                allows,
                may_connect,
                sessions,
            ) in session.query(_databases_query(version_num // MAJOR))
        ),
    )


def contents(session: Session) -> Contents:
    """List what the session's database holds; in a transaction, as of its snapshot.

    Raises:
        TransientError, PermanentError: as `Session.query`.
    """
    large, unreadable_large = session.query(_LARGE_OBJECTS)[0]
    unreadable = [("schema", name) for (name,) in session.query(_UNREADABLE_SCHEMAS)]
    unreadable += [(kind, name) for kind, name in session.query(_UNREADABLE)]
    me = quote_identifier(session.query("SELECT current_user")[0][0])
    return Contents(
        tables=tuple(_table(row) for row in session.query(_TABLES)),
        extensions=tuple((name, version) for name, version in session.query(_EXTENSIONS)),
        roles=tuple(name for (name,) in session.query(_ROLES)),
        settings=tuple((role, name, value) for role, name, value in session.query(_SETTINGS)),
        large_objects=large,
        unreadable_large_objects=unreadable_large,
        unreadable=tuple(f"{kind} {name}" for kind, name in unreadable),
        grants=tuple(_grant(kind, name, me) for kind, name in unreadable),
    )


def _databases_query(major: int) -> str:
    provider = "datlocprovider" if major >= 15 else "'c'"  # noqa: PLR2004 - the release
    locale = {15: "daticulocale", 16: "daticulocale"}.get(major, "datlocale")
    return _DATABASES.format(provider=provider, locale=locale if major >= 15 else "''")  # noqa: PLR2004


def _table(row: tuple[Any, ...]) -> Table:
    schema, name, estimate, row_security = row
    return Table(
        name=f"{readable_identifier(schema)}.{readable_identifier(name)}",
        sql=f"{quote_identifier(schema)}.{quote_identifier(name)}",
        estimate=estimate,
        row_security=row_security,
    )


def _grant(kind: str, name: str, role: str) -> str:
    right = "USAGE" if kind == "schema" else "SELECT"
    return f"GRANT {right} ON {kind.upper()} {name} TO {role};"
