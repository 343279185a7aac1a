from __future__ import annotations

from pathlib import Path

import pytest

from opsd.backup.catalog import read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.backup.manifest import Level
from opsd.backup.pgrestore import drill, restore_database
from opsd.backup.pgsource import dump_source
from opsd.testing import MemoryRepository
from tests.conftest import PgOf
from tests.rig import dumps
from tests.rig.postgres import MAJORS

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
