"""Every way in which a dump goes wrong, caused for real.

The bar: none is reported green, none loses an older good backup, nothing half-made stays.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.backup.catalog import read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.backup.postgres.dump import DumpFailed
from opsd.backup.postgres.tools import PROGRAMS, Tools
from opsd.backup.repository import Repository
from opsd.backup.stream import Incomplete
from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded, OpsdError
from opsd.model import Outcome
from opsd.progress import NoProgress, Unit
from opsd.testing import MemoryRepository
from tests.rig import dumps
from tests.rig.postgres import MAJORS, PgServer, bin_dir

pytestmark = pytest.mark.real

NEWEST = MAJORS[-1]
RECIPIENT = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"
POINTS = 24  # places at which pg_dump is killed
LARGE_ROWS = 40_000  # of a kilobyte that does not compress: more than all buffers on the way

# pg_dump as it is, but for the end of its output: cut after $cut bytes, status $status.
WRAPPER = """\
#!/bin/bash
case "$*" in *--version*) exec {real} "$@";; esac
if [ "{status}" = killed ]; then
    {real} "$@" | head -c {cut}
    kill -KILL $$
fi
{real} "$@" 2>/dev/null | head -c {cut}
exit {status}
"""


class Trigger(NoProgress):
    """Does something once, as soon as the first bytes of a dump have passed."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._action = action
        self._once = threading.Lock()

    def update(
        self,
        step: str,
        *,
        done: int | None = None,
        total: int | None = None,  # noqa: ARG002 - protocol
        unit: Unit = "bytes",  # noqa: ARG002
    ) -> None:
        if step.startswith("dump ") and done and self._once.acquire(blocking=False):
            self._action()


def wrapped(pg: PgServer, directory: Path, *, cut: int, status: str) -> Tools:
    """Client programs whose pg_dump ends early."""
    directory.mkdir()
    for program in PROGRAMS:
        (directory / program).symlink_to(pg.bin_dir / program)
    (directory / "pg_dump").unlink()
    script = WRAPPER.format(real=pg.bin_dir / "pg_dump", cut=cut, status=status)
    (directory / "pg_dump").write_text(script)
    (directory / "pg_dump").chmod(0o755)
    return Tools(bin_dir=directory, major=pg.major, version="0")


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


Sample = tuple[PgServer, str, int]


