from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from opsd.backup.catalog import read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.backup.manifest import Level, Manifest
from opsd.backup.postgres.restore import Damaged, RestoreFailed, drill, restore_database
from opsd.backup.postgres.roles import restore_globals
from opsd.backup.postgres.source import SCRATCH_PREFIX, dump_source
from opsd.errors import ConfigError, PermanentError, TransientError
from opsd.progress import NoProgress
from opsd.testing import MemoryRepository
from tests.conftest import PgOf
from tests.rig import dumps
from tests.rig.postgres import MAJORS, PgServer

pytestmark = pytest.mark.real


@pytest.mark.parametrize("major", MAJORS)
def test_a_dump_of_every_major_comes_back_row_by_row(
    pg_of: PgOf, major: int, tmp_path: Path
) -> None:
    pg = pg_of(major)
    database = pg.fresh_database()
    pg.execute(dumps.SAMPLE, database)
    repository = DirectoryRepository("local", tmp_path / "repository")
    (tmp_path / "repository").mkdir()

    delivery = dumps.dump(pg, database, [repository], tmp_path)
    manifest = delivery.published["local"].manifest
    comparison = restore_database(
        repository, manifest, dumps.into(pg, tmp_path), database=f"{database}_back"
    )

    assert {name: rows for name, (rows, _) in dump_source(manifest).rows.items()} == dumps.ROWS
    assert [one.level for one in manifest.verified] == ["read_back", "parsed"]
    [backup] = read_catalog(repository).backups
    assert backup.level is Level.PARSED
    assert comparison.matches
    assert comparison.compared == len(dumps.ROWS)
    with pg.connect(f"{database}_back") as connection:
        assert connection.execute("SELECT count(*), max(born) FROM people").fetchone()
        assert connection.execute("SELECT f()").fetchone() == (1,)


def test_a_drill_restores_compares_and_leaves_nothing(pg_of: PgOf, tmp_path: Path) -> None:
    pg = pg_of(MAJORS[-1])
    database = pg.fresh_database()
    pg.execute(dumps.SAMPLE, database)
    repository = MemoryRepository()
    manifest = dumps.dump(pg, database, [repository], tmp_path).published["memory"].manifest
    before = {one.name for one in dumps.facts_of(dumps.server_of(pg, tmp_path)).databases}

    verdict = drill(repository, manifest, dumps.into(pg, tmp_path))

    assert verdict.ok
    assert verdict.level == "restored"
    after = {one.name for one in dumps.facts_of(dumps.server_of(pg, tmp_path)).databases}
    assert after == before


def roundtrip(
    pg: PgServer, database: str, scratch: Path, **changed: Any
) -> tuple[MemoryRepository, Manifest]:
    """A dump of `database` in a repository of its own."""
    repository = MemoryRepository()
    delivery = dumps.dump(pg, database, [repository], scratch, **changed)
    return repository, delivery.published["memory"].manifest


def databases(pg: PgServer, scratch: Path) -> set[str]:
    return {one.name for one in dumps.facts_of(dumps.server_of(pg, scratch)).databases}


def test_an_existing_database_is_never_touched(empty_pg: PgServer, tmp_path: Path) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    repository, manifest = roundtrip(empty_pg, "app", tmp_path)
    empty_pg.execute("INSERT INTO people (name) VALUES ('new')", "app")

    with pytest.raises(PermanentError, match="exists and is not touched"):
        restore_database(repository, manifest, dumps.into(empty_pg, tmp_path))

    with empty_pg.connect("app") as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (1001,)


