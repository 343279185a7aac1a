"""What the demonstration backs up: databases, and a share full of ordinary trouble."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

from opsd.clients.embedded import EmbeddedPostgres

ROLE = "opsd_backup"
_SEED = 20261122
_BLANK_PAGE = bytes(8192)

_ROLES = f"""
CREATE ROLE shop_owner LOGIN;
CREATE ROLE wiki_owner LOGIN;
CREATE ROLE reader NOLOGIN;
CREATE ROLE {ROLE} LOGIN SUPERUSER;
CREATE DATABASE shop OWNER shop_owner;
CREATE DATABASE wiki OWNER wiki_owner;
CREATE DATABASE metrics;
CREATE DATABASE "it's odd";
"""
_TABLES = {
    "shop": """
        CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL, joined date);
        INSERT INTO customer SELECT i, 'customer ' || i, date '2020-01-01' + i % 2000
            FROM generate_series(1, 20000) i;
        CREATE TABLE purchase (id bigint PRIMARY KEY, customer int REFERENCES customer,
            cents int, note jsonb);
        INSERT INTO purchase SELECT i, 1 + i % 20000, (i * 7919) % 100000,
            jsonb_build_object('sku', md5(i::text)) FROM generate_series(1, 100000) i;
        ALTER TABLE customer OWNER TO shop_owner;
        GRANT SELECT ON customer TO reader;
    """,
    "wiki": """
        CREATE TABLE page (title text PRIMARY KEY, body text);
        INSERT INTO page SELECT 'Page ' || i, repeat(md5(i::text), 40)
            FROM generate_series(1, 3000) i;
    """,
    "metrics": """
        CREATE TABLE sample (at timestamptz, node text, value float) PARTITION BY RANGE (at);
        CREATE TABLE sample_2026_10 PARTITION OF sample
            FOR VALUES FROM ('2026-10-01') TO ('2026-11-01');
        CREATE TABLE sample_2026_11 PARTITION OF sample
            FOR VALUES FROM ('2026-11-01') TO ('2026-12-01');
        INSERT INTO sample SELECT timestamptz '2026-10-01' + i * interval '1 minute',
            'rpi' || i % 4, random() FROM generate_series(0, 80000) i;
    """,
    "it's odd": 'CREATE TABLE "a ""b" (x int); INSERT INTO "a ""b" VALUES (42);',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Databases:
    """What was put into the server."""

    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What was put onto the share."""

    path: Path
    files: int  #: those that a backup must bring back
    summary: str


def fill_databases(postgres: EmbeddedPostgres) -> Databases:
    """Make four databases and four roles."""
    psql(postgres, "postgres", _ROLES)
    for name, tables in _TABLES.items():
        psql(postgres, name, tables)
    return Databases(summary="4 databases (one with an odd name) and 4 roles, 203,000 rows")


def build_share(path: Path) -> Share:
    """Make one directory per volume, as nfs-subdir-external-provisioner does."""
    chance = random.Random(_SEED)  # noqa: S311 - sample data
    photos = path / "media-photos-pvc-0b5c3f1e"
    for number in range(400):
        photo = photos / f"{2015 + number % 12}" / f"img_{number:04}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(chance.randbytes(chance.randrange(1_000, 60_000)))
    for name in ('it\'s "quoted".txt', "two\nlines.txt", "-rf", "smörgås.txt"):
        (photos / name).write_text(f"{name}\n")
    Path(os.fsdecode(os.fsencode(photos) + b"/latin-\xe9.txt")).write_text("not UTF-8\n")
    _sqlite(path / "monitoring-grafana-pvc-7c2d" / "grafana.db")
    _pgdata(path / "databases-data-postgres-0-pvc-91aa" / "pgdata")
    (path / "archived-default-old-pvc-1111").mkdir()
    (path / "archived-default-old-pvc-1111" / "kept.txt").write_text("still here\n")
    return Share(
        path=path,
        files=len(_contents(path)),
        summary="4 volumes: photos with odd names, an SQLite database, a live PGDATA tree",
    )


def differences(share: Share, restored: Path) -> list[str]:
    """What is not the same in the restored copy; the live PGDATA tree is left out by design."""
    before, after = _contents(share.path), _contents(restored)
    lost = [f"missing: {name!r}" for name in sorted(before.keys() - after.keys())]
    changed = [
        f"differs: {name!r}" for name in before if after.get(name, before[name]) != before[name]
    ]
    return lost + changed


def checksum_of(postgres: EmbeddedPostgres, database: str) -> str:
    """A checksum over every row of the database's tables, computed by the server."""
    return psql(
        postgres,
        database,
        "SELECT md5(string_agg(c::text, '' ORDER BY c.id)) FROM customer c;"
        "SELECT md5(string_agg(p::text, '' ORDER BY p.id)) FROM purchase p;",
    )


def lock_out(postgres: EmbeddedPostgres) -> None:
    """What a colleague does on a Friday."""
    psql(postgres, "postgres", f"ALTER ROLE {ROLE} NOLOGIN;")


def psql(postgres: EmbeddedPostgres, database: str, sql: str) -> str:
    """Run statements as superuser and return what they print."""
    environment = {
        **os.environ,
        "PGHOST": str(postgres.socket_dir),
        "PGPORT": str(postgres.port),
        "PGUSER": postgres.user,
        "PGDATABASE": database,
    }
    command = [str(postgres.bin_dir / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run(
        command, input=sql, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def _sqlite(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE dashboard (id integer PRIMARY KEY, title text)")
        rows = ((f"dashboard {number}",) for number in range(500))
        database.executemany("INSERT INTO dashboard (title) VALUES (?)", rows)
    database.close()


def _pgdata(path: Path) -> None:
    for part in ("base/1", "global", "pg_wal"):
        (path / part).mkdir(parents=True)
    (path / "PG_VERSION").write_text("17\n")
    for name in ("base/1/1259", "global/pg_control", "pg_wal/000000010000000000000001"):
        (path / name).write_bytes(_BLANK_PAGE)


def _contents(path: Path) -> dict[str, str]:
    """SHA-256 by relative name; SQLite databases by what they hold, PGDATA left out."""
    found = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if not file.is_file() or {"pgdata", ".opsd"} & set(relative.parts):
            continue
        found[os.fspath(relative)] = _digest(file)
    return found


def _digest(file: Path) -> str:
    if file.suffix == ".db":
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            content = "\n".join(database.iterdump()).encode()
        database.close()
    else:
        content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()
