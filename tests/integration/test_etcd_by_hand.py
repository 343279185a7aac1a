"""docs/restore.md on the control plane, run as it stands: fetch, check and decrypt by hand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.rig import etcds
from tests.rig.parts import missing
from tests.rig.planes import FILES, Owner

pytestmark = pytest.mark.real

PAGE = (Path(__file__).parents[2] / "docs/restore.md").read_text()


def block(name: str) -> str:
    """The commands of one block of the page."""
    (found,) = re.findall(rf"^```sh {name}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def by_hand(owner: Owner, *blocks: str) -> subprocess.CompletedProcess[str]:
    folder = owner.place / "by-hand"
    folder.mkdir()
    shutil.copy2(owner.identity_file, folder / "identity.txt")
    script = "set -euo pipefail\n" + "\n".join(block(name) for name in blocks)
    variables = {"REPO": str(owner.place / "repository"), "CLUSTER": "main"}
    return subprocess.run(
        ["bash", "-c", script],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_control_plane_comes_back_by_hand(tmp_path: Path) -> None:
    if shutil.which("age") is None:
        missing("age")
    with etcds.running() as (member,):
        member.fill(10)
        owner = Owner(tmp_path, [member.url])
        owner.run(drill=False)

    done = by_hand(owner, "control-plane", "control-plane-check")

    back = owner.place / "by-hand/control-plane"
    assert done.returncode == 0, done.stderr
    assert {str(path.relative_to(back / "node")) for path in back.rglob("node/**/*")} >= {*FILES}
    assert '"node": "rpi1"' in (back / "meta.json").read_text()
    assert "etcdutl snapshot restore" in (back / "README.txt").read_text()
    (back / "snapshot.db").write_bytes((back / "snapshot.db").read_bytes()[:-512])
    check = ["bash", "-c", block("control-plane-check")]
    cut = subprocess.run(check, cwd=owner.place / "by-hand", check=False)
    assert cut.returncode == 1
