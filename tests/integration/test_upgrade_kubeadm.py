"""Before an upgrade opsd and the real kubeadm say the same about a cluster of kubeadm."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from opsd.upgrade import releases
from opsd.upgrade.assessment import Verdict, assess
from opsd.upgrade.check import Status, judged
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.components import components
from opsd.upgrade.planning import hops_to
from opsd.upgrade.version import Minor, Version
from tests.rig.controlplane import NEWEST
from tests.rig.kubeadmcluster import BY_ID, TO_36, Cluster, running
from tests.rig.kubeadmnode import KubeadmNode

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(600)]

API_SERVER = "/etc/kubernetes/manifests/kube-apiserver.yaml"
#: What is so of this cluster: it is new, small, and not of the newest patch.
TRUE_WARNINGS = {"patch-level", "capacity", "deprecated-apis"}
#: There is nobody here who would run kubeadm's Job.
NO_JOB = "--ignore-preflight-errors=CreateJob"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as made:
        yield made


@pytest.fixture(scope="module")
def plan(cluster: Cluster) -> list[dict[str, str]]:
    """The parts of the cluster in kubeadm's own plan, for which it waits fifteen seconds."""
    said = json.loads(cluster.node.kubeadm(f"upgrade plan v1.35.9 -o json {NO_JOB}"))
    parts: list[dict[str, str]] = said["availableUpgrades"][0]["components"]
    return parts


def test_a_new_cluster_of_kubeadm_is_ready_for_the_next_release(cluster: Cluster) -> None:
    facts, table = cluster.facts(), releases.table()

    found = assess(
        facts, hops_to(facts.server, Minor(1, 36), table), CHECKS, known_as_of=table.asof
    )

    said = {one.check.id: one.worst for one in found.results if one.status > Status.PASS}
    assert {name: said[name] for name in said.keys() - TRUE_WARNINGS} == {}
    assert found.verdict is Verdict.WARNINGS


def test_opsd_reads_the_versions_that_kubeadm_reads_for_its_plan(
    cluster: Cluster, plan: list[dict[str, str]]
) -> None:
    theirs = {one["name"]: Version.parse(one["currentVersion"]) for one in plan}

    facts = cluster.facts()

    programs = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    ours = {name: components(facts, name)[0].version for name in programs}
    assert ours == {name: theirs[name] for name in programs}


def test_the_table_says_what_kubeadm_of_its_releases_brings(plan: list[dict[str, str]]) -> None:
    brings = {one["name"]: Version.parse(one["newVersion"]) for one in plan}

    known = releases.table().of(Minor(1, 35))

    assert known
    assert (known.etcd, known.coredns) == (brings["etcd"], brings["CoreDNS"])


def test_what_opsd_calls_undone_by_the_upgrade_is_what_kubeadm_would_change(
    cluster: Cluster,
) -> None:
    added = "    - --profiling=false"

    cluster.run(
        f"cp {API_SERVER} /root/kept; sed -i 's#    - --allow-priv#{added}\\n&#' {API_SERVER}"
    )
    try:
        found = judged(BY_ID["static-manifest-edits"], cluster.facts(), TO_36)
        difference = cluster.node.kubeadm("upgrade diff v1.35.4")
    finally:
        cluster.run(f"cp /root/kept {API_SERVER}")

    undone = [line for line in difference.splitlines() if line.startswith("-  ")]
    assert undone == [f"-{added}"]
    assert found.status is Status.WARN
    assert found.worst[0].value.endswith("undoes it: --profiling=false")


def test_kubeadm_refuses_to_skip_a_minor_release_as_opsd_plans_it(cluster: Cluster) -> None:
    newest = KubeadmNode(cluster.node.machine, minor=NEWEST)

    with pytest.raises(AssertionError, match=r"control plane version >= 1\.36\.0"):
        newest.kubeadm(f"upgrade plan {newest.version} {NO_JOB}")

    hops = hops_to(Version(1, 35, 4), Minor(1, 37), releases.table())
    assert [str(hop) for hop in hops] == ["1.35 → 1.36", "1.36 → 1.37"]


def test_the_configuration_that_the_table_calls_gone_is_gone(cluster: Cluster) -> None:
    cluster.node.machine.write(
        "/root/old.yaml",
        "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n"
        f"kubernetesVersion: {cluster.node.version}\n",
    )
    migrate = "config migrate --old-config /root/old.yaml --new-config /root/new.yaml"
    table = releases.table()
    gone = {str(minor): table.by_minor[minor].kubeadm_config_gone for minor in table.by_minor}

    cluster.node.kubeadm(migrate)
    migrated = cluster.node.machine.run("cat /root/new.yaml").out
    with pytest.raises(AssertionError, match="uses an old API spec"):
        KubeadmNode(cluster.node.machine, minor=NEWEST).kubeadm(migrate)

    assert "kubeadm.k8s.io/v1beta4" in migrated
    assert (gone["1.35"], gone["1.37"]) == ("", "v1beta3")
