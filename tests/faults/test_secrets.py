"""Known secrets are planted wherever one can stand, and looked for wherever one could show.

Everything that opsd does with them is done for real: runs that succeed and that fail, a
daemon, messages, pings, services that quote what they were sent, and crashes whose errors
quote every local variable. Then each planted secret is looked for in each place; a secret
that was not used, and a place where nothing was seen, fail the test too.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyrage
import pytest

from opsd.secrets import MASK
from tests.faults.canaries import Canaries, Program, Watch, files
from tests.faults.failpoints import CONFESSION, Failpoint, command
from tests.rig import scratch
from tests.rig import sink as http_sink
from tests.rig.home import Home
from tests.rig.postgres import PgServer
from tests.rig.s3 import S3Server
from tests.rig.sink import Answer, Request, Sink

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("restic"), pytest.mark.timeout(590)]

DATABASE = "canaries"
OWN = {  # what this file plants; the passwords of the servers come from the rig
    "restic password": "canary-restic-Passw0rd/+",
    "restic environment": "canary-restenv-Passw0rd",
    "wrong password": "canary-wrong-Passw0rd'1",
    "alert login": "canary-login-Passw0rd",
    "alert path": "canary-path-Tok3n",
    "alert query": "canary-query-Tok3n",
    "refused alert": "canary-refused-Tok3n",
    "refused login": "canary-refused-Passw0rd",
    "unknown alert": "canary-unknown-Tok3n",
    "ping": "canary-ping-Tok3n",
    "refused ping": "canary-badping-Tok3n",
    "heartbeat": "canary-heartbeat-Tok3n",
    "database setting": "canary-setting-Passw0rd",
    "row": "canary-row-Passw0rd",
    "refused schedule": "canary-config-Passw0rd",
}
TABLES = """
[[alerts.targets]]
name = "phone"
url = "env:CANARY_PHONE"

[[alerts.targets]]
name = "refusing"
url = "env:CANARY_REFUSING"

[[alerts.targets]]
name = "unknown"
url = "env:CANARY_UNKNOWN"

