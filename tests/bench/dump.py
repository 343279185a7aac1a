"""Dumps: what opsd costs on top of pg_dump itself, and how much memory it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.bench.measure import Measured, interleaved, measure
from tests.bench.report import Line
from tests.rig import postgres, s3

ROUNDS = 3
RUN = ("run-job", "postgres-backup")
DATABASES = ("one", "two", "three", "four")
ROWS = 2_000_000  # about 280 MB a database: half of it compresses well

FILL = f"""
CREATE TABLE event (id bigint, at timestamptz, kind text, noise text);
INSERT INTO event SELECT i, now() + i * interval '1 s', 'kind ' || i % 40, md5(i::text)
    FROM generate_series(1, {ROWS}) i;
"""  # noqa: S608 - ours
CONFIG = """\
[opsd]
state_dir = "{place}/state"
{repository}
[jobs.postgres-backup]
repositories = ["bench"]
client_dirs = ["{bin_dir}"]
keep = {{ last = 1, daily = 0, weekly = 0, monthly = 0, minimum = 1, max_removed_percent = 100 }}
[[jobs.postgres-backup.servers]]
name = "main"
host = "{host}"
port = {port}
user = "{user}"
password = "env:OPSD_BENCH_PASSWORD"
sslmode = "require"
databases = {databases}
"""


def lines(place: Path) -> Iterator[Line]:
    """Measure one database and four, to a directory and to S3."""
    with postgres.running(postgres.MAJORS[-1]) as server, s3.running() as bucket_server:
        for name in DATABASES:
            server.create_database(name)
            server.execute(FILL, name)
            server.execute("VACUUM ANALYZE event", name)
        directory = place / "repository"
        directory.mkdir()
        targets = {
            "directory": f'[repositories.bench]\ntype = "directory"\npath = "{directory}"',
            "S3": _s3_table(bucket_server),
        }
        os.environ["OPSD_BENCH_PASSWORD"] = server.password
        for databases in (DATABASES[:1], DATABASES):
            yield from _compare(place, server, targets, databases)


def _compare(
    place: Path, server: postgres.PgServer, targets: dict[str, str], databases: tuple[str, ...]
) -> Iterator[Line]:
    opsd = Path(sys.executable).with_name("opsd")
    candidates = {"pg_dump": partial(_bare, server, databases)}
    for target, table in targets.items():
        config = place / f"{target}-{len(databases)}.toml"
        config.write_text(
            CONFIG.format(
                place=place / target,
                repository=table,
                bin_dir=server.bin_dir,
                host=server.host,
                port=server.port,
                user=server.superuser,
                databases=list(databases),
            )
        )
        candidates[target] = partial(
            measure, [opsd, "--config", config, *RUN], stage="dump.stored"
        )
    result = interleaved(candidates, rounds=ROUNDS)
    for target, memory_goal in (("directory", 80), ("S3", 150)):
        if len(databases) == 1:  # several overlap, so that their stages cannot be added up
            yield Line(
                what=f"1 database to {target}, stored: wall",
                value=result[target].stage_s / result["pg_dump"].wall_s,
                unit="x",
                goal=1.10 if target == "directory" else None,
                against="pg_dump -Fc --compress=zstd:1 to /dev/null",
            )
        yield Line(
            what=f"{len(databases)} database(s) to {target}, proof and start included: wall",
            value=result[target].wall_s / result["pg_dump"].wall_s,
            unit="x",
            goal=None,
            against="pg_dump -Fc --compress=zstd:1 to /dev/null, one after another",
        )
        yield Line(
            what=f"{len(databases)} database(s) to {target}, CPU",
            value=result[target].cpu_s / result["pg_dump"].cpu_s,
            unit="x",
            goal=None,
            against="the same (client side only)",
        )
        yield Line(
            what=f"{len(databases)} database(s) to {target}, peak memory",
            value=result[target].peak_mib,
            unit="MiB",
            goal=memory_goal,
            against="opsd's own process",
        )


def _bare(server: postgres.PgServer, databases: tuple[str, ...]) -> Measured:
    """What an owner would type, for all databases in one process tree."""
    dump = f"{server.bin_dir}/pg_dump -Fc --compress=zstd:1 --no-password"
    script = " && ".join(f"{dump} {name} >/dev/null" for name in databases)
    environment = {
        "PGHOST": server.host,
        "PGPORT": str(server.port),
        "PGUSER": server.superuser,
        "PGPASSWORD": server.password,
        "PGSSLMODE": "require",
    }
    return measure(["/bin/sh", "-c", script], env=environment)


def _s3_table(server: s3.S3Server) -> str:
    os.environ["OPSD_BENCH_ACCESS_KEY"] = server.access_key
    os.environ["OPSD_BENCH_SECRET_KEY"] = server.secret_key
    return f"""
[repositories.bench]
type = "s3"
endpoint = "{server.endpoint}"
bucket = "{server.make_bucket()}"
access_key = "env:OPSD_BENCH_ACCESS_KEY"
secret_key = "env:OPSD_BENCH_SECRET_KEY"
"""