@pytest.fixture(scope="module")
def sample(pg: PgServer, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A server, a small database on it, and the size of its dump."""
    database = pg.fresh_database()
    pg.execute(dumps.SAMPLE, database)
    delivery = dumps.dump(pg, database, [MemoryRepository()], tmp_path_factory.mktemp("whole"))
    return pg, database, delivery.published["memory"].manifest.size_bytes


def large_database(pg: PgServer, name: str) -> str:
    pg.create_database(name)
    with pg.connect(name) as connection:
        connection.execute("CREATE EXTENSION pgcrypto")
        connection.execute("CREATE TABLE large (id int, noise bytea STORAGE EXTERNAL)")
        connection.execute(
            "INSERT INTO large SELECT i, gen_random_bytes(1000) FROM generate_series(1, %s) i",
            [LARGE_ROWS],
        )
    return name


@contextlib.contextmanager
def nothing_is_left(repositories: Sequence[Repository]) -> Iterator[None]:
    """Whatever happens inside, the repositories hold afterwards what they held before."""
    before = [[one.key for one in repository.list("")] for repository in repositories]
    yield
    assert [[one.key for one in repository.list("")] for repository in repositories] == before
    assert not any(list(repository.unfinished("")) for repository in repositories)


@pytest.mark.parametrize("point", range(POINTS))
def test_a_pg_dump_killed_at_any_byte_leaves_nothing(
    sample: Sample, tmp_path: Path, point: int
) -> None:
    pg, database, size = sample
    cut = random.Random(point).randrange(size)  # noqa: S311 - not for secrets
    (tmp_path / "repository").mkdir()
    repositories: list[Repository] = [
        MemoryRepository(),
        DirectoryRepository("local", tmp_path / "repository"),
    ]
    tools = wrapped(pg, tmp_path / "bin", cut=cut, status="killed")

    with nothing_is_left(repositories), pytest.raises(DumpFailed, match="signal 9"):
        dumps.dump(pg, database, repositories, tmp_path, tools=tools)

    assert files_in(tmp_path / "repository") == []


@pytest.mark.parametrize("recipients", [[], [RECIPIENT]], ids=["plain", "encrypted"])
@pytest.mark.parametrize("percent", [0, 10, 50, 90, 99])
def test_a_dump_cut_short_by_a_program_that_reports_success_is_found(
    sample: Sample, tmp_path: Path, percent: int, recipients: list[str]
) -> None:
    pg, database, size = sample
    repositories = [MemoryRepository("a"), MemoryRepository("b")]
    tools = wrapped(pg, tmp_path / "bin", cut=percent * size // 100, status="0")

    with nothing_is_left(repositories), pytest.raises(Incomplete):
        dumps.dump(pg, database, repositories, tmp_path, tools=tools, recipients=recipients)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_ends_during_a_dump_leaves_nothing(
    own_pg: PgServer, tmp_path: Path, how: str
) -> None:
    large_database(own_pg, "large")
    repository = MemoryRepository()
    end = {"stop": own_pg.stop, "kill": own_pg.kill}[how]

    with nothing_is_left([repository]), pytest.raises(OpsdError) as caught:
        dumps.dump(own_pg, "large", [repository], tmp_path, progress=Trigger(end))

    assert "large" in str(caught.value)
    assert "main" in str(caught.value)


def signal_all(pg: PgServer, number: signal.Signals) -> None:
    """Send a signal to the server and all its backends."""
    postmaster = int((pg.data_dir / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    for pid in (postmaster, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_a_server_that_freezes_during_a_dump_ends_at_the_deadline(
    own_pg: PgServer, tmp_path: Path
) -> None:
    large_database(own_pg, "large")
    repository = MemoryRepository()
    freeze = Trigger(lambda: signal_all(own_pg, signal.SIGSTOP))
    deadline = Deadline.after(6, SystemClock())

    try:
        with nothing_is_left([repository]), pytest.raises((DeadlineExceeded, OpsdError)):
            dumps.dump(own_pg, "large", [repository], tmp_path, progress=freeze, deadline=deadline)
    finally:
        signal_all(own_pg, signal.SIGCONT)

    assert deadline.clock.monotonic() >= deadline.at


def test_a_frozen_server_is_unreachable_and_the_job_goes_on(
    own_pg: PgServer, empty_pg: PgServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.clients.postgres.CONNECT_TIMEOUT_S", 2)
    repository = MemoryRepository()
    settings = dumps.settings_of(empty_pg, tmp_path)
    other = dumps.settings_of(own_pg, tmp_path, name="frozen").servers[0]
    settings = settings.model_copy(update={"servers": (other, *settings.servers)})
    signal_all(own_pg, signal.SIGSTOP)

    try:
        job = dumps.run_job(settings, [repository], tmp_path)
    finally:
        signal_all(own_pg, signal.SIGCONT)

    assert job.run.outcome is Outcome.FAILED
    assert job.checks == {"server/frozen": "postgres.unreachable"}
    assert "timeout" in str(job.finding("postgres.unreachable").facts["error"])
    assert job.artifact("database/main/postgres").level == "parsed"


@pytest.mark.parametrize(
    ("changed", "sign"),
    [
        ({"port": 1}, "is PostgreSQL running"),
        ({"user": "nobody_here"}, "check the password"),
        ({"ca_file": None, "sslmode": "disable"}, "pg_hba.conf"),
        ({"host": "host.invalid"}, "check the host name"),
        ({"maintenance_database": "gone"}, "does not exist"),
    ],
)
def test_a_server_that_does_not_let_us_in_says_what_to_do(
    pg: PgServer, tmp_path: Path, changed: dict[str, object], sign: str
) -> None:
    job = dumps.run_job(dumps.settings_of(pg, tmp_path, **changed), [MemoryRepository()], tmp_path)

    error = str(job.finding("postgres.unreachable").facts["error"])
    assert sign in error
    assert "server main" in error
    assert job.run.outcome is Outcome.FAILED
    assert not job.run.artifacts


def test_a_wrong_password_never_stands_in_what_is_told(pg: PgServer, tmp_path: Path) -> None:
    settings = dumps.settings_of(pg, tmp_path)
    wrong = dumps.server_of(pg, tmp_path, password="canary-password").password
    assert wrong is not None
    table = settings.servers[0].model_copy(update={"password": wrong})

    job = dumps.run_job(
        settings.model_copy(update={"servers": (table,)}), [MemoryRepository()], tmp_path
    )

    assert "check the password" in str(job.finding("postgres.unreachable").facts["error"])
    assert "canary-password" not in repr(job.run)


def test_a_certificate_of_another_authority_is_refused(
    pg: PgServer, own_pg: PgServer, tmp_path: Path
) -> None:
    settings = dumps.settings_of(pg, tmp_path, ca_file=str(own_pg.ca_file))

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path)

    assert "check ca_file" in str(job.finding("postgres.unreachable").facts["error"])


def test_a_server_out_of_connections_fails_and_names_the_limit(
    empty_pg: PgServer, tmp_path: Path
) -> None:
    empty_pg.execute("CREATE ROLE few LOGIN SUPERUSER CONNECTION LIMIT 1 PASSWORD 'few'")
    # The limit of a role does not hold for superusers.
    empty_pg.execute("ALTER ROLE few NOSUPERUSER; GRANT pg_read_all_data TO few")
    password = dumps.server_of(empty_pg, tmp_path, password="few").password
    assert password is not None
    settings = dumps.settings_of(
        empty_pg, tmp_path, user="few", password=password.reference, databases=["postgres"]
    )
    repository = MemoryRepository()

    job = dumps.run_job(settings, [repository], tmp_path)

    assert job.run.outcome is Outcome.FAILED
    [told] = [one for one in job.run.findings if one.subject == "database/main/postgres"]
    assert told.check == "postgres.dump_failed"
    assert "too many connections" in str(told.facts["error"])
    assert read_catalog(repository, "database/").backups == ()


def test_a_client_older_than_the_server_is_told_with_the_package_to_install(
    pg: PgServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    settings = dumps.settings_of(pg, tmp_path, client_dirs=[str(bin_dir(MAJORS[0]))])

    job = dumps.run_job(settings, [MemoryRepository()], tmp_path)

    assert job.checks == {"server/main": "postgres.client_missing"}
    error = str(job.finding("postgres.client_missing").facts["error"])
    assert f"postgresql-client-{NEWEST}" in error


def test_a_repository_that_fills_up_keeps_nothing_half_made(
    pg: PgServer, tmp_path: Path, small_tmpfs: Callable[[str], Path]
) -> None:
    database = large_database(pg, f"large_{os.getpid()}")
    full = DirectoryRepository("full", small_tmpfs("8m"))
    good = MemoryRepository("good")

    with nothing_is_left([full]):
        delivery = dumps.dump(pg, database, [full, good], tmp_path)

    pg.execute(f"DROP DATABASE {database}")
    assert set(delivery.failures) == {"full"}
    assert "full" in str(delivery.failures["full"])
    assert set(delivery.published) == {"good"}


def test_a_failed_run_leaves_the_older_good_backups(own_pg: PgServer, tmp_path: Path) -> None:
    repository = MemoryRepository()
    settings = dumps.settings_of(own_pg, tmp_path)
    dumps.run_job(settings, [repository], tmp_path)
    good = [one.key for one in repository.list("")]
    own_pg.kill()

    for day in (1, 2, 3):
        slot = dumps.SLOT + timedelta(days=day)
        job = dumps.run_job(settings, [repository], tmp_path, slot=slot)
        assert job.run.outcome is Outcome.FAILED

    assert [one.key for one in repository.list("")] == good
