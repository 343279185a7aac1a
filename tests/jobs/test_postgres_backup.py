from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs import postgres_backup
from opsd.backup.catalog import read_catalog
from opsd.backup.postgres import servers as pgservers
from opsd.backup.postgres.source import SCRATCH_PREFIX
from opsd.backup.repository import StoredObject, Upload
from opsd.errors import TransientError
from opsd.model import Outcome, Severity
from opsd.testing import MemoryRepository
from tests.rig import dumps
from tests.rig.postgres import PgServer

pytestmark = pytest.mark.real


class Broken(MemoryRepository):
    """Lists what it has, takes nothing new."""

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:  # noqa: ARG002
        raise TransientError(f"repository {self.name}: {key}: no space left")


class Unlisted(MemoryRepository):
    """Cannot even be listed."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        raise TransientError(f"repository {self.name}: list {prefix}: refused")


class Rotting(MemoryRepository):
    """Returns one flipped bit in every dump."""

    def read(self, key: str) -> Iterator[bytes]:
        for piece in super().read(key):
            yield bytes([piece[0] ^ 1]) + piece[1:] if key.endswith(".dump") else piece


class Counting(MemoryRepository):
    """Knows how many objects were begun."""

    begun = 0

    def upload(self, key: str, *, run_id: str, size_hint: int = 0) -> Upload:
        self.begun += 1
        return super().upload(key, run_id=run_id, size_hint=size_hint)


def keys(repository: MemoryRepository) -> list[str]:
    return [one.key for one in repository.list("")]


def test_every_database_and_the_roles_are_backed_up_and_proven(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    for name in ("app", "blog"):
        empty_pg.execute(dumps.SAMPLE, empty_pg.create_database(name))
    repository = MemoryRepository()

    run = dumps.run_job(dumps.settings_of(empty_pg, tmp_path), [repository], tmp_path).run

    assert run.outcome is Outcome.COMPLETED
    subjects = {
        "database/main/app",
        "database/main/blog",
        "database/main/postgres",
        "globals/main",
    }
    assert {one.subject for one in run.artifacts} == subjects
    assert {one.level for one in run.artifacts} == {"parsed"}
    assert subjects <= set(run.seen)
    assert {one.manifest.subject for one in read_catalog(repository).backups} == subjects
    assert run.findings == ()


def test_an_artifact_tells_tables_and_rows(empty_pg: PgServer, tmp_path: Path) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))

    job = dumps.run_job(dumps.settings_of(empty_pg, tmp_path), [MemoryRepository()], tmp_path)

    facts = job.artifact("database/main/app").facts
    assert facts["tables"] == len(dumps.ROWS)
    assert facts["rows"] == sum(dumps.ROWS.values())
    assert facts["tables_estimated"] == 0


def test_templates_closed_and_excluded_databases_are_left_out(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    for name in ("app", "app_test", "closed", "mould", f"{SCRATCH_PREFIX}ab"):
        empty_pg.create_database(name)
    empty_pg.execute("ALTER DATABASE closed ALLOW_CONNECTIONS false")
    empty_pg.execute("ALTER DATABASE mould IS_TEMPLATE true")
    settings = dumps.settings_of(empty_pg, tmp_path, exclude=["*_test", "postgres"])
    try:
        job = dumps.run_job(settings, [MemoryRepository()], tmp_path)
    finally:
        empty_pg.execute("ALTER DATABASE mould IS_TEMPLATE false")

    assert {one.subject for one in job.run.artifacts} == {"database/main/app", "globals/main"}
    assert job.checks == {f"database/main/{SCRATCH_PREFIX}ab": "postgres.restore_left_behind"}


def test_a_database_that_is_configured_and_missing_is_told(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    settings = dumps.settings_of(empty_pg, tmp_path, databases=["postgres", "gone"])

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path)

    assert job.checks == {"database/main/gone": "postgres.database_missing"}
    assert job.run.outcome is Outcome.COMPLETED


def test_one_failing_database_neither_hides_nor_stops_the_others(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    for name in ("app", "locked"):
        empty_pg.execute(dumps.SAMPLE, empty_pg.create_database(name))
    repository = MemoryRepository()
    with empty_pg.connect("locked", autocommit=False) as holder:
        holder.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")

        job = dumps.run_job(dumps.settings_of(empty_pg, tmp_path), [repository], tmp_path)

    assert job.run.outcome is Outcome.FAILED
    assert job.checks == {"database/main/locked": "postgres.dump_failed"}
    assert "locked longer than lock_wait" in job.finding("postgres.dump_failed").remedy
    assert job.artifact("database/main/app").level == "parsed"
    assert "database/main/app" in job.run.seen
    assert "database/main/locked" not in job.run.seen
    assert not any("locked" in key for key in keys(repository))
    assert not list(repository.unfinished(""))


def test_a_server_that_is_down_is_one_finding_and_not_one_per_database(
    pg: PgServer, tmp_path: Path
) -> None:
    settings = dumps.settings_of(pg, tmp_path, port=1)

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path)

    assert job.checks == {"server/main": "postgres.unreachable"}
    assert job.run.outcome is Outcome.FAILED
    assert job.run.seen == ("repository/memory",)
    assert job.run.may_pass


def test_a_server_whose_password_is_missing_does_not_stop_the_others(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    other = dumps.settings_of(empty_pg, tmp_path, name="other", password="env:OPSD_NOT_SET")
    settings = dumps.settings_of(empty_pg, tmp_path)
    settings = settings.model_copy(update={"servers": (*other.servers, *settings.servers)})

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path)

    assert job.checks == {"server/other": "postgres.unreachable"}
    assert "OPSD_NOT_SET" in job.finding("postgres.unreachable").summary
    assert job.artifact("database/main/postgres").level == "parsed"


def test_a_repository_that_fails_does_not_stop_the_other(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    good, broken, unlisted = MemoryRepository("good"), Broken("broken"), Unlisted("unlisted")
    settings = dumps.settings_of(empty_pg, tmp_path, repositories=["broken", "unlisted", "good"])

    job = dumps.run_job(settings, [good, broken, unlisted], tmp_path)

    assert job.run.outcome is Outcome.FAILED
    assert job.checks == {
        "repository/unlisted": "repository.unreachable",
        "repository/broken/database/main/postgres": "backup.not_stored",
        "repository/broken/globals/main": "backup.not_stored",
    }
    assert {one.repository for one in job.run.artifacts} == {"good"}
    assert "repository/good/database/main/postgres" in job.run.seen
    assert "database/main/postgres" in job.run.seen


def test_bytes_that_come_back_different_are_deleted_and_told(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    rotting, good = Rotting("rotting"), MemoryRepository("good")
    settings = dumps.settings_of(empty_pg, tmp_path, repositories=["rotting", "good"])

    job = dumps.run_job(settings, [rotting, good], tmp_path)

    assert job.checks == {"repository/rotting/database/main/postgres": "backup.corrupted"}
    assert job.run.outcome is Outcome.FAILED
    assert not [key for key in keys(rotting) if key.startswith("database/")]
    assert job.artifact("database/main/postgres").repository == "good"


def test_a_dry_run_changes_nothing_and_tells_what_it_would_do(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    repository = MemoryRepository()
    settings = dumps.settings_of(empty_pg, tmp_path)
    dumps.run_job(settings, [repository], tmp_path)
    before = keys(repository)

    slot = dumps.SLOT + timedelta(days=1)
    job = dumps.run_job(settings, [repository], tmp_path, slot=slot, dry_run=True)

    assert keys(repository) == before
    assert not job.run.artifacts
    told = {(one.check, one.subject) for one in job.run.findings}
    assert ("dry_run.dump", "database/main/postgres") in told
    kept = f"repository/memory/database/main/postgres/{dumps.SLOT:%Y%m%dT%H%M%SZ}.json"
    assert ("dry_run.keep", kept) in told


def test_a_slot_that_has_its_result_is_not_dumped_again(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    repository = Counting()
    settings = dumps.settings_of(empty_pg, tmp_path)
    dumps.run_job(settings, [repository], tmp_path)
    before, begun = keys(repository), repository.begun

    again = dumps.run_job(settings, [repository], tmp_path, run_id="ba9876543210")

    assert again.run.outcome is Outcome.COMPLETED
    assert not again.run.artifacts
    assert "database/main/postgres" in again.run.seen
    assert keys(repository) == before
    assert repository.begun == begun


def test_a_database_that_vanished_is_told_and_keeps_its_backups(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.create_database("app")
    repository = MemoryRepository()
    settings = dumps.settings_of(empty_pg, tmp_path)
    dumps.run_job(settings, [repository], tmp_path)
    empty_pg.execute("DROP DATABASE app")

    slot = dumps.SLOT + timedelta(days=1)
    job = dumps.run_job(settings, [repository], tmp_path, slot=slot)

    assert job.finding("postgres.database_vanished").subject == "database/main/app"
    assert job.finding("postgres.database_vanished").severity is Severity.INFO
    assert job.run.outcome is Outcome.COMPLETED
    assert [key for key in keys(repository) if key.startswith("database/main/app/")]


def test_old_backups_go_after_a_success_and_stay_after_a_failure(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    repository = MemoryRepository()
    rules = {"last": 2, "daily": 0, "weekly": 0, "monthly": 0, "minimum": 1}
    settings = dumps.settings_of(empty_pg, tmp_path, keep=rules)
    ends_at = dumps.SLOT
    for day in (3, 2):
        dumps.run_job(settings, [repository], tmp_path, slot=ends_at - timedelta(days=day))
    wrong = dumps.settings_of(empty_pg, tmp_path, keep=rules, password="env:OPSD_NOT_SET")

    failed = dumps.run_job(wrong, [repository], tmp_path, slot=ends_at - timedelta(days=1))
    after_failure = len(read_catalog(repository, "database/").backups)
    dumps.run_job(settings, [repository], tmp_path, slot=ends_at)
    after_success = [one.manifest.slot for one in read_catalog(repository, "database/").backups]

    assert failed.run.outcome is Outcome.FAILED
    assert after_failure == 2
    assert after_success == [ends_at, ends_at - timedelta(days=2)]


def test_a_dump_much_smaller_than_usual_is_told(empty_pg: PgServer, tmp_path: Path) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    repository = MemoryRepository()
    settings = dumps.settings_of(empty_pg, tmp_path)
    dumps.run_job(settings, [repository], tmp_path)
    empty_pg.execute('DROP TABLE people CASCADE; DROP TABLE parts, "Odd ""name"" ä"', "app")

    slot = dumps.SLOT + timedelta(days=1)
    job = dumps.run_job(settings, [repository], tmp_path, slot=slot)

    assert job.checks == {"database/main/app": "backup.shrunk"}


def test_a_manifest_that_cannot_be_read_is_told_and_stays(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    repository = MemoryRepository()
    repository.create("database/main/app/20200101T000000Z.json", b"{not a manifest")

    job = dumps.run_job(dumps.settings_of(empty_pg, tmp_path), [repository], tmp_path)

    assert job.checks == {"repository/memory": "backup.damaged"}
    assert "database/main/app/20200101T000000Z.json" in keys(repository)


def test_no_repository_at_all_fails_before_anything_is_dumped(
    pg: PgServer, tmp_path: Path
) -> None:
    job = dumps.run_job(dumps.settings_of(pg, tmp_path), [Unlisted("memory")], tmp_path)

    assert job.checks == {"repository/memory": "repository.unreachable"}
    assert job.run.outcome is Outcome.FAILED


def test_a_run_out_of_time_is_timed_out_and_says_what_is_missing(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    settings = dumps.settings_of(empty_pg, tmp_path, lock_wait="60s", databases=["app"])
    with empty_pg.connect("app", autocommit=False) as holder:
        holder.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")

        job = dumps.run_job(settings, [MemoryRepository()], tmp_path, timeout=timedelta(seconds=4))

    assert job.run.outcome is Outcome.TIMED_OUT
    assert "database/main/app" in job.run.error
    assert job.checks["database/main/app"] == "postgres.dump_failed"


@pytest.mark.parametrize(
    ("ca_file", "sslmode", "used"),
    [
        (None, "auto", "prefer"),
        ("/ca.pem", "auto", "verify-full"),
        ("/ca.pem", "verify-ca", "verify-ca"),
    ],
)
def test_tls_is_verified_as_soon_as_there_is_an_authority(
    ca_file: str | None, sslmode: str, used: str
) -> None:
    table = pgservers.ServerTable.model_validate(
        {"name": "main", "host": "db", "ca_file": ca_file, "sslmode": sslmode}
    )

    assert pgservers.server_of(table).sslmode == used


def test_two_servers_of_one_name_are_refused() -> None:
    server = {"name": "main", "host": "db"}

    with pytest.raises(ValidationError, match="duplicate"):
        postgres_backup.Settings.model_validate(
            {"repositories": ["usb"], "servers": [server, server]}
        )


def test_importing_the_jobs_loads_no_heavy_library() -> None:
    listed = "import sys, jobs; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", listed], check=True, capture_output=True, text=True
    )

    assert not {"psycopg", "boto3", "pyrage", "apprise"} & set(done.stdout.split())


def test_nothing_of_a_server_is_logged_that_is_secret(pg: PgServer, tmp_path: Path) -> None:
    server = dumps.server_of(pg, tmp_path)

    text = repr(dataclasses.asdict(server))

    assert pg.password not in text
