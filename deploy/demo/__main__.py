"""See opsd do its main job: back up, prove and restore real data, on parts that vanish.

Starts a throw-away PostgreSQL, builds a share that looks like the one of
nfs-subdir-external-provisioner, writes an ordinary config.toml and then types the commands
that an owner would type. Everything is real but the size. At the end the server is stopped
and the restored data is compared with the source.

Limits: the embedded PostgreSQL has no TLS and listens on a Unix socket only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from deploy.demo import phone, sources
from opsd.clients.embedded import EmbeddedPostgres, embedded_postgres
from opsd.clock import Deadline, SystemClock

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "demo"
DEADLINE_S = 300.0

screen = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demonstration; 0 when every byte came back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--s3", action="store_true", help="keep the backups in an S3 server")
    arguments = parser.parse_args()
    started = time.monotonic()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    with contextlib.ExitStack() as parts:
        scratch = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="opsd-demo-")))
        scratch.chmod(0o755)  # the server runs as nobody when root runs the demonstration
        postgres = parts.enter_context(
            embedded_postgres(
                scratch / "pg",
                deadline=Deadline.after(DEADLINE_S, SystemClock()),
                settings=("fsync=off",),
            )
        )
        handset = parts.enter_context(phone.listening())
        os.environ["OPSD_DEMO_PHONE"] = handset.url
        table = s3_repository() if arguments.s3 else directory_repository()
        ok = show(postgres, handset, parts.enter_context(table))
    screen.print(f"\nDone in {time.monotonic() - started:.0f} s; the server is stopped.")
    screen.print(
        f"Look around in [bold]{PLACE.relative_to(ROOT)}[/]: config.toml, repository, restored."
    )
    return 0 if ok else 1


def show(postgres: EmbeddedPostgres, handset: phone.Phone, repository: str) -> bool:
    """Build the sources, then type what an owner would type."""
    title("1. What is there to lose")
    databases = sources.fill_databases(postgres)
    share = sources.build_share(PLACE / "share")
    screen.print(f"   PostgreSQL with {databases.summary}\n   a share with {share.summary}")

    title("2. One configuration file")
    write_config(postgres, share, repository)
    screen.print(f"   {PLACE.relative_to(ROOT) / 'config.toml'}")

    title("3. Back everything up")
    backed_up = opsd("run-job", "backup") == 0

    title("4. What is there now")
    listed = opsd("backups", "list") == 0

    title("5. Prove it: read it back, and restore every database into a scratch server")
    verified = opsd("backups", "verify", "--restore") == 0

    title("6. Get it back")
    restored = opsd("backups", "restore", "database/demo/shop", "--as", "shop_restored") == 0
    restored &= opsd("backups", "restore", "share/nfs", "--to", str(PLACE / "restored")) == 0
    same = restored and compared(postgres, share)

    title("7. And when something breaks, the phone says so")
    alarmed = breakage(postgres, handset)
    return all((backed_up, listed, verified, restored, same, alarmed))


def compared(postgres: EmbeddedPostgres, share: sources.Share) -> bool:
    """Compare what was restored with the source, by our own means rather than opsd's."""
    rows = sources.checksum_of(postgres, "shop") == sources.checksum_of(postgres, "shop_restored")
    verdict("every row of shop_restored equals shop", ok=rows)
    differences = sources.differences(share, PLACE / "restored")
    verdict(f"{share.files} files of the share came back equal", ok=not differences)
    for difference in differences[:10]:
        screen.print(f"     {difference}", markup=False)
    return rows and not differences


def breakage(postgres: EmbeddedPostgres, handset: phone.Phone) -> bool:
    """Lock opsd's role out, run again, and show what arrives."""
    sources.lock_out(postgres)
    failed = opsd("run-job", "postgres-backup") == 1
    message = handset.last_message()
    if message is None:
        verdict("a message arrived on the phone", ok=False)
        return False
    screen.print("\n   [bold]on the phone:[/]")
    for line in message.splitlines():
        screen.print(f"   │ {line}", markup=False)
    verdict("the failed run exited with 1, and the older backups are untouched", ok=failed)
    return failed


def write_config(postgres: EmbeddedPostgres, share: sources.Share, repository: str) -> None:
    """The file that an owner would write, with the demonstration's paths."""
    secret = PLACE / "restic-password"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    (PLACE / "config.toml").write_text(f"""\
[opsd]
state_dir = "{PLACE}/state"

{repository}
[[alerts.targets]]
name = "phone"
url = "env:OPSD_DEMO_PHONE"

[jobs.postgres-backup]
repositories = ["demo"]
client_dirs = ["{postgres.bin_dir}"]

[[jobs.postgres-backup.servers]]
name = "demo"
host = "{postgres.socket_dir}"
user = "{sources.ROLE}"
sslmode = "disable" # a Unix socket

[jobs.nfs-backup]

[[jobs.nfs-backup.shares]]
name = "nfs"
path = "{share.path}"
mounted = false # an ordinary directory here; a real share is a mount
engine = "restic"
repository = "demo"
password = "file:{secret}"
""")


@contextlib.contextmanager
def directory_repository() -> Iterator[str]:
    """The table of a repository in a directory."""
    (PLACE / "repository").mkdir()
    yield f'[repositories.demo]\ntype = "directory"\npath = "{PLACE}/repository"\n'


@contextlib.contextmanager
def s3_repository() -> Iterator[str]:
    """A running S3 server, its keys in the environment; gives its repository table."""
    from tests.rig import s3  # noqa: PLC0415 - development packages

    with s3.running() as server:
        os.environ["OPSD_DEMO_S3_ACCESS_KEY"] = server.access_key
        os.environ["OPSD_DEMO_S3_SECRET_KEY"] = server.secret_key
        yield f"""\
[repositories.demo]
type = "s3"
endpoint = "{server.endpoint}"
bucket = "{server.make_bucket()}"
access_key = "env:OPSD_DEMO_S3_ACCESS_KEY"
secret_key = "env:OPSD_DEMO_S3_SECRET_KEY"
"""


def opsd(*arguments: str) -> int:
    """Type a command, as its owner would, and let it draw on this terminal."""
    screen.print(f"\n[bold green]$[/] [bold]opsd {shlex.join(arguments)}[/]")
    sys.stdout.flush()
    command = [str(Path(sys.executable).with_name("opsd")), *arguments]
    environment = {**os.environ, "OPSD_CONFIG": str(PLACE / "config.toml")}
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def title(text: str) -> None:
    """Say which step begins."""
    screen.print(f"\n[bold cyan]{text}[/]")


def verdict(text: str, *, ok: bool) -> None:
    """One line for what was compared."""
    screen.print(f"   [green]✓[/] {text}" if ok else f"   [bold red]✗ not so: {text}[/]")


if __name__ == "__main__":
    sys.exit(main())
