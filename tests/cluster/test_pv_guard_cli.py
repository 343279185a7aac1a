"""A person's way: run the job, see what there is, get a deleted claim back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster import test_pv_guard as rig
from tests.cluster.test_pv_guard import Storage
from tests.rig import controlplane
from tests.rig.controlplane import ControlPlane
from tests.rig.home import Home

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

kube, made = rig.kube, rig.made  # fixtures

TABLE = """
[kubernetes]
kubeconfig = "{kubeconfig}"

[jobs.pv-guard]
repositories = ["disk"]
"""


@pytest.mark.usefixtures("kube")
def test_a_deleted_claim_comes_back_with_two_commands(
    control_plane: ControlPlane, made: Storage, tmp_path: Path
) -> None:
    kubectl = controlplane.bin_dir() / "kubectl"
    if not kubectl.exists():
        pytest.skip("kubectl is not among the programs of KUBEBUILDER_ASSETS")
    home = Home(place=tmp_path / "home")
    home.place.mkdir()
    home.write(TABLE.format(kubeconfig=control_plane.kubeconfig_of("opsd", "opsd-pv-guard")))
    made.storage_class(archiveOnDelete="false")
    made.claim("data")

    checked = home.opsd("check")
    ran = home.opsd("run-job", "pv-guard", "-o", "json", "--fail-on", "critical")
    proven = home.opsd("backups", "verify", "volumes/main")
    rig.lose(made, "data")
    after = home.opsd("run-job", "pv-guard", "--fail-on", "critical")  # a catalogue without it
    file = tmp_path / "volume.json"
    claim = f"{made.namespace}/data"
    back = ("backups", "restore", "volumes/main", "--path", claim, "--to", str(file))
    restored = home.opsd(*back)
    again = home.opsd(*back)
    unknown = home.opsd(*back[:4], f"{made.namespace}/other", *back[5:])
    create: list[str | Path] = [kubectl, "create", "-f", file]
    environment = {"KUBECONFIG": str(control_plane.kubeconfig()), "HOME": str(tmp_path)}
    subprocess.run(create, env=environment, check=True, capture_output=True)

    (run,) = json.loads(ran.out)["runs"]
    assert (checked.status, ran.status, proven.status) == (0, 0, 0), checked.out + ran.err
    assert run["outcome"] == "completed"
    assert [one["kind"] for one in run["artifacts"]] == ["pv_catalog"]
    assert (after.status, restored.status) == (0, 0), after.err + restored.err
    assert f"kubectl create -f {file}" in restored.out
    assert "name a new file" in again.err
    assert f"no catalogue of volumes/main has a claim {made.namespace}/other" in unknown.err
    assert made.bound("data")["spec"]["nfs"] == made.volumes["data"]["spec"]["nfs"]