def test_a_damaged_backup_is_refused_before_the_server_is_touched(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    repository, manifest = roundtrip(empty_pg, "app", tmp_path)
    content = b"".join(repository.read(manifest.key))
    repository.replace(manifest.key, content[:-9] + b"X" + content[-8:])
    before = databases(empty_pg, tmp_path)

    with pytest.raises(Damaged, match="restore another backup"):
        restore_database(repository, manifest, dumps.into(empty_pg, tmp_path), database="back")

    assert databases(empty_pg, tmp_path) == before
    assert not drill(repository, manifest, dumps.into(empty_pg, tmp_path)).ok


def test_rows_that_differ_from_the_manifest_are_told(empty_pg: PgServer, tmp_path: Path) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    repository, manifest = roundtrip(empty_pg, "app", tmp_path)
    manifest.source["rows"]["public.people"] = (1001, True)
    manifest.source["rows"]["public.gone"] = (1, True)

    comparison = restore_database(
        repository, manifest, dumps.into(empty_pg, tmp_path), database="back"
    )
    verdict = drill(repository, manifest, dumps.into(empty_pg, tmp_path))

    assert comparison.differences == (
        "public.gone: missing",
        "public.people: 1000 rows, 1001 promised",
    )
    assert not comparison.matches
    assert not verdict.ok


def test_an_encrypted_dump_comes_back_with_its_identity_only(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    identities = [pyrage.x25519.Identity.generate() for _ in range(2)]
    for number, identity in enumerate(identities):
        (tmp_path / f"identity{number}").write_text(f"{identity}\n")
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    recipient = str(identities[0].to_public())

    repository, manifest = roundtrip(empty_pg, "app", tmp_path, recipients=[recipient])

    stored = b"".join(repository.read(manifest.key))
    assert stored.startswith(b"age-encryption.org/v1")
    assert [one.level for one in manifest.verified] == ["read_back", "parsed"]
    into = dumps.into(empty_pg, tmp_path)
    with pytest.raises(ConfigError, match="identity"):
        restore_database(repository, manifest, into, database="back")
    wrong = replace(into, identity=tmp_path / "identity1")
    with pytest.raises(PermanentError, match="no identity fits"):
        restore_database(repository, manifest, wrong, database="back")
    right = replace(into, identity=tmp_path / "identity0")
    assert restore_database(repository, manifest, right, database="back").matches
    assert databases(empty_pg, tmp_path) >= {"app", "back"}
    assert not [one for one in databases(empty_pg, tmp_path) if one.startswith(SCRATCH_PREFIX)]


def test_missing_roles_are_told_and_can_be_restored_first(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute("CREATE ROLE owner_of_app LOGIN PASSWORD 'first'; CREATE ROLE reader")
    empty_pg.execute("GRANT reader TO owner_of_app WITH ADMIN OPTION")
    empty_pg.execute("COMMENT ON ROLE reader IS 'it''s; a reader'")
    empty_pg.execute("ALTER ROLE reader SET search_path = 'a b', public")
    empty_pg.execute('CREATE ROLE "odd ""; role"')
    empty_pg.create_database("app")
    empty_pg.execute("ALTER DATABASE app OWNER TO owner_of_app")
    empty_pg.execute("CREATE TABLE t (a int); GRANT SELECT ON t TO reader", "app")
    empty_pg.execute("ALTER TABLE t OWNER TO owner_of_app", "app")
    repository, manifest = roundtrip(empty_pg, "app", tmp_path)
    roles = dumps.dump_roles(empty_pg, [repository], tmp_path)
    empty_pg.reset()
    empty_pg.execute("CREATE ROLE reader NOINHERIT PASSWORD 'changed since'")
    kept_before = role_of(empty_pg, "reader")
    into = dumps.into(empty_pg, tmp_path)

    with pytest.raises(PermanentError, match="owner_of_app; restore the roles first"):
        restore_database(repository, manifest, into)
    without = restore_database(
        repository, manifest, replace(into, owners=False), database="without_owners"
    )
    restored = restore_globals(repository, roles, into)
    comparison = restore_database(repository, manifest, into)

    assert without.matches
    assert comparison.matches
    assert set(restored.created) == {"owner_of_app", 'odd "; role'}
    assert set(restored.kept) == {"postgres", "reader"}
    assert role_of(empty_pg, "reader") == kept_before
    with empty_pg.connect("app", user="owner_of_app", password="first") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with empty_pg.connect() as connection:
        member = connection.execute("SELECT pg_has_role('owner_of_app', 'reader', 'MEMBER')")
        assert member.fetchone() == (True,)
        owner = connection.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'app'"
        )
        assert owner.fetchone() == ("owner_of_app",)


def role_of(pg: PgServer, name: str) -> object:
    with pg.connect() as connection:
        return connection.execute("SELECT * FROM pg_authid WHERE rolname = %s", [name]).fetchone()


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_settings_of_a_database_come_back_and_are_secret_beside_an_encrypted_dump(
    empty_pg: PgServer, tmp_path: Path, *, encrypted: bool
) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    empty_pg.create_database("app")
    empty_pg.execute("CREATE ROLE app_role")
    empty_pg.execute("ALTER DATABASE app SET search_path = 'odd schema', public")
    empty_pg.execute("ALTER DATABASE app SET default_transaction_read_only = on")
    empty_pg.execute("ALTER DATABASE app SET app.jwt_secret = 'canary=jwt'")
    empty_pg.execute("ALTER ROLE app_role IN DATABASE app SET work_mem = '7MB'")
    recipients = [str(identity.to_public())] if encrypted else []
    repository, manifest = roundtrip(empty_pg, "app", tmp_path, recipients=recipients)

    into = dumps.into(empty_pg, tmp_path, identity=tmp_path / "identity")
    comparison = restore_database(repository, manifest, into, database="back")

    assert ("canary=jwt" in str(manifest.source)) is not encrypted
    assert comparison.notes == ()
    with empty_pg.connect() as connection:
        rows = connection.execute(
            "SELECT d.datname, coalesce(r.rolname, ''), s.setconfig FROM pg_db_role_setting s"
            " JOIN pg_database d ON d.oid = s.setdatabase"
            " LEFT JOIN pg_roles r ON r.oid = s.setrole"
        ).fetchall()
    settings = {(database, role): sorted(config) for database, role, config in rows}
    assert "app.jwt_secret=canary=jwt" in settings["back", ""]
    assert settings["app", ""] == settings["back", ""]
    assert settings["app", "app_role"] == settings["back", "app_role"] == ["work_mem=7MB"]


def test_a_missing_extension_is_told_before_anything_is_read(pg_of: PgOf, tmp_path: Path) -> None:
    pg = pg_of(MAJORS[-1])
    repository, manifest = roundtrip(pg, pg.fresh_database(), tmp_path)
    manifest.source["extensions"]["postgis"] = "3.5"

    with pytest.raises(PermanentError, match="postgis; install their packages"):
        restore_database(repository, manifest, dumps.into(pg, tmp_path), database="new")


@pytest.mark.parametrize(("dumped_on", "restored_on"), [(14, 18), (18, 18), (15, 17)])
def test_a_dump_goes_into_a_newer_server(
    pg_of: PgOf, tmp_path: Path, dumped_on: int, restored_on: int
) -> None:
    old, new = pg_of(dumped_on), pg_of(restored_on)
    database = old.fresh_database()
    old.execute(dumps.SAMPLE, database)
    repository, manifest = roundtrip(old, database, tmp_path)

    comparison = restore_database(
        repository, manifest, dumps.into(new, tmp_path), database=f"{database}_new"
    )

    assert comparison.matches


def test_a_dump_by_a_newer_client_goes_back_into_its_older_server(
    pg_of: PgOf, tmp_path: Path
) -> None:
    old, newest = pg_of(16), dumps.tools_of(pg_of(18))
    database = old.fresh_database()
    old.execute(dumps.SAMPLE, database)

    repository, manifest = roundtrip(old, database, tmp_path, tools=newest[0])
    comparison = restore_database(
        repository,
        manifest,
        dumps.into(old, tmp_path, tools=newest),
        database=f"{database}_back",
    )

    assert dump_source(manifest).client_is_newer
    assert comparison.matches
    assert comparison.compared == len(dumps.ROWS)


def test_an_archive_that_the_server_rejects_leaves_nothing_behind(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    empty_pg.execute("CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT 1'", "app")
    # A restore computes it, and what it needs is a setting that the new database lacks.
    empty_pg.execute("ALTER DATABASE app SET my.setting = '1'")
    empty_pg.execute(
        "CREATE MATERIALIZED VIEW needs AS SELECT current_setting('my.setting')", "app"
    )
    repository, manifest = roundtrip(empty_pg, "app", tmp_path)
    before = databases(empty_pg, tmp_path)
    into = dumps.into(empty_pg, tmp_path)

    with pytest.raises(RestoreFailed, match=r"my\.setting"):
        restore_database(repository, manifest, into, database="back")
    verdict = drill(repository, manifest, into)

    assert databases(empty_pg, tmp_path) == before
    assert not verdict.ok
    assert "my.setting" in verdict.detail


def test_a_server_that_ends_during_a_restore_is_no_verdict_on_the_backup(
    pg: PgServer, own_pg: PgServer, tmp_path: Path
) -> None:
    database = pg.fresh_database()
    pg.execute(dumps.SAMPLE, database)
    repository, manifest = roundtrip(pg, database, tmp_path)

    class Ending(NoProgress):
        def update(self, step: str, **_: object) -> None:
            if step.startswith("restore "):
                own_pg.kill()

    with pytest.raises(TransientError):
        drill(repository, manifest, dumps.into(own_pg, tmp_path, progress=Ending()))
    own_pg.start()
    assert "app" not in databases(own_pg, tmp_path)


def test_an_empty_database_comes_back_as_promised(pg: PgServer, tmp_path: Path) -> None:
    database = pg.fresh_database()
    repository, manifest = roundtrip(pg, database, tmp_path)

    comparison = restore_database(
        repository, manifest, dumps.into(pg, tmp_path), database=f"{database}_back"
    )

    assert comparison.matches
    assert comparison.compared == 0
