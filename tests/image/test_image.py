"""The image, built from deploy/Containerfile and run as a cluster runs it: without rights.

Limits: the base is made from Debian's packages and not pulled, and pg_dump is there in one major.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig import scratch

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/opsd:test"
UID = 65532
# What every pod gets under Pod Security `restricted`, as far as this runtime knows it.
RESTRICTED = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges")
CONFIG = """\
[http]
listen = ":8080"

[repositories.here]
type = "directory"
path = "/backup"

[jobs.nfs-backup]
schedule = "* * * * *"

[[jobs.nfs-backup.shares]]
name = "nfs"
path = "/share"
mounted = false
engine = "restic"
repository = "here"
password = "file:/etc/opsd/password"
"""


def podman() -> list[str]:
    store = Path(os.environ["OPSD_CACHE"]) / "image"
    return [
        *("podman", "--root", f"{store}/store", "--runroot", f"{store}/run"),
        *("--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        *("--events-backend", "file"),
    ]


@dataclass(frozen=True)
class Home:
    """What is mounted into a container."""

    path: Path

    def argv(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        mounts = [
            *("-v", f"{self.path}/config:/etc/opsd:ro", "-v", f"{self.path}/share:/share:ro"),
            *("-v", f"{self.path}/backup:/backup", "-v", f"{self.path}/state:/var/lib/opsd"),
            *("--tmpfs", "/tmp:rw,size=64m"),  # noqa: S108 - inside
        ]
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        head = [*podman(), "run", "--rm", "--network", "none", *RESTRICTED, *limits]
        return [*head, *mounts, *options, IMAGE, *arguments]

    def run(
        self, *arguments: str, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        argv = self.argv(*arguments, options=options)
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def shell(self, script: str) -> str:
        done = self.run("-c", script, options=("--entrypoint", "/bin/sh"))
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    if os.geteuid() or not (shutil.which("podman") and shutil.which("buildah")):
        pytest.skip("needs root, buildah, podman, runc and mmdebstrap: make test-image")
    subprocess.run([ROOT / "tools/image/build.sh"], check=True)


@pytest.fixture
def home() -> Iterator[Home]:
    with scratch.directory("image") as path:
        for name in ("config", "share", "backup", "state"):
            (path / name).mkdir()
            os.chown(path / name, UID, UID)
        (path / "config/config.toml").write_text(CONFIG)
        (path / "config/password").write_text("a password of the test")
        os.chown(path / "config/password", UID, UID)
        (path / "config/password").chmod(0o400)
        (path / "share/file").write_text("content")
        yield Home(path)


def test_it_runs_as_nobody_in_particular_and_writes_nowhere(home: Home) -> None:
    said = home.shell(
        "id -u; id -g; for dir in /opt/opsd /etc /; do touch $dir/x 2>/dev/null || echo no; done"
    )

    assert said.split() == [str(UID), str(UID), "no", "no", "no"]


def test_every_program_that_jobs_call_is_there(home: Home) -> None:
    programs = "pg_dump pg_restore restic rsync ssh setpriv etcd etcdutl tini"

    missing = home.shell(
        f"for one in {programs}; do command -v $one >/dev/null || echo $one; done"
    )

    assert missing == ""


def test_it_holds_no_compiler_no_installer_and_no_second_copy_of_itself(home: Home) -> None:
    said = home.shell(
        "command -v uv gcc git || true; ls /src /uv /build 2>/dev/null || true; "
        "find / -xdev -name 'opsd' -maxdepth 6 -type d 2>/dev/null | grep -c site-packages"
    )

    assert said.strip() == "1"


def test_check_and_backup_work_inside(home: Home) -> None:
    checked = home.run("check")
    made = home.run("-o", "json", "run-job", "backup")

    assert checked.returncode == 0, checked.stdout
    assert made.returncode == 0, made.stderr
    (run,) = json.loads(made.stdout)["runs"]
    assert (run["outcome"], run["artifacts"][0]["level"]) == ("completed", "read_back")


def test_the_daemon_ends_when_told_to_and_leaves_no_zombie(home: Home) -> None:
    name = f"opsd-t-{os.getpid()}"
    options = ("--name", name)
    daemon = subprocess.Popen(home.argv("run", options=options), stderr=subprocess.PIPE, text=True)
    try:
        first = seen(daemon, "run.ended")
        zombies = subprocess.run(
            [
                *podman(),
                "exec",
                name,
                "sh",
                "-c",
                "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        daemon.send_signal(signal.SIGTERM)
        _, rest = daemon.communicate(timeout=120)
    finally:
        subprocess.run([*podman(), "rm", "-f", "-t", "0", name], capture_output=True, check=False)
        daemon.wait(60)

    assert first["outcome"] == "completed"
    assert zombies.strip() == "0"
    assert '"daemon.stopped"' in rest
    assert daemon.returncode == 0


def seen(daemon: subprocess.Popen[str], event: str) -> dict[str, object]:
    assert daemon.stderr is not None
    give_up_at = time.monotonic() + 300
    for line in daemon.stderr:
        logged: dict[str, object] = json.loads(line) if line.startswith("{") else {}
        if logged.get("event") == event:
            return logged
        assert time.monotonic() < give_up_at
    raise AssertionError(f"the daemon ended without {event}")