[heartbeat]
url = "env:CANARY_HEARTBEAT"
every = "1s"
"""
CRASHES = (  # where a run or a command dies and quotes all it knows, and how it is called
    ("opsd.clients.postgres:_refusal", "before", ("run-job", "postgres-backup")),
    ("opsd.backup.postgres.tools:_password_file", "before", ("run-job", "postgres-backup")),
    ("boto3:client", "before", ("backups", "list", "--repository", "offsite")),
    (
        "opsd.backup.share.restic.command:ResticCommand._environment",
        "after",
        ("run-job", "nfs-backup"),
    ),
    ("opsd.clients.http:_Exchange._ask", "before", ("run-job", "nfs-backup")),  # in a thread
    ("opsd.secrets:conceal_url", "after", ("notify-test",)),
)
QUESTIONS = ("status", "findings", "check", "notify-test")


class Quoting(Sink):
    """Refuses everything, and quotes all that it was sent."""

    def take(self, request: Request) -> Answer:
        super().take(request)
        words = f"cannot {request.method} {request.path} {dict(request.headers)}"
        return Answer(status=500, body=words.encode())


@dataclass(kw_only=True)
class World:
    """An installation, and everything that could be seen of it."""

    home: Home
    planted: dict[str, str]
    good: Sink  #: takes everything
    bad: Sink  #: refuses everything and quotes what it was sent
    texts: dict[str, str] = field(default_factory=dict)  #: by command: its stdout and stderr
    programs: set[Program] = field(default_factory=set)
    bucket: bytes = b""

    def see(self, kind: str, *arguments: str, launcher: list[str] | None = None) -> None:
        """Run a command to its end and keep what it shows."""
        argv = () if launcher else arguments
        with (
            self.home.running(*argv, launcher=launcher or ()) as process,
            Watch(process.pid) as watch,
        ):
            out, err = process.communicate(timeout=100)
        self.programs |= watch.seen
        self.texts[f"{kind}: {' '.join(arguments)}"] = out + err

    def shown(self, kind: str) -> str:
        """What all commands of a kind showed."""
        return "\n".join(text for name, text in self.texts.items() if name.startswith(kind))

    def below(self, place: Path) -> bytes:
        """All bytes of all files, and their names."""
        return b"\0".join(
            bytes(path) + b"\0" + path.read_bytes()
            for path in files(place, besides=[self.home.place / "secrets"])
        )


@pytest.fixture(scope="module")
def world(pg: PgServer, s3_server: S3Server) -> Iterator[World]:
    """Everything that opsd does, with canaries for secrets."""
    with (
        scratch.directory("secrets") as place,
        http_sink.running() as good,
        contextlib.closing(Quoting()) as bad,
    ):
        home = Home(place=place, is_measured=False)
        planted = {**OWN, "server password": pg.password, "S3 secret key": s3_server.secret_key}
        world = World(home=home, planted=planted, good=good, bad=bad)
        bucket = s3_server.make_bucket()
        configure(world, pg, s3_server, bucket)
        world.see("run", "--debug", "run-job", "backup")
        live(world)
        for question in QUESTIONS:
            world.see("json", "--debug", "-o", "json", question)
        world.see("text", "--debug", "check")
        world.see("text", "config", "show")
        crash(world)
        refuse(world)
        world.bucket = everything_in(s3_server, bucket)
        yield world


def configure(world: World, pg: PgServer, s3: S3Server, bucket: str) -> None:
    """Write a configuration that uses every kind of secret; some of them are refused."""
    home, own = world.home, OWN
    home.fill_share()
    pg.create_database(DATABASE)
    pg.execute(f"CREATE TABLE t AS SELECT '{own['row']}' AS word", DATABASE)
    pg.execute(f"ALTER DATABASE {DATABASE} SET app.secret = '{own['database setting']}'")
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    offsite = home.bucket(s3, bucket=bucket)
    server = home.postgres(
        pg, repositories=("disk", "offsite"), databases=[DATABASE], recipients=[recipient]
    ).replace("timeout =", 'ping = "env:CANARY_PING"\ntimeout =')
    other = server[server.index("[[") :].replace('"main"', '"other"').replace("_PG", "_WRONG")
    shares = home.shares("restic").replace("timeout =", 'ping = "env:CANARY_BADPING"\ntimeout =')
    home.write(
        *(TABLES, offsite, server, other, shares),
        f'destination = "{home.place}/own-restic"\n'
        'environment = { RESTIC_REST_PASSWORD = "env:CANARY_RESTENV" }\n',
    )
    address = f"127.0.0.1:{world.good.port}"
    home.environment |= {
        "CANARY_RESTIC": own["restic password"],
        "CANARY_RESTENV": own["restic environment"],
        "CANARY_WRONG": own["wrong password"],
        "CANARY_PHONE": f"json://opsd:{own['alert login']}@{address}/{own['alert path']}"
        f"?+X-Key={own['alert query']}",
        "CANARY_REFUSING": f"json://opsd:{own['refused login']}@127.0.0.1:{world.bad.port}"
        f"/{own['refused alert']}",
        "CANARY_UNKNOWN": f"nosuch://{own['unknown alert']}",
        "CANARY_PING": f"http://{address}/{own['ping']}",
        "CANARY_BADPING": f"{world.bad.url}/{own['refused ping']}",
        "CANARY_HEARTBEAT": f"http://{address}/{own['heartbeat']}",
    }
    hide(home, besides=("CANARY_RESTIC", "CANARY_PHONE"))


def hide(home: Home, *, besides: tuple[str, ...]) -> None:
    """Move secrets into files, so that an environment holds one only if opsd put it there."""
    place = home.place / "secrets"
    place.mkdir()
    config = home.config.read_text()
    for name in sorted(home.environment.keys() - set(besides)):
        (place / name).write_text(home.environment.pop(name))
        (place / name).chmod(0o600)
        config = config.replace(f"env:{name}", f"file:{place / name}")
    home.config.write_text(config)


def live(world: World) -> None:
    """Let the daemon live until its heart has beaten."""
    heart = OWN["heartbeat"]
    with (
        world.home.running("--debug", "run") as daemon,
        Watch(daemon.pid) as watch,
    ):
        with contextlib.suppress(AssertionError):  # the test of what was used tells
            for _ in range(60):
                requests = world.good.wait_for(len(world.good.requests) + 1, timeout=30)
                if any(heart in one.path for one in requests):
                    break
        daemon.send_signal(signal.SIGTERM)
        out, err = daemon.communicate(timeout=60)
    world.programs |= watch.seen
    world.texts["run: daemon"] = out + err


def crash(world: World) -> None:
    """Die at many places with an error that quotes all that is known there."""
    for at, when, arguments in CRASHES:
        failpoint = Failpoint(at=at, when=when, do="confess")
        world.see(
            "crash",
            *(at, *arguments),
            launcher=command(failpoint, "--debug", *arguments),
        )


def refuse(world: World) -> None:
    """Put a secret where none belongs."""
    config = world.home.config.read_text()
    wrong = config.replace("[heartbeat]", f'[heartbeat]\nkind = "{OWN["refused schedule"]}"')
    world.home.config.write_text(wrong)
    world.see("run", "--debug", "status")
    world.see("json", "-o", "json", "check")
    world.home.config.write_text(config)


def everything_in(server: S3Server, bucket: str) -> bytes:
    client = server.client()
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    bodies = (client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed)
    return b"\0".join([*bodies, *(one["Key"].encode() for one in listed)])


def asked(sink: Sink, word: str) -> bool:
    """Whether a server was sent a word in an address or a header."""
    return any(word in f"{one.path} {one.headers}" for one in sink.requests)


def logged_in(world: World) -> bool:
    return any("authorization" in one.headers for one in world.good.requests)


#: How it is known that a secret was really used.
USED: dict[str, Callable[[World], object]] = {
    "server password": lambda w: w.home.good_backups().get(f"database/main/{DATABASE}"),
    "wrong password": lambda w: "password authentication failed" in w.shown("run"),
    "restic password": lambda w: w.home.good_backups().get("share/restic"),
    "restic environment": lambda w: any(b"canary-restenv" in p.environment for p in w.programs),
    "S3 secret key": lambda w: f"database/main/{DATABASE}".encode() in w.bucket,
    "alert login": logged_in,
    "alert path": lambda w: asked(w.good, OWN["alert path"]),
    "alert query": lambda w: asked(w.good, OWN["alert query"]),
    "refused alert": lambda w: asked(w.bad, OWN["refused alert"]),
    "refused login": lambda w: any("authorization" in one.headers for one in w.bad.requests),
    "unknown alert": lambda w: "does not hold a URL" in w.shown("text"),
    "ping": lambda w: asked(w.good, OWN["ping"]),
    "refused ping": lambda w: asked(w.bad, OWN["refused ping"]),
    "heartbeat": lambda w: asked(w.good, OWN["heartbeat"]),
    "database setting": lambda w: b"sealed_settings" in w.bucket,
    "row": lambda w: b"age-encryption.org/v1" in w.bucket,
    "refused schedule": lambda w: 'heartbeat.kind: expected "healthchecks"' in w.shown("run"),
}
#: Where secrets are looked for: what was seen there, and a word without which it proves nothing.
LOOKED: dict[str, tuple[Callable[[World], bytes], bytes]] = {
    "logs and output": (lambda w: w.shown("run").encode(), b"run.ended"),
    "text for people": (lambda w: w.shown("text").encode(), b"database/main"),
    "JSON": (lambda w: w.shown("json").encode(), b'"findings"'),
    "tracebacks": (lambda w: w.shown("crash").encode(), CONFESSION.encode()),
    "arguments": (lambda w: b"".join(p.command for p in w.programs), b"--snapshot="),
    "environments": (
        lambda w: b"".join(p.environment for p in w.programs if not is_trusted(p)),
        b"PGPASSFILE=",
    ),
    "messages": (lambda w: b"".join(r.body for r in w.good.requests), b"server/other"),
    "own store": (lambda w: w.below(w.home.place / "own-restic"), b"snapshots"),
    "refused messages": (lambda w: b"".join(r.body for r in w.bad.requests), b"server/other"),
    "state": (lambda w: w.below(w.home.place / "state"), b"database/main"),
    "repository": (lambda w: w.below(w.home.repository), b"sealed_settings"),
    "bucket": (lambda w: w.bucket, b"sealed_settings"),
    "configuration": (lambda w: w.home.config.read_bytes(), b"env:CANARY_RESTIC"),
}


def is_trusted(program: Program) -> bool:
    """opsd itself, which was started with secrets in its environment, and restic, to which it
    hands them because an argument would be seen by everybody."""
    words = program.command.split(b"\0")
    return b"opsd" in words or b"tests.faults.failpoints" in words or b"--repo" in words


def test_every_planted_secret_has_a_proof_that_it_was_used() -> None:
    assert USED.keys() == {*OWN, "server password", "S3 secret key"}


@pytest.mark.parametrize("secret", USED)
def test_the_secret_was_used(world: World, secret: str) -> None:
    assert USED[secret](world), {name: text[-2000:] for name, text in world.texts.items()}


@pytest.mark.parametrize("place", LOOKED)
def test_there_was_something_to_be_seen(world: World, place: str) -> None:
    look, word = LOOKED[place]

    assert word in look(world)


@pytest.mark.parametrize("place", LOOKED)
@pytest.mark.parametrize("secret", USED)
def test_no_secret_shows(world: World, secret: str, place: str) -> None:
    canary = Canaries({secret: world.planted[secret]})
    seen = LOOKED[place][0](world)

    assert canary.in_bytes(seen) == set(), around(seen, world.planted[secret])


def around(seen: bytes, value: str) -> bytes:
    at = seen.find(value.encode())
    return seen[max(0, at - 300) : at + 100]


@pytest.mark.parametrize("crash", [f"{at} {' '.join(how)}" for at, _, how in CRASHES])
def test_a_crash_quotes_what_it_knows_without_secrets(world: World, crash: str) -> None:
    text = world.texts[f"crash: {crash}"]

    assert CONFESSION in text
    assert MASK in text, "it knew a secret"


def test_only_restic_is_handed_a_secret_in_its_environment(world: World) -> None:
    canaries = Canaries(world.planted)
    knowing = {p for p in world.programs if canaries.in_bytes(p.environment)}
    restics = {p for p in knowing if b"--repo" in p.command.split(b"\0")}

    assert {name for p in restics for name in canaries.in_bytes(p.environment)} == {
        "restic password",
        "restic environment",
    }
    assert all(is_trusted(p) for p in knowing)


def test_no_column_of_the_state_holds_a_secret(world: World) -> None:
    canaries = Canaries(world.planted)
    with contextlib.closing(sqlite3.connect(world.home.place / "state" / "state.db")) as state:
        dumped = "\n".join(state.iterdump())

    assert "server/other" in dumped
    assert canaries.in_text(dumped) == set()
