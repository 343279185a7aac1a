"""Dumps on their way into every kind of repository: bounded memory, S3, crashes."""

from __future__ import annotations

import copy
import multiprocessing
import resource
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from opsd.backup.catalog import read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.backup.postgres.restore import restore_database
from opsd.model import Outcome
from opsd.testing import MemoryRepository
from tests.faults.failpoints import Failpoint, arm
from tests.rig import dumps
from tests.rig.postgres import PgServer
from tests.rig.repositories import s3_repository
from tests.rig.s3 import S3Server

pytestmark = pytest.mark.real

RECIPIENT = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"
LARGE_MIB = 128
GROWTH_MIB = 32  # pieces in flight, buffers of the encryption, the interpreter's own


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def told(pg: PgServer) -> PgServer:
    """The server as another process can be told of it, which did not start it."""
    other = copy.copy(pg)
    other.server = None
    return other


def dump_in_child(pg: PgServer, database: str, scratch: Path) -> tuple[float, float]:
    """Peak memory of this process before and after two large dumps."""
    repository = DirectoryRepository("local", scratch / "repository")
    small = MemoryRepository()
    dumps.dump(pg, "postgres", [small], scratch, recipients=[RECIPIENT])
    before = peak_mib()
    dumps.dump(pg, database, [repository], scratch, run_id="plain0000000")
    for entry in list(repository.list("")):
        repository.delete(entry.key)
    dumps.dump(pg, database, [repository], scratch, recipients=[RECIPIENT])
    return before, peak_mib()


def test_memory_does_not_grow_with_a_dump(pg: PgServer, tmp_path: Path) -> None:
    database = pg.fresh_database()
    with pg.connect(database) as connection:
        connection.execute("CREATE EXTENSION pgcrypto")
        connection.execute("CREATE TABLE noise (content bytea STORAGE EXTERNAL)")
        connection.execute(
            "INSERT INTO noise SELECT gen_random_bytes(1024) || gen_random_bytes(1024)"
            " FROM generate_series(1, %s)",
            [LARGE_MIB * 512],
        )
    (tmp_path / "repository").mkdir()
    repository = DirectoryRepository("local", tmp_path / "repository")
    spawn = multiprocessing.get_context("spawn")

    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        child = pool.submit(dump_in_child, told(pg), database, tmp_path)
        before, after = child.result()

    pg.execute(f"DROP DATABASE {database}")
    [stored] = [one for one in repository.list("") if one.key.endswith(".dump.age")]
    assert stored.size_bytes > LARGE_MIB << 20
    assert after - before < GROWTH_MIB


def test_a_dump_goes_to_s3_and_comes_back(
    empty_pg: PgServer, s3_server: S3Server, tmp_path: Path
) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    offsite = s3_repository(s3_server, tmp_path)
    (tmp_path / "repository").mkdir()
    local = DirectoryRepository("local", tmp_path / "repository")
    settings = dumps.settings_of(empty_pg, tmp_path, repositories=[offsite.name, "local"])

    job = dumps.run_job(settings, [offsite, local], tmp_path)

    assert job.run.outcome is Outcome.COMPLETED
    for repository in (offsite, local):
        backups = read_catalog(repository).backups
        assert {one.level.label for one in backups} == {"parsed"}
        [app] = [one for one in backups if one.manifest.subject == "database/main/app"]
        name = f"back_{repository.name}"
        into = dumps.into(empty_pg, tmp_path)
        assert restore_database(repository, app.manifest, into, database=name).matches
    assert [one.key for one in offsite.list("")] == [one.key for one in local.list("")]
    assert not list(offsite.unfinished(""))


# The first run still publishes the roles, so that the others die over the database.
DEATHS = (
    Failpoint(at="opsd.backup.postgres.dump:dump_database", do="kill"),
    Failpoint(at="opsd.backup.directory:DirectoryRepository.upload", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:_DirectoryUpload.write", when="after", do="kill"),
    Failpoint(at="opsd.backup.directory:_DirectoryUpload.commit", when="after", do="kill"),
    Failpoint(at="opsd.backup.catalog:publish", do="kill"),
)


def run_and_die(pg: PgServer, scratch: Path, run_id: str, death: Failpoint) -> None:
    repository = DirectoryRepository("local", scratch / "repository")
    settings = dumps.settings_of(pg, scratch, databases=["app"], concurrency=1)
    settings = settings.model_copy(update={"repositories": (repository.name,)})
    arm(death)
    dumps.run_job(settings, [repository], scratch, run_id=run_id)


def test_a_run_killed_anywhere_and_run_again_publishes_once(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute(dumps.SAMPLE, empty_pg.create_database("app"))
    (tmp_path / "repository").mkdir()
    repository = DirectoryRepository("local", tmp_path / "repository")
    server = multiprocessing.get_context("forkserver")  # loads everything once
    server.set_forkserver_preload([run_and_die.__module__])
    dead = {f"{number:012x}": death for number, death in enumerate(DEATHS)}

    for run_id, death in dead.items():
        arguments = (told(empty_pg), tmp_path, run_id, death)
        child = server.Process(target=run_and_die, args=arguments)
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    settings = dumps.settings_of(empty_pg, tmp_path, databases=["app"], repositories=["local"])
    job = dumps.run_job(
        settings, [repository], tmp_path, dead_runs=frozenset(dead), run_id="f" * 12
    )

    assert job.run.outcome is Outcome.COMPLETED
    keys = [one.key for one in repository.list("database/")]
    assert len(keys) == 2
    assert not list(repository.unfinished(""))
    [backup] = read_catalog(repository, "database/").backups
    assert backup.manifest.run_id == "f" * 12
