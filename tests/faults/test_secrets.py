"""A whole run with canaries for secrets: none is anywhere that it should not be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.rig import scratch
from tests.rig import sink as http_sink
from tests.rig.home import Home
from tests.rig.postgres import PgServer
from tests.rig.s3 import S3Server
from tests.rig.sink import Sink

pytestmark = [
    pytest.mark.real,
    pytest.mark.usefixtures("restic"),
]

RESTIC = "canary-restic-Passw0rd"
WRONG = "canary-wrong-Passw0rd"
TOKEN = "canary-phone-Passw0rd"


@dataclass(frozen=True, slots=True)
class Program:
    """A process as its neighbours see it."""

    name: str
    command: bytes
    environment: bytes


class Watch:
    """Samples the children of a process for as long as it runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self.seen: set[Program] = set()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._done.wait(0.02):
            for pid in children(self._pid):
                try:
                    place = Path(f"/proc/{pid}")
                    environment = (place / "environ").read_bytes()
                    command = (place / "cmdline").read_bytes()
                    name = (place / "comm").read_text().strip()
                except OSError:
                    continue  # it ended meanwhile
                self.seen.add(Program(name, command, environment))


def children(pid: int) -> Iterator[int]:
    """The processes below a process."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(word) for word in listed.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from children(child)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A whole run, and everything that could be seen of it."""

    home: Home
    outcomes: dict[str, str]  #: by job
    text: str  #: stdout and stderr
    programs: frozenset[Program]
    messages: bytes
    bucket: bytes
    secrets: dict[str, str]  #: by what they are for


@pytest.fixture(scope="module")
def watched(pg: PgServer, s3_server: S3Server) -> Iterator[Watched]:
    """Back up a server, a share and, with a wrong password, a second server; tell the phone."""
    with scratch.directory("secrets") as place, http_sink.running() as sink:
        home = Home(place=place)
        bucket = s3_server.make_bucket()
        configure(home, pg, s3_server, bucket=bucket, sink=sink)
        secrets = hide(home, place / "secrets")
        with (
            home.running("--debug", "run-job", "backup") as run,
            Watch(run.pid) as watch,
        ):
            out, err = run.communicate(timeout=100)
        yield Watched(
            home=home,
            outcomes={job: home.runs(job)[0].outcome for job in ("postgres-backup", "nfs-backup")},
            text=out + err,
            programs=frozenset(watch.seen),
            messages=b"".join(request.body for request in sink.wait_for(1)),
            bucket=everything_in(s3_server, bucket),
            secrets=secrets,
        )


def configure(home: Home, pg: PgServer, s3: S3Server, *, bucket: str, sink: Sink) -> None:
    """Write a configuration that uses every kind of secret; one of them is wrong."""
    home.fill_share()
    pg.create_database("canaries")
    pg.execute("CREATE TABLE t AS SELECT generate_series(1, 300000) AS i", "canaries")
    offsite = home.bucket(s3, bucket=bucket)
    server = home.postgres(pg, repositories=("disk", "offsite"), databases=["canaries"])
    other = server[server.index("[[") :].replace('"main"', '"other"').replace("_PG", "_WRONG")
    home.write(
        offsite,
        server,
        other,
        home.shares("restic"),
        alerts=f"json://opsd:{TOKEN}@127.0.0.1:{sink.port}/{TOKEN}",
    )
    home.environment |= {"CANARY_RESTIC": RESTIC, "CANARY_WRONG": WRONG}


def hide(home: Home, place: Path) -> dict[str, str]:
    """Move the secrets into files, so that an environment holds one only if opsd put it there."""
    secrets = dict(home.environment)
    home.environment.clear()
    place.mkdir()
    config = home.config.read_text()
    for name, value in secrets.items():
        (place / name).write_text(value)
        config = config.replace(f"env:{name}", f"file:{place / name}")
    home.config.write_text(config)
    del secrets["CANARY_S3_ACCESS"], secrets["CANARY_PHONE"]  # a name; an address
    return {**secrets, "the phone's token": TOKEN}


def everything_in(server: S3Server, bucket: str) -> bytes:
    client = server.client()
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    bodies = (client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed)
    return b"".join(bodies)


def held(content: bytes, secrets: dict[str, str]) -> set[str]:
    """Which secrets stand in `content`."""
    return {name for name, value in secrets.items() if value.encode() in content}


def test_the_run_used_every_secret(watched: Watched) -> None:
    assert watched.outcomes == {"postgres-backup": "failed", "nfs-backup": "completed"}
    assert "server/other" in watched.text, "the wrong password was tried"
    assert watched.home.good_backups().keys() == {
        "database/main/canaries",
        "globals/main",
        "share/restic",
    }
    assert b"database/main/canaries" in watched.bucket
    assert b"server other" in watched.messages
    assert {"pg_dump", "restic"} <= {program.name for program in watched.programs}


def test_no_secret_stands_in_an_argument(watched: Watched) -> None:
    shown = {(one.name, *held(one.command, watched.secrets)) for one in watched.programs}

    assert {one for one in shown if len(one) > 1} == set()


def test_a_secret_stands_in_the_environment_of_the_program_that_needs_it_only(
    watched: Watched,
) -> None:
    knowing = [one for one in watched.programs if held(one.environment, watched.secrets)]

    assert knowing
    assert {one.name for one in knowing if b"/restic\0--repo\0" not in one.command} == set()
    assert {name for one in knowing for name in held(one.environment, watched.secrets)} == {
        "CANARY_RESTIC"
    }


def test_no_secret_is_printed_logged_or_sent(watched: Watched) -> None:
    assert held(watched.text.encode(), watched.secrets) == set()
    assert held(watched.messages, watched.secrets) == set()


def test_no_secret_stands_in_the_state_or_in_a_repository(watched: Watched) -> None:
    place = watched.home.place
    files = [path for path in place.rglob("*") if path.is_file() and "secrets" not in path.parts]

    found = {path: held(path.read_bytes(), watched.secrets) for path in files}

    assert any(path.name == "state.db" for path in files)
    assert {path for path, names in found.items() if names} == set()
    assert held(watched.bucket, watched.secrets) == set()
