"""`opsd fence` on a real control plane: a person's word moves a database, and nothing more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.node_remedy import Settings
from opsd.cli import main
from opsd.cluster.nodeloss.vantage import Here
from opsd.model import Outcome
from tests.cluster.remedier import OUT_OF_SERVICE, Remedier, finding, phase, refusal, taints
from tests.cluster.watcher import s
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.fileserver import PROGRAM, furnish
from tests.rig.fleets import access_to
from tests.rig.kubeapi import KubeApi, Object, eventually
from tests.rig.kubelet import FakeNode
from tests.rig.kubestate import is_gone, node_is, running_pod
from tests.rig.machines import Network
from tests.rig.realnodes import real_node
from tests.rig.workloads import pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

CONFIRMED = "opsd.dev/fence-confirmed"
WHY = ("--reason", "unplugged")


class Desk:
    """A person with opsd and a kubeconfig file."""

    def __init__(
        self, control_plane: ControlPlane, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._capsys, self._config = capsys, home / "config.toml"
        self._config.write_text(
            f'[opsd]\nstate_dir = "{home}"\n'
            f'[kubernetes]\nkubeconfig = "{control_plane.kubeconfig()}"\n'
        )

    def write(self, more: str) -> None:
        """Add to the configuration."""
        self._config.write_text(self._config.read_text() + more)

    def type(self, *words: str) -> tuple[int, str]:
        """Exit status, and all that was printed."""
        self._capsys.readouterr()
        status = main(["--config", str(self._config), "fence", *words])
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def ask(self, *words: str) -> dict[str, Any]:
        """One entry of the answer in JSON, the only one."""
        status, printed = self.type(*words, "-o", "json")
        assert status == 0, printed
        [entry] = json.loads(printed)["nodes"]
        found: dict[str, Any] = entry
        return found


@pytest.fixture
def desk(control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(control_plane, tmp_path, capsys)


@pytest.fixture
def opsd(control_plane: ControlPlane, tmp_path: Path, namespace: str) -> Remedier:
    """opsd that may move what is in the namespace, and has no fence."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = Settings(
        allow=(namespace,), patience=s(7), healthy_for=s(2), cool_down=s(1), max_lost_percent=50
    )
    opsd = Remedier(control_plane=control_plane, scratch=scratch, settings=settings)
    opsd.until(lambda run: run.outcome is Outcome.COMPLETED)
    return opsd


def database(api: KubeApi, namespace: str, nodes: list[FakeNode]) -> tuple[Object, FakeNode]:
    api.create(stateful_set(namespace, "db", pod_spec(nodes[0].pool, grace_s=1)))
    db = running_pod(api, namespace, "db-0")
    return db, next(one for one in nodes if one.name == db["spec"]["nodeName"])


def node_of(api: KubeApi, node: FakeNode) -> Object:
    return api.get(f"/api/v1/nodes/{node.name}")


