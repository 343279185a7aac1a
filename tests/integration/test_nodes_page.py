"""The page of machines, from real runs on real machines to what a person sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Machines
from tests.rig.typed import Desk

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

AREAS = {"patches", "health", "nfs"}


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_runs_fill_the_page_and_a_machine_that_is_gone_is_not_ok_on_it(
    desk: Desk, real_machines: Machines
) -> None:
    lasting, going = real_machines(2)
    desk.configure(
        f"""
[ssh]
key = "file:{lasting.identity_file}"
nodes = false
connect_timeout = "3s"
[jobs.node-patches]
[jobs.node-health]
[jobs.nfs-health]
"""
        + "".join(
            f'[[machines]]\nname = "{one.name}"\naddress = "{one.address}"\n'
            for one in (lasting, going)
        )
    )
    trusted = desk.type("nodes", "trust", "--yes")
    ran = desk.json("run-job", "nodes")
    before = {one["name"]: one for one in desk.json("nodes")["nodes"]}
    going.kill()
    desk.json("run-job", "nodes")
    after = {one["name"]: one for one in desk.json("nodes")["nodes"]}
    page = desk.type("nodes").out

    assert trusted.status == 0
    assert {run["outcome"] for run in ran["runs"]} == {"completed"}
    assert {name: set(one["areas"]) for name, one in before.items()} == {
        "rpi1": AREAS,
        "rpi2": AREAS,
    }
    assert not any(area["is_old"] for area in after["rpi1"]["areas"].values())
    assert after["rpi2"]["areas"]["patches"]["is_old"]
    assert after["rpi2"]["state"] in ("critical", "warning", "unknown")
    assert {one["check"] for one in after["rpi2"]["findings"]} >= {"machine.unreachable"}
    assert (
        after["rpi2"]["areas"]["patches"]["seen_at"]
        == (before["rpi2"]["areas"]["patches"]["seen_at"])
    )
    assert "rpi2" in page
