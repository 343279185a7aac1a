"""docs/restore.md, run exactly as it stands: every backup comes back with stock tools only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rig import dumps
from tests.rig.home import ROOT, Home
from tests.rig.parts import missing
from tests.rig.postgres import PgServer

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PAGE = (ROOT / "docs" / "restore.md").read_text()


def block(name: str) -> str:
    """The commands of one block of the page."""
    found = re.findall(rf"^```sh {name}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, name
    return str(found[0])


def by_hand(home: Home, pg: PgServer, *blocks: str, **variables: str) -> str:
    """Run blocks in one shell without opsd on its PATH; what they print."""
    folder = home.place / "by-hand"
    folder.mkdir(exist_ok=True)
    environment = {
        "PATH": f"{pg.bin_dir}:{os.environ['PATH']}",
        "HOME": str(folder),
        "REPO": str(home.repository),
        "SERVER": "main",
        "DATABASE": "shop",
        "PGHOST": "localhost",
        "PGPORT": str(pg.port),
        "PGUSER": pg.superuser,
        "PGPASSWORD": pg.password,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(pg.ca_file),
        "RESTIC_PASSWORD": home.environment["CANARY_RESTIC"],
        **variables,
    }
    script = "set -euo pipefail\n" + "\n".join(block(name) for name in blocks)
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*.txt")}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(place=tmp_path)


def test_a_database_and_its_roles_come_back_by_hand(home: Home, own_pg: PgServer) -> None:
    own_pg.execute("CREATE ROLE shopkeeper LOGIN")
    own_pg.create_database("shop")
    own_pg.execute(dumps.SAMPLE, "shop")
    own_pg.execute("ALTER TABLE people OWNER TO shopkeeper", "shop")
    home.write(home.postgres(own_pg))
    assert home.opsd("run-job", "postgres-backup").status == 0
    own_pg.execute("DROP DATABASE shop")
    own_pg.execute("DROP ROLE shopkeeper")

    printed = by_hand(home, own_pg, "list", "check", "roles", "database")

    assert ": OK" in printed
    with own_pg.connect("shop_restored") as connection:
        rows = connection.execute("SELECT count(*) FROM people").fetchone()
        owner = connection.execute(
            "SELECT tableowner FROM pg_tables WHERE tablename = 'people'"
        ).fetchone()
    assert rows == (1000,)
    assert owner == ("shopkeeper",)


def test_an_encrypted_dump_comes_back_by_hand(home: Home, own_pg: PgServer) -> None:
    if shutil.which("age") is None:
        missing("age")
    own_pg.create_database("shop")
    own_pg.execute(dumps.SAMPLE, "shop")
    folder = home.place / "by-hand"
    folder.mkdir()
    made = subprocess.run(
        ["age-keygen", "-o", folder / "identity.txt"], capture_output=True, text=True, check=True
    )
    recipient = made.stderr.rpartition(" ")[2].strip()
    home.write(home.postgres(own_pg, recipients=[recipient]))
    assert home.opsd("run-job", "postgres-backup").status == 0

    by_hand(home, own_pg, "list", "check", "decrypt", "database")

    with own_pg.connect("shop_restored") as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (1000,)


@pytest.mark.usefixtures("restic")
def test_a_restic_share_comes_back_by_hand(home: Home, pg: PgServer) -> None:
    home.fill_share()
    home.write(home.shares("restic"))
    assert home.opsd("run-job", "nfs-backup").status == 0

    by_hand(home, pg, "restic", SHARE="restic")

    restored = home.place / "by-hand" / "restored-share" / home.share.relative_to("/")
    assert tree(restored) == tree(home.share)


@pytest.mark.usefixtures("rsync")
def test_an_rsync_share_comes_back_by_hand(home: Home, pg: PgServer) -> None:
    home.fill_share()
    home.write(home.shares("rsync"))
    assert home.opsd("run-job", "nfs-backup").status == 0

    by_hand(home, pg, "rsync", SHARE="rsync")

    assert tree(home.place / "by-hand" / "restored-share") == tree(home.share)
