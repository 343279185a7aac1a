"""How long a run of stuck-pods watches, what it keeps, and whose backups it names."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from jobs import stuck_pods
from jobs.stuck_pods import Eyes, Settings
from opsd.clients.kube.client import Kube
from opsd.cluster.nodeloss.facts import Node, Pod
from opsd.cluster.nodeloss.incident import Loss, Volume
from opsd.cluster.nodeloss.memory import decode
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict
from opsd.errors import ConfigError
from opsd.model import Outcome, Run
from opsd.runner import execute
from opsd.testing import context
from tests.rig.simcluster import START, SimCluster, SimKube, SimNode


class Opsd:
    """Runs of the job on a cluster of three nodes that has its own time."""

    def __init__(self, scratch: Path) -> None:
        self.cluster = SimCluster(nodes=[SimNode(name=f"n{n}", phase=n) for n in range(3)])
        self.scratch = scratch

    def now(self) -> datetime:
        return START + timedelta(seconds=self.cluster.now_s)

    def monotonic(self) -> float:
        return float(self.cluster.now_s)

    boot_id = "boot"

    def seconds(self) -> float:
        return float(self.cluster.now_s)

    def run(
        self, *, late_s: int = 0, kube: object = None, dry_run: bool = False, **settings: Any
    ) -> Run:
        ctx = context(
            scratch=self.scratch,
            clock=self,
            job="stuck-pods",
            slot=self.now() - timedelta(seconds=late_s),
            timeout=timedelta(minutes=3),
            dry_run=dry_run,
            kube=cast("Kube", kube or SimKube(self.cluster)),
        )
        eyes = Eyes(uptime=self)
        job = replace(stuck_pods.JOB, run=lambda ctx, own: stuck_pods.watch(ctx, own, eyes))
        return execute(job, Settings(ports=(), **settings), ctx)


@pytest.fixture
def opsd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opsd:
    """One that has watched for long enough."""
    made = Opsd(tmp_path)
    monkeypatch.setattr("jobs.stuck_pods.time.sleep", made.cluster.advance)
    assert made.run(watch="0s").outcome is Outcome.COMPLETED
    return made


def test_the_first_run_watches_until_it_can_say_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = Opsd(tmp_path)
    monkeypatch.setattr("jobs.stuck_pods.time.sleep", fresh.cluster.advance)

    run = fresh.run(watch="0s")

    assert run.outcome is Outcome.COMPLETED
    assert fresh.cluster.now_s >= 90


@pytest.mark.parametrize(
    ("late_s", "lasts_s"), [(0, 50), (10, 50), (20, 40), (50, 10), (60, 0), (600, 0)]
)
def test_a_run_is_over_before_the_next_slot(opsd: Opsd, late_s: int, lasts_s: int) -> None:
    started_s = opsd.cluster.now_s

    opsd.run(late_s=late_s)

    assert opsd.cluster.now_s - started_s == lasts_s


def test_a_dry_run_looks_once(opsd: Opsd) -> None:
    started_s = opsd.cluster.now_s

    assert opsd.run(dry_run=True).outcome is Outcome.COMPLETED

    assert opsd.cluster.now_s == started_s


@pytest.mark.parametrize("cut_s", range(180, 240, 7))
def test_a_loss_is_told_within_fifteen_seconds_of_the_api_server_marking_it(
    opsd: Opsd, cut_s: int
) -> None:
    node = opsd.cluster.nodes[0]

    def cut(cluster: SimCluster) -> None:
        if cluster.now_s == cut_s:
            cluster.cut(node)

    opsd.cluster.events = cut
    found = False
    while not found:
        opsd.cluster.advance(60 - opsd.cluster.now_s % 60)
        found = any(one.check == "node.lost" for one in opsd.run().findings)

    assert 0 <= opsd.cluster.now_s - node.unknown_s <= 15


def test_what_was_found_out_about_a_node_is_forgotten_when_it_is_back(opsd: Opsd) -> None:
    def looked_up() -> set[str]:
        memory = decode((opsd.scratch / "seen.json").read_bytes())
        assert memory
        return set(memory.research)

    opsd.cluster.cut(opsd.cluster.nodes[0])
    opsd.run(watch="2m")
    while_lost = looked_up()
    opsd.cluster.mend(opsd.cluster.nodes[0])
    opsd.run(watch="2m")

    assert (while_lost, looked_up()) == ({"n0"}, set())


def test_without_a_cluster_the_run_says_so(opsd: Opsd) -> None:
    class NoKube:
        def until(self, _deadline: object) -> object:
            raise ConfigError("there is no Kubernetes cluster; set kubernetes.kubeconfig")

    run = opsd.run(kube=NoKube())

    assert run.outcome is Outcome.FAILED
    assert "there is no Kubernetes cluster" in run.error


def test_a_memory_that_cannot_be_kept_fails_the_run(opsd: Opsd) -> None:
    opsd.scratch = opsd.scratch / "gone"

    run = opsd.run(watch="0s")

    assert run.outcome is Outcome.FAILED
    assert "seen.json: No such file or directory" in run.error


POD = Pod(namespace="db", name="pg-0", uid="1", owner="StatefulSet/pg", is_postgres=True)
WEB = Pod(namespace="web", name="shop-7c9f-x2", uid="2", owner="ReplicaSet/shop-7c9f")
NFS = Volume(claim="db/data", where="nfs 10.0.0.5:/export/x")
LOCAL = Volume(claim="db/data", where="/mnt/ssd of the node")


@pytest.mark.parametrize(
    ("subject", "pods", "databases", "volume", "is_named"),
    [
        ("database/db-pg/app", (POD,), ("db/pg-0",), LOCAL, True),
        ("database/pg/app", (POD,), ("db/pg-0",), LOCAL, True),
        ("database/db-pg-0/app", (POD,), ("db/pg-0",), LOCAL, True),
        ("database/db-pgx/app", (POD,), ("db/pg-0",), LOCAL, False),
        ("database/web-shop/app", (WEB,), ("web/shop-7c9f-x2",), LOCAL, True),
        ("database/db-pg/app", (POD,), (), LOCAL, False),
        ("share/nfs", (POD,), (), NFS, True),
        ("share/nfs", (POD,), (), LOCAL, False),
    ],
)
def test_backups_are_named_of_what_lay_on_the_node(
    subject: str,
    pods: tuple[Pod, ...],
    databases: tuple[str, ...],
    volume: Volume,
    *,
    is_named: bool,
) -> None:
    loss = Loss(
        node=Node(name="rpi3", uid="n", created_at=START),
        verdict=Verdict(kind=Kind.SILENT, advice=Advice.FENCE),
        pods=pods,
        databases=databases,
    )

    assert stuck_pods._concerns(subject, loss, (volume,)) is is_named
