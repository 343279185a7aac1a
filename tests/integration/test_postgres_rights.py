"""A role with as few rights as possible makes whole dumps, or says what it lacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobs import postgres_backup
from opsd.backup.catalog import read_catalog
from opsd.backup.manifest import Manifest
from opsd.backup.naming import subject
from opsd.backup.postgres import tools as pgtools
from opsd.backup.postgres.restore import restore_database
from opsd.backup.postgres.source import dump_source, globals_source
from opsd.clock import Deadline, SystemClock
from opsd.model import Outcome
from opsd.testing import MemoryRepository
from tests.conftest import PgOf
from tests.rig import dumps
from tests.rig.postgres import MAJORS, PgServer

pytestmark = pytest.mark.real

PASSWORD = "least: of\\all"  # what a password file must escape
ROLE = (
    "CREATE ROLE opsd_backup LOGIN BYPASSRLS CONNECTION LIMIT 10 PASSWORD 'least: of\\all';"
    " GRANT pg_read_all_data TO opsd_backup;"
    " ALTER ROLE opsd_backup SET default_transaction_read_only = on"
)
HOSTILE = (
    "host=127.0.0.1 port=1 dbname=x",
    "postgresql://127.0.0.1:1/x",
    "a\nb",
    'it\'s "quoted"',
    "back\\slash",
    "-f/tmp/x",
    "../../etc/passwd",
    "🦀 emoji ä",
    "x" * 63,
    "%s $HOME `id` ;",
    " leading and trailing ",
)


def settings_as(pg: PgServer, scratch: Path, **changed: object) -> postgres_backup.Settings:
    """Settings for the least-privilege role."""
    password = dumps.server_of(pg, scratch, password=PASSWORD).password
    assert password is not None
    return dumps.settings_of(
        pg, scratch, user="opsd_backup", password=password.reference, **changed
    )


def newest(repository: MemoryRepository, of: str) -> Manifest:
    return read_catalog(repository, f"{of}/").backups[0].manifest


@pytest.mark.parametrize("major", MAJORS)
def test_the_documented_role_backs_up_everything(pg_of: PgOf, tmp_path: Path, major: int) -> None:
    pg = pg_of(major)
    pg.reset()
    pg.execute(ROLE)
    pg.execute(dumps.SAMPLE, pg.create_database("app"))
    for word in ("ENABLE", "FORCE"):
        pg.execute(f"ALTER TABLE people {word} ROW LEVEL SECURITY", "app")
    repository = MemoryRepository()

    job = dumps.run_job(settings_as(pg, tmp_path), [repository], tmp_path)

    assert job.run.outcome is Outcome.COMPLETED
    assert job.run.findings == ()
    assert dump_source(newest(repository, "database/main/app")).rows["public.people"] == (
        1000,
        True,
    )
    assert globals_source(newest(repository, "globals/main")).passwords


def test_row_level_security_is_told_with_the_statement_that_mends_it(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute(ROLE.replace("BYPASSRLS", ""))
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    empty_pg.execute("ALTER TABLE people ENABLE ROW LEVEL SECURITY", "app")
    repository = MemoryRepository()

    job = dumps.run_job(settings_as(empty_pg, tmp_path), [repository], tmp_path)

    assert job.checks == {"database/main/app": "postgres.rights_missing"}
    told = job.finding("postgres.rights_missing")
    assert "public.people" in str(told.facts["error"])
    empty_pg.execute(told.remedy)
    again = dumps.run_job(settings_as(empty_pg, tmp_path), [repository], tmp_path)
    assert again.run.outcome is Outcome.COMPLETED


def test_missing_rights_are_told_with_the_statement_that_mends_them(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute("CREATE ROLE opsd_backup LOGIN BYPASSRLS PASSWORD 'least: of\\all'")
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    settings = settings_as(empty_pg, tmp_path, databases=["app"])
    repository = MemoryRepository()

    job = dumps.run_job(settings, [repository], tmp_path)

    assert job.checks == {"database/main/app": "postgres.rights_missing"}
    assert job.finding("postgres.no_role_passwords").subject == "server/main"
    assert not globals_source(newest(repository, "globals/main")).passwords
    empty_pg.execute(job.finding("postgres.rights_missing").remedy)
    again = dumps.run_job(settings, [repository], tmp_path)
    assert again.run.outcome is Outcome.COMPLETED


def test_large_objects_that_cannot_be_read_are_told_or_left_out_on_demand(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute(ROLE)
    empty_pg.create_database("app")
    empty_pg.execute("SELECT lo_create(4711), lo_create(4712)", "app")
    empty_pg.execute("GRANT SELECT ON LARGE OBJECT 4711 TO opsd_backup", "app")
    repository = MemoryRepository()

    required = dumps.run_job(settings_as(empty_pg, tmp_path), [repository], tmp_path)
    skipped = dumps.run_job(
        settings_as(empty_pg, tmp_path, large_objects="skip"), [repository], tmp_path
    )

    told = required.finding("postgres.rights_missing")
    assert "1 of 2 large objects" in str(told.facts["error"])
    assert required.run.outcome is Outcome.FAILED
    assert skipped.checks == {"database/main/app": "postgres.partial_dump"}
    source = dump_source(newest(repository, "database/main/app"))
    assert source.partial == ("2 large objects",)
    assert source.large_objects == 0


def test_large_objects_come_back(empty_pg: PgServer, tmp_path: Path) -> None:
    empty_pg.create_database("app")
    empty_pg.execute("SELECT lo_from_bytea(4711, 'content')", "app")
    repository = MemoryRepository()
    manifest = dumps.dump(empty_pg, "app", [repository], tmp_path).published["memory"].manifest

    comparison = restore_database(
        repository, manifest, dumps.into(empty_pg, tmp_path), database="back"
    )

    assert comparison.matches
    with empty_pg.connect("back") as connection:
        assert connection.execute("SELECT lo_get(4711)").fetchone() == (b"content",)


def test_no_name_of_a_database_is_obeyed(empty_pg: PgServer, tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        empty_pg.execute(f"CREATE TABLE t{number} (a int)", empty_pg.create_database(name))
    repository = MemoryRepository()

    job = dumps.run_job(dumps.settings_of(empty_pg, tmp_path), [repository], tmp_path)

    assert job.run.outcome is Outcome.COMPLETED
    for number, name in enumerate(HOSTILE):
        manifest = newest(repository, subject("database", "main", name))
        assert dump_source(manifest).database == name
        assert dump_source(manifest).rows == {f"public.t{number}": (0, True)}
        empty_pg.execute(f"DROP DATABASE {_quoted(name)}")
        assert restore_database(repository, manifest, dumps.into(empty_pg, tmp_path)).matches
        with empty_pg.connect(name) as connection:
            there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f"t{number}"])
            assert there.fetchone() == (True,)


def test_a_password_stands_neither_in_arguments_nor_in_the_environment(
    pg: PgServer, tmp_path: Path
) -> None:
    server = dumps.server_of(pg, tmp_path, password=PASSWORD)

    with pgtools.environment(server, "x") as env:
        told = subprocess.run(
            ["cat", env["PGPASSFILE"]], check=True, capture_output=True, text=True
        ).stdout
        mode = subprocess.run(
            ["stat", "-L", "-c", "%a", env["PGPASSFILE"]],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert PASSWORD not in repr(env)
    assert told == "*:*:*:*:least\\: of\\\\all\n"
    assert mode == "600\n"


def test_the_password_file_is_gone_afterwards(pg: PgServer, tmp_path: Path) -> None:
    with pgtools.environment(dumps.server_of(pg, tmp_path), "x") as env:
        place = Path(env["PGPASSFILE"])
        assert place.exists()

    assert not place.exists() or "pgpass" not in str(place.resolve())


def test_the_best_compression_of_each_version_is_found(pg_of: PgOf) -> None:
    deadline = Deadline.after(60, SystemClock())

    found = {
        major: pgtools.compression(dumps.tools_of(pg_of(major))[0], deadline=deadline)
        for major in (14, 18)
    }

    assert found == {14: "gzip:1", 18: "zstd:1"}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
