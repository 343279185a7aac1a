"""The whole road on real parts: run, list, verify, restore, and the worst day on a laptop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsd.cli import main
from tests.rig.postgres import PgServer
from tests.rig.s3 import S3Server
from tests.rig.sink import Sink

pytestmark = pytest.mark.real

ROOT = Path(__file__).parent.parent
ODD = 'it\'s "odd"\n-x'
PASSWORD = "restic-canary-password"


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that was typed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Home:
    """A directory with a configuration, which is the current one, and how to type in it."""

    path: Path
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]

    def opsd(self, *arguments: str, **environment: str) -> Ended:
        """Run a command in this process: half of a child's time goes into its imports."""
        with self.patch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            returncode = main(arguments)
        captured = self.capture.readouterr()
        return Ended(returncode, captured.out, captured.err)

    def json(self, *arguments: str, **environment: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(
            self.opsd(*arguments, "-o", "json", **environment).stdout
        )
        return value


@pytest.fixture
def home(
    empty_pg: PgServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Home:
    for name in ("shop", ODD):
        empty_pg.create_database(name)
        empty_pg.execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i", name)
    (tmp_path / "repository").mkdir()
    (tmp_path / "config.toml").write_text(f"""
[opsd]
state_dir = "{tmp_path}/state"

[repositories.local]
type = "directory"
path = "{tmp_path}/repository"

[jobs.postgres-backup]
repositories = ["local"]
client_dirs = ["{empty_pg.bin_dir}"]

[[jobs.postgres-backup.servers]]
name = "main"
host = "{empty_pg.host}"
port = {empty_pg.port}
user = "{empty_pg.superuser}"
password = "env:OPSD_TEST_PG_PASSWORD"
ca_file = "{empty_pg.ca_file}"
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPSD_TEST_PG_PASSWORD", empty_pg.password)
    monkeypatch.delenv("OPSD_CONFIG", raising=False)
    return Home(tmp_path, monkeypatch, capsys)


def test_as_a_process_it_says_the_same(home: Home) -> None:
    command = [sys.executable, "-m", "opsd", "-o", "json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    ran = subprocess.run(
        [*command, "run-job", "backup"],
        capture_output=True,
        check=True,
        env=environment,
        timeout=100,
    )

    [run] = json.loads(ran.stdout)["runs"]
    assert run["outcome"] == "completed"
    assert [one["run_id"] for one in home.json("history")["runs"]] == [run["run_id"]]
    events = [json.loads(line)["event"] for line in ran.stderr.splitlines()]
    assert events[0] == "run.started"


def test_a_backup_is_made_listed_proven_and_restored(home: Home, empty_pg: PgServer) -> None:
    ran = home.json("run-job", "backup")
    listed = home.json("backups", "list")
    verified = home.json("backups", "verify", "--restore", "--on", "main")
    restored = home.json("backups", "restore", "database/main/shop", "--as", "shop_back")

    [run] = ran["runs"]
    assert run["outcome"] == "completed"
    assert {one["subject"] for one in listed["backups"]} >= {"globals/main", "database/main/shop"}
    assert all(one["ok"] for one in verified["verified"])
    levels = {one["subject"]: one["level"] for one in verified["verified"]}
    assert levels["database/main/shop"] == "restored"
    assert levels["globals/main"] == "read_back"
    assert restored["matches"] is True
    with empty_pg.connect("shop_back") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    again = home.json("backups", "list", "database/main/shop")["backups"]
    assert [one["level"] for one in again] == ["restored"]


def test_no_secret_and_no_control_character_is_printed(home: Home, empty_pg: PgServer) -> None:
    done = [
        home.opsd("--debug", "run-job", "backup"),
        home.opsd("backups", "list"),
        home.opsd("status"),
        home.opsd("check"),
        home.opsd("config", "show"),
    ]

    for one in done:
        assert one.returncode == 0, one.stderr
        assert empty_pg.password not in one.stdout + one.stderr
        assert "-x\n" not in one.stdout.replace(ODD, "")
    assert 'it\'s "odd" -x' in done[1].stdout


def test_an_existing_database_is_never_touched(home: Home, empty_pg: PgServer) -> None:
    home.opsd("run-job", "backup")
    empty_pg.execute("DELETE FROM t WHERE i > 10", "shop")

    done = home.opsd("backups", "restore", "database/main/shop")

    assert done.returncode == 1
    assert "exists and is not touched" in done.stderr
    with empty_pg.connect("shop") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (10,)


def test_an_option_that_means_nothing_is_refused(home: Home) -> None:
    home.opsd("run-job", "backup")

    database = home.opsd("backups", "restore", "database/main/shop", "--to", "somewhere")
    roles = home.opsd("backups", "restore", "globals/main", "--as", "somebody")

    assert database.returncode == roles.returncode == 2
    assert "--to means nothing for it" in database.stderr
    assert "--as means nothing for it" in roles.stderr
    assert not (home.path / "somewhere").exists()


def test_a_bucket_is_read_with_nothing_but_its_address_and_keys(
    home: Home, s3_server: S3Server
) -> None:
    bucket = s3_server.make_bucket()
    config = home.path / "config.toml"
    text = config.read_text().replace('repositories = ["local"]', 'repositories = ["offsite"]')
    config.write_text(f"""{text}
[repositories.offsite]
type = "s3"
endpoint = "{s3_server.endpoint}"
region = "{s3_server.region}"
bucket = "{bucket}"
prefix = "home"
access_key = "env:AWS_ACCESS_KEY_ID"
secret_key = "env:AWS_SECRET_ACCESS_KEY"
""")
    keys = {
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
    }
    home.opsd("run-job", "backup", **keys)
    config.unlink()
    at = ("--at", f"s3://{bucket}/home", "--endpoint", s3_server.endpoint)

    listed = home.json("backups", "list", *at, "--region", s3_server.region, **keys)
    keyless = home.opsd("backups", "list", *at)

    assert {one["subject"] for one in listed["backups"]} >= {"globals/main", "database/main/shop"}
    assert keyless.returncode == 2
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in keyless.stderr


def test_a_laptop_without_configuration_restores_into_a_server_by_its_address(
    home: Home, empty_pg: PgServer
) -> None:
    home.opsd("run-job", "backup")
    (home.path / "config.toml").unlink()
    address = f"postgres://{empty_pg.superuser}@{empty_pg.host}:{empty_pg.port}"
    at = ("--at", str(home.path / "repository"))

    listed = home.json("backups", "list", *at)
    restored = home.json(
        *("backups", "restore", f"database/main/{ODD}", "--as", "odd_back"),
        *(*at, "--server", address),
        PGPASSWORD=empty_pg.password,
        PATH=f"{empty_pg.bin_dir}:{os.environ['PATH']}",
    )

    assert len(listed["backups"]) >= 3
    assert restored["matches"] is True


def test_a_flipped_byte_is_found_told_and_stays_known(home: Home) -> None:
    home.opsd("run-job", "backup")
    [dump] = (home.path / "repository/database/main/shop").glob("*.dump*")
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.chmod(0o600)
    dump.write_bytes(content)

    verified = home.opsd("backups", "verify", "database/main/shop")
    listed = home.opsd("backups", "list")
    restored = home.opsd("backups", "restore", "database/main/shop", "--as", "x")

    assert verified.returncode == 1
    assert "DAMAGED" in verified.stdout
    assert "DAMAGED" in listed.stdout
    assert restored.returncode == 1
    assert "no good backup" in restored.stderr


def test_a_server_that_is_down_is_one_finding_and_a_message(home: Home, sink: Sink) -> None:
    config = home.path / "config.toml"
    text = config.read_text().replace("port = ", "port = 1 # ")
    config.write_text(f'{text}\n[[alerts.targets]]\nname = "phone"\nurl = "env:OPSD_TEST_PHONE"\n')
    phone = {"OPSD_TEST_PHONE": sink.url.replace("http://", "json://")}

    ran = home.json("run-job", "postgres-backup", **phone)
    status = home.json("status", **phone)

    [run] = ran["runs"]
    assert run["outcome"] == "failed"
    assert [one["check"] for one in run["findings"]] == ["postgres.unreachable"]
    [request] = sink.wait_for(1, 30)
    assert b"main" in request.body
    assert status["undelivered"] == []


def test_a_share_is_backed_up_proven_and_restored_in_part(home: Home, restic: Path) -> None:
    share = home.path / "share"
    (share / "photos").mkdir(parents=True)
    for number in range(20):
        (share / f"photos/{number}.txt").write_text(str(number))
    with (home.path / "config.toml").open("a") as config:
        config.write(f"""
[jobs.nfs-backup]
[[jobs.nfs-backup.shares]]
name = "nfs"
path = "{share}"
mounted = false
repository = "local"
password = "env:OPSD_TEST_RESTIC"
""")
    secret = {"OPSD_TEST_RESTIC": PASSWORD, "PATH": f"{restic.parent}:{os.environ['PATH']}"}

    ran = home.json("run-job", "nfs-backup", **secret)
    verified = home.json("backups", "verify", "share/nfs", **secret)
    part = ("backups", "restore", "share/nfs", "--path", "photos/7.txt", "--to")
    restored = home.json(*part, str(home.path / "back"), **secret)
    (home.path / "config.toml").unlink()
    laptop = home.json(
        *part,
        str(home.path / "back2"),
        *("--at", str(home.path / "repository")),
        RESTIC_PASSWORD=PASSWORD,
        PATH=secret["PATH"],
    )

    assert [run["outcome"] for run in ran["runs"]] == ["completed"]
    assert [one["ok"] for one in verified["verified"]] == [True]
    assert restored["matches"] is True
    assert laptop["matches"] is True
    assert (home.path / "back/7.txt").read_text() == "7"
    assert (home.path / "back2/7.txt").read_text() == "7"
