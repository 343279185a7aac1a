"""The real parts are real: they reject what production rejects, and leave nothing behind."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from botocore.exceptions import ClientError

from tests.conftest import PgOf
from tests.rig import cheapkeys, postgres, scratch
from tests.rig.postgres import PgServer
from tests.rig.s3 import S3Server
from tests.rig.server import listens
from tests.rig.sink import Sink
from tests.rig.sshd import SshServer

pytestmark = pytest.mark.real


@pytest.mark.parametrize("major", postgres.MAJORS)
def test_each_major_runs_as_itself_with_tls(pg_of: PgOf, major: int) -> None:
    server = pg_of(major)

    with server.connect() as connection:
        (encrypted,) = connection.execute(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
        version = connection.info.server_version

    assert version // 10_000 == major
    assert encrypted == (True,)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"sslmode": "disable"}, "no encryption"),
        ({"password": "wrong"}, "password authentication failed"),
        ({"sslrootcert": "system"}, "certificate verify failed"),
    ],
)
def test_the_server_refuses_what_production_refuses(
    pg: PgServer, parameters: dict[str, str], complaint: str
) -> None:
    with pytest.raises(psycopg.OperationalError, match=complaint):
        pg.connect(**parameters)


def test_the_server_can_be_killed_and_started_again(own_pg: PgServer) -> None:
    name = own_pg.fresh_database()
    own_pg.execute("CHECKPOINT")

    own_pg.kill()
    own_pg.start()

    with own_pg.connect(name):
        pass


def test_a_reset_server_holds_only_its_own_databases_and_roles(own_pg: PgServer) -> None:
    name = own_pg.fresh_database()
    own_pg.execute("CREATE ROLE owner")
    own_pg.execute("CREATE TABLE t (); ALTER TABLE t OWNER TO owner", name)

    own_pg.reset()

    with own_pg.connect() as connection:
        left = connection.execute(
            "SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles"
            " WHERE rolname !~ '^pg_' ORDER BY 1"
        ).fetchall()
    assert [name for (name,) in left] == ["postgres", "template0", "template1"]


def test_the_s3_server_refuses_a_wrong_secret(s3_server: S3Server) -> None:
    stranger = dataclasses.replace(s3_server, secret_key="wrong")

    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.client().list_buckets()


def test_the_s3_server_refuses_a_wrong_checksum(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket()
    client = s3_server.client()

    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256="A" * 43 + "=")


def test_the_s3_server_holds_many_buckets(s3_server: S3Server) -> None:
    client = s3_server.client()

    for _ in range(20):
        bucket = s3_server.make_bucket()
        client.put_object(Bucket=bucket, Key="k", Body=b"x")

    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_a_locked_object_version_cannot_be_removed(s3_server: S3Server) -> None:
    bucket = s3_server.make_bucket(lock=True)
    client = s3_server.client()
    stored = client.put_object(Bucket=bucket, Key="k", Body=b"x", ObjectLockLegalHoldStatus="ON")

    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key="k", VersionId=stored["VersionId"])

    client.put_object_legal_hold(
        Bucket=bucket, Key="k", VersionId=stored["VersionId"], LegalHold={"Status": "OFF"}
    )


def test_the_sink_keeps_what_it_was_sent_and_answers_as_told(sink: Sink) -> None:
    sink.answer(503)

    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{sink.url}/topic?x=1", data=b"hello")

    (request,) = sink.wait_for(1)
    assert (request.method, request.path, request.body) == ("POST", "/topic?x=1", b"hello")


def test_a_hanging_sink_takes_the_request_and_does_not_answer(sink: Sink) -> None:
    sink.hang()

    with pytest.raises(TimeoutError):
        urllib.request.urlopen(sink.url, data=b"hello", timeout=0.2)

    assert sink.wait_for(1)[0].body == b"hello"


def test_a_refusing_sink_listens_again_on_the_same_port(sink: Sink) -> None:
    sink.refuse()
    refused = not listens(sink.port)
    sink.listen()

    assert refused
    assert listens(sink.port)


def test_sshd_lets_in_the_key_that_was_made_for_it(sshd: SshServer) -> None:
    done = subprocess.run(
        ["ssh", *sshd.options, f"{sshd.user}@{sshd.host}", "echo in"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_rsync_copies_through_the_sshd(sshd: SshServer, rsync: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    shell = " ".join(["ssh", *sshd.options])

    subprocess.run(
        [rsync, "-e", shell, tmp_path / "a", f"{sshd.user}@{sshd.host}:{tmp_path}/b"], check=True
    )

    assert (tmp_path / "b").read_text() == "content"


@pytest.mark.parametrize(("password", "opens"), [("canary", True), ("canari", False)])
def test_a_store_with_a_cheap_key_is_one_that_restic_opens_with_its_password_only(
    restic: Path, tmp_path: Path, password: str, *, opens: bool
) -> None:
    command = [str(restic), "--repo", str(tmp_path / "store"), "--no-cache"]
    made = {**os.environ, "RESTIC_PASSWORD": "canary"}
    subprocess.run([*command, "init"], env=made, check=True, capture_output=True)

    done = subprocess.run(
        [*command, "check"],
        env={**made, "RESTIC_PASSWORD": password},
        check=False,
        capture_output=True,
    )

    assert (done.returncode == 0) is opens
    [key] = (tmp_path / "store/keys").iterdir()
    assert json.loads(key.read_bytes())["N"] == cheapkeys.CHEAPEST["N"]


def test_restic_is_new_enough(restic: Path) -> None:
    done = subprocess.run([restic, "version"], capture_output=True, text=True, check=True)

    version = tuple(int(part) for part in done.stdout.split()[1].split("."))

    assert version >= (0, 17, 1)


def test_a_small_file_system_really_fills_up(small_tmpfs: Callable[[str], Path]) -> None:
    path = small_tmpfs("1m")

    with pytest.raises(OSError, match="No space") as caught:
        (path / "big").write_bytes(bytes(2 << 20))

    assert caught.value.errno == errno.ENOSPC


KILLED_TEST_PROCESS = """
import time
from pathlib import Path
from tests.rig import scratch, server
home = scratch.make_directory("killed")
child = server.Server(["sleep", "600"], log=home / "log")
child.await_ready(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\\n")
print(child.pid, home, flush=True)
time.sleep(600)
"""


def test_servers_and_directories_of_a_killed_test_process_are_cleared() -> None:
    doomed = subprocess.Popen(
        [sys.executable, "-c", KILLED_TEST_PROCESS], stdout=subprocess.PIPE, text=True
    )
    assert doomed.stdout
    pid, home = doomed.stdout.readline().split()

    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    doomed.stdout.close()
    scratch.sweep()

    assert ended(int(pid))
    assert not Path(home).exists()


def ended(pid: int) -> bool:
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False
