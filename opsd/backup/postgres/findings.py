"""What a person is told about dumps: each fact with what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from opsd.backup.delivery import Corrupted, Delivery, Published
from opsd.backup.manifest import Manifest
from opsd.backup.naming import subject
from opsd.backup.postgres.dump import DumpFailed, RightsMissing, database_subject
from opsd.backup.postgres.source import PG_DUMP, SCRATCH_PREFIX, dump_source, globals_source
from opsd.backup.postgres.tools import Tools
from opsd.clients.pginspect import ServerFacts
from opsd.clients.pgserver import (
    Server,
    ServerRefused,
    ServerUnreachable,
    quote_identifier,
)
from opsd.errors import OpsdError
from opsd.model import Artifact, Fact, Finding, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120
_PATTERN_CHARACTERS = frozenset("*?[")


def about_server(server: Server, facts: ServerFacts, tools: Tools) -> Iterator[Finding]:
    """What about this server's dumps is not as it should be."""
    place = f"server/{server.name}"
    if tools.major != facts.major:
        yield Finding(
            check="postgres.client_newer",
            subject=place,
            severity=Severity.WARNING,
            summary=f"dumped with pg_dump {tools.major}, the server is {facts.major}",
            remedy=f"apt-get install postgresql-client-{facts.major}",
            facts={"pg_dump": tools.version, "server": facts.version},
        )
    if not facts.reads_password_hashes:
        yield Finding(
            check="postgres.no_role_passwords",
            subject=place,
            severity=Severity.INFO,
            summary="the roles are dumped without their passwords",
            remedy=f"GRANT pg_read_all_data TO {quote_identifier(facts.role)};",
        )
    for database in facts.databases:
        if database.name.startswith(SCRATCH_PREFIX) and not database.sessions:
            yield Finding(
                check="postgres.restore_left_behind",
                subject=database_subject(server, database.name),
                severity=Severity.WARNING,
                summary="a restore was interrupted and left its scratch database behind",
                remedy=f"DROP DATABASE {quote_identifier(database.name)};",
                facts={"size_bytes": database.size_bytes},
            )


def missing(server: Server, wanted: Iterable[str], facts: ServerFacts) -> Iterator[Finding]:
    """Databases that the configuration names, without a pattern, and the server lacks."""
    there = {database.name for database in facts.databases}
    for name in wanted:
        if not set(name) & _PATTERN_CHARACTERS and name not in there:
            yield Finding(
                check="postgres.database_missing",
                subject=database_subject(server, name),
                severity=Severity.WARNING,
                summary="the configuration names this database, the server does not have it",
                remedy=f"take it out of databases of server {server.name}, or create it",
            )


def vanished(server: Server, facts: ServerFacts, backed_up: Collection[str]) -> Iterator[Finding]:
    """Databases that have backups and are not on their server any more."""
    there = {database_subject(server, database.name) for database in facts.databases}
    series = f"{subject('database', server.name)}/"
    for gone in sorted(set(backed_up) - there):
        if gone.startswith(series):
            yield Finding(
                check="postgres.database_vanished",
                subject=gone,
                severity=Severity.INFO,
                summary="the database is not on its server any more; its backups are kept",
                remedy=f"opsd backups list {gone}",
            )


def about_dump(delivery: Delivery) -> Iterator[Finding]:
    """What one dump lacks although it succeeded."""
    manifest = next((one.manifest for one in delivery.published.values()), None)
    if manifest is None or manifest.kind != PG_DUMP:
        return
    source = dump_source(manifest)
    if source.partial:
        yield Finding(
            check="postgres.partial_dump",
            subject=manifest.subject,
            severity=Severity.WARNING,
            summary=shortened(f"the dump lacks {', '.join(source.partial)}", SUMMARY_CHARACTERS),
            remedy='set large_objects = "require" once the role may read them',
        )


def dump_failed(subject: str, exc: OpsdError) -> Finding:
    """One database, or the roles of one server, could not be dumped."""
    kind = "postgres.rights_missing" if isinstance(exc, RightsMissing) else "postgres.dump_failed"
    reason, remedy = _reason_and_remedy(exc)
    return Finding(
        check=kind,
        subject=subject,
        severity=Severity.CRITICAL,
        summary=shortened(f"could not be dumped: {reason}", SUMMARY_CHARACTERS),
        remedy=remedy,
        facts={"error": printable(str(exc))},
    )


def not_stored(repository: str, subject: str, exc: OpsdError) -> Finding:
    """One repository did not take one backup, or returned other bytes."""
    text = printable(str(exc))
    return Finding(
        check="backup.corrupted" if isinstance(exc, Corrupted) else "backup.not_stored",
        subject=f"repository/{repository}/{subject}",
        severity=Severity.CRITICAL,
        summary=shortened(f"a backup could not be stored: {text}", SUMMARY_CHARACTERS),
        remedy=f"opsd check; what lies in repository {repository} is untouched",
        facts={"error": text},
    )


def unreachable(check: str, subject: str, exc: OpsdError) -> Finding:
    """A whole server or repository is out of reach."""
    reason, remedy = _reason_and_remedy(exc)
    return Finding(
        check=check,
        subject=subject,
        severity=Severity.CRITICAL,
        summary=shortened(f"cannot be backed up: {reason}", SUMMARY_CHARACTERS),
        remedy=remedy,
        facts={"error": printable(str(exc))},
    )


def _reason_and_remedy(exc: OpsdError) -> tuple[str, str]:
    """What happened and what to do, apart where the error knows them apart."""
    if isinstance(exc, DumpFailed | RightsMissing | ServerRefused | ServerUnreachable):
        return printable(exc.reason), exc.remedy
    return printable(str(exc)), "opsd check; older backups are untouched"


def artifact(repository: str, published: Published, *, duration_s: float) -> Artifact:
    """A published dump as the run reports it; `duration_s` is from its start to its proof."""
    manifest = published.manifest
    return manifest.artifact(
        repository=repository,
        key=published.key,
        facts={**_facts(manifest), "duration_s": round(duration_s, 3)},
    )


def _facts(manifest: Manifest) -> dict[str, Fact]:
    """What people want to know about a dump at a glance."""
    if manifest.kind != PG_DUMP:
        return {"roles": len(globals_source(manifest).roles)}
    source = dump_source(manifest)
    return {
        "tables": len(source.rows),
        "rows": sum(rows or 0 for rows, _ in source.rows.values()),
        "tables_estimated": sum(1 for _, exact in source.rows.values() if not exact),
        "database_size_bytes": source.database_size_bytes,
        "server_version": source.server_version,
        "encrypted": bool(manifest.encryption),
    }
