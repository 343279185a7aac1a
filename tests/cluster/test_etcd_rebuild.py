"""A control plane of the real kubeadm is backed up over SSH, destroyed, and rebuilt from that."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from opsd.backup.etcd.plane import NEEDED, NEEDED_STACKED
from tests.rig import etcds, scratch
from tests.rig.fleets import access_to
from tests.rig.home import Home
from tests.rig.kubeadmnode import KubeadmNode, etcd_flags
from tests.rig.machines import Network, RealMachine

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "etcd.md"
SUDOERS = tuple(
    line
    for block in re.findall(r"```sudoers\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in block.splitlines()
)
KINDS = "namespaces,secrets,configmaps,serviceaccounts,clusterroles,clusterrolebindings,services"


@pytest.fixture
def node(network: Network) -> Iterator[KubeadmNode]:
    etcds.programs()
    made = KubeadmNode(network.machine("cp1", sudoers=SUDOERS))
    made.set_up()
    try:
        start(made)
        yield made
    finally:
        made.close()


def start(node: KubeadmNode) -> None:
    node.start("etcd", *etcd_flags())
    node.start("kube-apiserver")


def objects(node: KubeadmNode) -> dict[str, str]:
    """UID of every object, by its kind and name."""
    found = json.loads(node.kubectl(f"get {KINDS} -A -o json"))["items"]
    return {
        f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}": one[
            "metadata"
        ]["uid"]
        for one in found
    }


def installation(home: Home, machine: RealMachine, identity: pyrage.x25519.Identity) -> None:
    access = access_to([machine])
    home.write(
        f"""
[ssh]
key = "{access.key.reference}"
known_hosts = "{access.known_hosts}"
nodes = false

[[machines]]
name = "{machine.name}"
address = "{machine.address}"
roles = ["control-plane"]

[jobs.etcd-backup]
repositories = ["disk"]
recipients = ["{identity.to_public()}"]
programs = "{etcds.programs()}"
"""
    )
    (home.place / "identity").write_text(f"{identity}\n")


@pytest.mark.parametrize("words", ["of the command", "of the page"])
def test_a_destroyed_control_plane_comes_back_with_every_object(
    node: KubeadmNode, words: str
) -> None:
    machine = node.machine
    node.kubectl("create namespace shop")
    node.kubectl("-n shop create secret generic login --from-literal=password=hunter2-canary")
    node.kubectl("-n shop create serviceaccount web")
    token = node.kubectl("-n shop create token web --duration 1h").strip()
    node.kubeadm("init phase upload-config kubeadm --config /root/kubeadm.yaml")
    before = objects(node)
    with scratch.directory("rebuild") as place:
        home = Home(place)
        installation(home, machine, pyrage.x25519.Identity.generate())

        run = home.opsd("run-job", "etcd-backup", "-o", "json")

        assert run.status == 0, run.err + run.out
        (result,) = run.json["runs"]
        assert [one["facts"] for one in result["findings"]] == []
        assert result["artifacts"][0]["level"] == "restored"
        leaks = [path for path in place.rglob("*") if path.is_file() and holds_canary(path)]
        assert leaks == []

        destroy(node)
        back = place / "back"
        restored = home.opsd(
            *("backups", "restore", "etcd/main", "-o", "json"),
            *("--to", str(back), "--identity", str(place / "identity")),
        )

        assert restored.status == 0, restored.err + restored.out
        assert restored.json["matches"]
        node_files = {str(path.relative_to(back / "node")) for path in (back / "node").rglob("*")}
        assert {*NEEDED, *NEEDED_STACKED} <= node_files
        assert "kubernetesVersion: " in (back / "kubeadm-config.yaml").read_text()

        copy(back, machine)
        for command in printed(restored.json["notes"]) if "command" in words else on_the_page():
            machine.run(f"PATH=$PATH:/usr/local/bin; cd {back}; {command}", check=True)
        start(node)

        assert objects(node).items() >= before.items()
        secret = json.loads(node.kubectl("-n shop get secret login -o json"))
        assert secret["data"]["password"] == "aHVudGVyMi1jYW5hcnk="
        assert is_believed(node, token)


def holds_canary(path: Path) -> bool:
    content = path.read_bytes()
    return b"hunter2-canary" in content or b"RSA PRIVATE KEY" in content


def destroy(node: KubeadmNode) -> None:
    """Lose the disk."""
    node.close()
    node.machine.run("rm -rf /var/lib/etcd /etc/kubernetes /var/lib/kubelet", check=True)


def copy(back: Path, machine: RealMachine) -> None:
    """Give the machine what a person copies to it: the directory, and etcdutl."""
    shutil.copytree(back, machine.root / str(back).lstrip("/"), symlinks=True)
    shutil.copy2(etcds.programs() / "etcdutl", machine.root / "usr/local/bin/etcdutl")


def printed(notes: list[str]) -> list[str]:
    """What opsd said to do, without what is about the kubelet: there is none."""
    steps = [note.removeprefix("next: ") for note in notes if note.startswith("next: ")]
    wanted = [one for one in steps if one.startswith(("etcdutl ", "("))]
    assert len(wanted) == 2
    return wanted


def on_the_page() -> list[str]:
    """What docs/restore.md says, likewise."""
    text = (DOCS / "restore.md").read_text()
    found = re.findall(
        r"^ *```sh control-plane-(?:etcd|files)\n(.*?)```$", text, re.MULTILINE | re.DOTALL
    )
    assert len(found) == 2
    return found


def is_believed(node: KubeadmNode, token: str) -> bool:
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    answer = json.loads(node.kubectl("create -o json -f -", stdin=json.dumps(review)))
    return bool(answer["status"].get("authenticated"))
