"""An owner's whole installation in one folder: config.toml, a share, a repository, a phone."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from opsd.backup.catalog import Condition, read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.cli.calling import STATE_FILE
from opsd.clock import SystemClock
from opsd.model import Run
from opsd.state.sqlite import SqliteState
from tests.rig.postgres import PgServer
from tests.rig.s3 import S3Server

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "CANARY_PG": "canary-postgres-password",
    "CANARY_RESTIC": "canary-restic-password",
}
END_S = 120  # no command of a test takes longer

POSTGRES = """
[jobs.postgres-backup]
repositories = {repositories}
client_dirs = ["{bin_dir}"]
recipients = {recipients}
timeout = "2m"
keep = {{ last = 3, daily = 0, weekly = 0, monthly = 0, minimum = 2 }}

[[jobs.postgres-backup.servers]]
name = "main"
host = "localhost"
port = {port}
user = "{user}"
password = "env:CANARY_PG"
ca_file = "{ca_file}"
databases = {databases}
"""
SHARE = """
[[jobs.nfs-backup.shares]]
name = "{name}"
path = "{path}"
mounted = {mounted}
engine = "{engine}"
repository = "{repository}"
"""


def await_stopped(process: subprocess.Popen[str]) -> None:
    """Wait until a failpoint stopped the process, so that something can be done to it.

    Raises:
        AssertionError: it ended instead.
    """
    while process.poll() is None:
        if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return
        time.sleep(0.02)
    raise AssertionError(f"it ended with {process.returncode}: {process.communicate()[1]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command of opsd that ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What it printed with ``-o json``."""
        printed: dict[str, Any] = json.loads(self.out)
        return printed


@dataclass
class Home:
    """One installation; `write` its configuration before `opsd` is used."""

    place: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(SECRETS))
    is_measured: bool = True  #: whether coverage counts its commands, at 0.4 s of each
    disk: Path | None = None  #: where the repository ``disk`` lies, if not in `place`

    command: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "opsd")

    @property
    def config(self) -> Path:
        """Its config.toml."""
        return self.place / "config.toml"

    @property
    def repository(self) -> Path:
        """Its repository ``disk``, a directory."""
        return self.disk or self.place / "repository"

    @property
    def share(self) -> Path:
        """The share that it backs up."""
        return self.place / "share"

    def write(self, *tables: str, alerts: str = "") -> None:
        """Write config.toml with the repository ``disk`` and the given tables."""
        self.repository.mkdir(exist_ok=True)
        target = '[[alerts.targets]]\nname = "phone"\nurl = "env:CANARY_PHONE"\n'
        head = f'[opsd]\nstate_dir = "{self.place}/state"\n'
        disk = f'[repositories.disk]\ntype = "directory"\npath = "{self.repository}"\n'
        self.environment["CANARY_PHONE"] = alerts
        self.config.write_text("\n".join((head, disk, target if alerts else "", *tables)))

    def postgres(
        self, pg: PgServer, *, repositories: Sequence[str] = ("disk",), **changed: Any
    ) -> str:
        """The job's table for one server."""
        self.environment["CANARY_PG"] = changed.pop("password", pg.password)
        return POSTGRES.format(
            repositories=json.dumps(list(repositories)),
            recipients=json.dumps(list(changed.pop("recipients", ()))),
            databases=json.dumps(list(changed.pop("databases", ("*",)))),
            **{
                "bin_dir": pg.bin_dir,
                "port": pg.port,
                "user": pg.superuser,
                "ca_file": pg.ca_file,
                **changed,
            },
        )

    def shares(self, *engines: str, repository: str = "disk", mounted: bool = False) -> str:
        """The job's table with the share once for each engine, under the engine's name."""
        tables = [
            SHARE.format(
                name=engine,
                path=self.share,
                engine=engine,
                repository=repository,
                mounted=str(mounted).lower(),
            )
            + ('password = "env:CANARY_RESTIC"\n' if engine == "restic" else "")
            for engine in engines
        ]
        return "\n".join(('[jobs.nfs-backup]\ntimeout = "2m"\n', *tables))

    def bucket(self, server: S3Server, *, endpoint: str = "", bucket: str = "") -> str:
        """The table of a repository ``offsite`` in a new bucket; its keys go by environment."""
        self.environment["CANARY_S3_ACCESS"] = server.access_key
        self.environment["CANARY_S3_SECRET"] = server.secret_key
        return f"""
[repositories.offsite]
type = "s3"
endpoint = "{endpoint or server.endpoint}"
bucket = "{bucket or server.make_bucket()}"
region = "{server.region}"
access_key = "env:CANARY_S3_ACCESS"
secret_key = "env:CANARY_S3_SECRET"
"""

    def fill_share(self) -> None:
        """A few files in two volumes."""
        for volume in ("default-photos-pvc-1", "default-notes-pvc-2"):
            (self.share / volume / "deep").mkdir(parents=True)
            for number in range(20):
                content = f"{volume} {number}\n" * (1 + number * 40)
                (self.share / volume / "deep" / f"file {number}.txt").write_text(content)

    def opsd(self, *arguments: str, launcher: Sequence[str] = ()) -> Done:
        """Run ``opsd ARGUMENTS`` to its end; `launcher` replaces ``python -m opsd``."""
        done = subprocess.run(
            [*(launcher or self.command), *arguments],
            env=self.process_environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=END_S,
            check=False,
        )
        return Done(status=done.returncode, out=done.stdout, err=done.stderr)

    @contextlib.contextmanager
    def running(
        self, *arguments: str, launcher: Sequence[str] = ()
    ) -> Iterator[subprocess.Popen[str]]:
        """``opsd ARGUMENTS`` under way; killed at the end of the block if it still runs."""
        with subprocess.Popen(
            [*(launcher or self.command), *arguments],
            env=self.process_environment(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def process_environment(self) -> Mapping[str, str]:
        """What its commands see."""
        seen = {**os.environ, **self.environment, "OPSD_CONFIG": str(self.config)}
        if not self.is_measured:
            seen.pop("COVERAGE_PROCESS_CONFIG", None)
        return seen

    def good_backups(self) -> dict[str, int]:
        """How many good backups the repository ``disk`` holds of each subject."""
        catalog = read_catalog(DirectoryRepository("disk", self.repository))
        found: dict[str, int] = {}
        for backup in catalog.backups:
            subject = backup.manifest.subject
            found[subject] = found.get(subject, 0) + (backup.condition is Condition.GOOD)
        return found

    def runs(self, job: str) -> tuple[Run, ...]:
        """What its state remembers of `job`, newest first."""
        state = SqliteState(self.place / "state" / STATE_FILE, clock=SystemClock())
        try:
            return state.runs(job=job)
        finally:
            state.close()

    def leftovers(self) -> list[str]:
        """Temporary files, and data that no manifest names, in the repository ``disk``."""
        files = [path for path in self.repository.rglob("*") if path.is_file()]
        manifests = {
            json.loads(path.read_text())["key"]
            for path in files
            if path.suffix == ".json"
            and ".verified-" not in path.name
            and "restic" not in path.parts
        }
        return [
            str(path.relative_to(self.repository))
            for path in files
            if ".partial-" in str(path)
            or path.suffix == ".tombstone"
            or (
                path.suffix in {".dump", ".sql", ".age"}
                and str(path.relative_to(self.repository)) not in manifests
            )
        ]