def test_a_database_moves_on_the_word_of_a_person_and_its_node_is_given_back(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, desk: Desk
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    node.lose_power()
    node_is(api, node, "Unknown")
    before = opsd.until(lambda run: refusal(run, node.name) == {"not_proven"})

    told = desk.ask("confirm", node.name, "--for", "2h", *WHY)
    opsd.until(lambda _run: phase(node_of(api, node)) == "moved")
    eventually(lambda: is_gone(api, db))
    running_pod(api, namespace, "db-0")
    listed, (_, shown) = desk.ask("list"), desk.type("list")
    node.boot()
    opsd.until(lambda _run: phase(node_of(api, node)) == "")
    given_back = node_of(api, node)

    refused = finding(before, "remedy.refused", node.name)
    assert refused is not None
    assert f"opsd fence confirm {node.name} --for 2h" in refused.remedy
    assert told["confirmed"]["reason"] == "unplugged"
    assert (listed["plan"]["phase"], listed["plan"]["proof"]) == ("moved", "person")
    assert listed["plan"]["pods"] == [f"{namespace}/db-0"]
    assert f"{node.name} is moved; proof: person; pods: {namespace}/db-0" in shown
    assert OUT_OF_SERVICE not in {key for key, _, _ in taints(given_back)}
    assert CONFIRMED not in given_back["metadata"]["annotations"]
    assert desk.type("list") == (0, "Nothing is under way, and no node is confirmed to be off.\n")


def test_a_person_is_not_believed_while_somebody_hears_the_node(
    *,
    control_plane: ControlPlane,
    workers: Workers,
    namespace: str,
    network: Network,
    opsd: Remedier,
    desk: Desk,
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    real = real_node(network, node)
    eventually(lambda: real.machine.boot_id in str(node_of(api, node)))
    opsd.vantages = (Here(ports=(22,), within_s=0.5),)
    node.cut_off()
    node_is(api, node, "Unknown")
    desk.ask("confirm", node.name, "--for", "2h", *WHY)

    run = opsd.until(lambda run: refusal(run, node.name) == {"seen_alive"})
    was_there = not is_gone(api, db)
    real.lose_power()
    opsd.until(lambda _run: phase(node_of(api, node)) in {"moving", "moved"})

    told = finding(run, "remedy.refused", node.name)
    assert told is not None
    assert told.facts["kind"] == "partitioned_unknown"
    assert was_there
    eventually(lambda: is_gone(api, db))


def test_a_confirmation_ends_when_the_node_is_heard_of_again(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, desk: Desk
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    node.cut_off()
    node_is(api, node, "Unknown")
    desk.ask("confirm", node.name, "--for", "2h", *WHY)

    node.come_back()
    node_is(api, node, "True")
    node.cut_off()
    node_is(api, node, "Unknown")
    opsd.until(lambda run: refusal(run, node.name) == {"not_proven"})

    assert not phase(node_of(api, node))
    assert not is_gone(api, db)


def test_a_wish_to_lift_gives_a_node_back_that_was_not_rebooted(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, desk: Desk
) -> None:
    api, nodes = control_plane.api, workers(2)
    _, node = database(api, namespace, nodes)
    node.cut_off()
    node_is(api, node, "Unknown")
    desk.ask("confirm", node.name, "--for", "2h", *WHY)
    opsd.until(lambda _run: phase(node_of(api, node)) == "moved")
    node.come_back()
    opsd.until(lambda run: finding(run, "remedy.not_rebooted", node.name))

    lifted = desk.ask("lift", node.name, "--reason", "nothing wrote")
    opsd.until(lambda _run: phase(node_of(api, node)) == "")

    assert lifted["plan"]["lift"] == "nothing wrote"
    assert lifted["confirmed"] is None
    assert OUT_OF_SERVICE not in {key for key, _, _ in taints(node_of(api, node))}


def test_what_makes_no_sense_is_refused_with_what_to_do(
    control_plane: ControlPlane, workers: Workers, desk: Desk
) -> None:
    [node] = workers(1)
    node_is(control_plane.api, node, "True")

    answers = [
        desk.type("confirm", node.name, "--for", "2h", *WHY),
        desk.type("confirm", "rpi99", "--for", "2h", *WHY),
        desk.type("confirm", node.name, "--reason", "x"),
        desk.type("lift", node.name, "--reason", "x"),
        desk.type("lift", node.name),
    ]

    assert [status for status, _ in answers] == [1, 1, 2, 1, 2]
    assert "it is ready" in answers[0][1]
    assert f"there is no node rpi99; there are: always-healthy, {node.name}" in answers[1][1]
    assert "--for is missing" in answers[2][1]
    assert "nothing is under way there" in answers[3][1]
    assert "--reason is missing" in answers[4][1]
    assert CONFIRMED not in node_of(control_plane.api, node)["metadata"].get("annotations", {})


def test_the_list_says_whom_the_file_servers_keep_out(network: Network, desk: Desk) -> None:
    nas = network.machine("nas")
    furnish(nas)
    nas.run(f"{PROGRAM} cut rpi9 10.0.0.19", check=True)
    access = access_to([nas])
    desk.write(f"""
[ssh]
user = "{nas.user}"
key = "file:{nas.identity_file}"
known_hosts = "{access.known_hosts}"
nodes = false
[[machines]]
name = "nas"
address = "{nas.address}"
[jobs.node-remedy]
[[jobs.node-remedy.fences]]
name = "files"
type = "nfs"
nodes = ["*"]
server = "nas"
serves = ["{nas.address}"]
""")

    shown, answer = desk.type("list"), desk.type("list", "-o", "json")
    nas.drop_port(22)
    unknown = desk.type("list", "-o", "json")

    assert shown[0] == 0
    assert "nas keeps out rpi9 (10.0.0.19), and nothing is recorded about it" in shown[1]
    assert "ssh nas sudo opsd-fence lift rpi9" in shown[1]
    assert json.loads(answer[1])["file_servers"] == [
        {"server": "nas", "keeps_out": {"rpi9": ["10.0.0.19"]}, "problem": ""}
    ]
    [silent] = json.loads(unknown[1])["file_servers"]
    assert silent["keeps_out"] == {}
    assert "log in to nas" in silent["problem"]
