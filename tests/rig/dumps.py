"""Databases worth dumping, and what a dump of them needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jobs import postgres_backup
from opsd.backup.delivery import Delivery
from opsd.backup.manifest import Manifest
from opsd.backup.postgres import servers as pgservers
from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.dump import How, dump_database, dump_globals
from opsd.backup.postgres.restore import Into
from opsd.backup.repository import Repository
from opsd.clients.pginspect import ServerFacts, inspect
from opsd.clients.pgserver import Server
from opsd.clients.postgres import PsycopgPostgres
from opsd.clock import Deadline, SystemClock
from opsd.model import Artifact, Finding, Run
from opsd.progress import NoProgress
from opsd.runner import execute
from opsd.secrets import Secret
from opsd.testing import context
from tests.rig.postgres import PgServer

SLOT = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
SAMPLE = """
CREATE TABLE people (id serial PRIMARY KEY, name text NOT NULL, born date);
INSERT INTO people (name, born) SELECT 'p' || i, '2000-01-01'::date + i
    FROM generate_series(1, 1000) i;
CREATE TABLE "Odd ""name"" ä" (a int, b jsonb);
INSERT INTO "Odd ""name"" ä" SELECT i, jsonb_build_object('k', i) FROM generate_series(1, 10) i;
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO parts SELECT i, '2026-01-01'::date + i FROM generate_series(1, 300) i;
CREATE TABLE parent (a int);
CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3), (4, 5);
CREATE TABLE nothing ();
CREATE SCHEMA other; CREATE TABLE other."user" AS SELECT 1 AS one;
CREATE VIEW v AS SELECT name FROM people;
CREATE MATERIALIZED VIEW mv AS SELECT count(*) FROM people;
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""
ROWS = {
    "public.people": 1000,
    'public."Odd ""name"" ä"': 10,
    "public.parts_1": 180,
    "public.parts_2": 120,
    "public.parent": 1,
    "public.child": 2,
    "public.nothing": 0,
    "other.user": 1,
}


def server_of(pg: PgServer, scratch: Path, **changed: Any) -> Server:
    """`pg` as opsd's configuration would describe it, as its superuser unless changed."""
    password = changed.pop("password", pg.password)
    place = scratch / f"password-{abs(hash(password))}"
    place.write_text(password)
    # By name: libpq 14 does not match the addresses in a certificate.
    known = {"host": "localhost", "port": pg.port, "user": pg.superuser, "sslrootcert": pg.ca_file}
    return Server(
        **{
            "name": "main",
            "sslmode": "verify-full",
            "password": Secret(f"file:{place}"),
            **known,
            **changed,
        }
    )


def facts_of(server: Server) -> ServerFacts:
    """What the server holds now."""
    with PsycopgPostgres().connect(server, within_s=20) as session:
        return inspect(session)


def tools_of(pg: PgServer) -> tuple[pgtools.Tools, ...]:
    """The programs of the server's own version only."""
    return (pgtools.Tools(bin_dir=pg.bin_dir, major=pg.major, version=f"{pg.major}.0"),)


def how(pg: PgServer, repositories: Sequence[Repository], **changed: Any) -> How:
    """Everything that a dump needs besides its subject."""
    known = {
        "postgres": PsycopgPostgres(),
        "tools": tools_of(pg)[0],
        "repositories": repositories,
        "recipients": (),
        "slot": SLOT,
        "run_id": "0123456789ab",
        "lock_wait_s": 2.0,
        "count_budget_s": 60.0,
        "skip_large_objects": False,
        "deadline": Deadline.after(90, SystemClock()),
        "progress": NoProgress(),
    }
    return How(**{**known, **changed})


def dump(
    pg: PgServer, database: str, repositories: Sequence[Repository], scratch: Path, **changed: Any
) -> Delivery:
    """Dump one database as the superuser."""
    server = server_of(pg, scratch)
    facts = facts_of(server)
    found = next(one for one in facts.databases if one.name == database)
    return dump_database(server, facts, found, how(pg, repositories, **changed))


def dump_roles(
    pg: PgServer, repositories: Sequence[Repository], scratch: Path, **changed: Any
) -> Manifest:
    """Dump the roles as the superuser; returns the first repository's manifest."""
    server = server_of(pg, scratch)
    delivery = dump_globals(server, facts_of(server), how(pg, repositories, **changed))
    return next(iter(delivery.published.values())).manifest


def into(pg: PgServer, scratch: Path, **changed: Any) -> Into:
    """Restore into `pg` as its superuser."""
    known = {
        "postgres": PsycopgPostgres(),
        "server": server_of(pg, scratch),
        "tools": tools_of(pg),
        "deadline": Deadline.after(90, SystemClock()),
        "progress": NoProgress(),
    }
    return Into(**{**known, **changed})


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """A run of postgres-backup on one server, and what can be asked of it."""

    run: Run

    @property
    def checks(self) -> dict[str, str]:
        """Check by subject of what a person must act on."""
        return {one.subject: one.check for one in self.run.findings if one.severity > 0}

    def finding(self, check: str) -> Finding:
        """The only finding of this check."""
        [found] = [one for one in self.run.findings if one.check == check]
        return found

    def artifact(self, subject: str) -> Artifact:
        """The only artifact of this subject."""
        [found] = [one for one in self.run.artifacts if one.subject == subject]
        return found


def settings_of(pg: PgServer, scratch: Path, **changed: Any) -> postgres_backup.Settings:
    """Settings for one server named ``main``; keys of a server go to the server."""
    server = server_of(pg, scratch)
    assert server.password is not None
    keys = pgservers.ServerTable.model_fields.keys()
    table = {
        "name": "main",
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password.reference,
        "ca_file": str(pg.ca_file),
        **{key: changed.pop(key) for key in tuple(changed) if key in keys},
    }
    known = {
        "repositories": ["memory"],
        "servers": [table],
        "client_dirs": [str(pg.bin_dir)],
        "lock_wait": "2s",
    }
    return postgres_backup.Settings.model_validate({**known, **changed})


def run_job(
    settings: postgres_backup.Settings,
    repositories: Sequence[Repository],
    scratch: Path,
    *,
    slot: datetime = SLOT,
    timeout: timedelta = timedelta(seconds=90),
    **changed: Any,
) -> JobRun:
    """Run the job as the runner does, on real time."""
    ctx = context(
        scratch=scratch,
        repositories=repositories,
        postgres=PsycopgPostgres(),
        clock=SystemClock(),
        slot=slot,
        timeout=timeout,
        **changed,
    )
    return JobRun(run=execute(postgres_backup.JOB, settings, ctx))
