"""What opsd reads of a real control-plane node is what kubeadm, etcd and the API server say."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from opsd.hosts import yamltext
from opsd.hosts.kubeadm import credentials
from opsd.upgrade.check import Status, judged
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.handshakes import shown_by
from tests.rig.kubeadmcluster import BY_ID, START, TO_36, Cluster, running
from tests.rig.kubeadmnode import KubeadmNode, etcd_flags
from tests.rig.machines import EVERYTHING

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(600)]

MANIFESTS = "/etc/kubernetes/manifests"
PKI = "/etc/kubernetes/pki"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as made:
        yield made


def expiry_of(name: str) -> str:
    """As kubeadm names files: ``apiserver``, ``etcd-server``, ``admin.conf``."""
    if name.endswith(".conf"):
        return f"/etc/kubernetes/{name}"
    inner = name.removeprefix("etcd-")
    is_etcds = name in ("etcd-server", "etcd-peer", "etcd-healthcheck-client", "etcd-ca")
    return f"{PKI}/{'etcd/' if is_etcds else ''}{inner if is_etcds else name}.crt"


def test_opsd_and_kubeadm_read_the_same_ends_of_all_certificates(cluster: Cluster) -> None:
    said = json.loads(cluster.node.kubeadm("certs check-expiration -o json"))
    listed = (*said["certificates"], *said["certificateAuthorities"])
    theirs = {expiry_of(one["name"]): one["expirationDate"] for one in listed}

    facts = cluster.facts()

    (machine,) = facts.control_plane
    read = (
        *credentials.read_folder(machine.text(credentials.FOLDER_PROBE.name)),
        *(
            one.certificate
            for one in credentials.read_kubeconfigs(
                machine.text(credentials.KUBECONFIGS_PROBE.name)
            )
            if one.certificate
        ),
    )
    ours = {one.where: f"{one.not_after:%Y-%m-%dT%H:%M:%SZ}" for one in read}
    assert len(theirs) == 14
    assert ours == theirs


@pytest.mark.parametrize(
    ("hours", "status"),
    [
        (6 * 24, Status.FAIL),
        (8 * 24, Status.WARN),
        (29 * 24, Status.WARN),
        (31 * 24, Status.PASS),
    ],
)
def test_a_certificate_that_kubeadm_made_for_days_is_told_in_time(
    cluster: Cluster, hours: int, status: Status
) -> None:
    node = cluster.node
    cluster.run(f"cp -a {PKI} /root/pki; rm {PKI}/front-proxy-client.*")
    try:
        short = KubeadmNode(node.machine, START, {"certificateValidityPeriod": f"{hours}h"})
        node.machine.write("/root/short.yaml", short.configuration())
        node.kubeadm("init phase certs front-proxy-client --config /root/short.yaml")
        found = cluster.asked("certificates")
    finally:
        cluster.run(f"rm -r {PKI}; mv /root/pki {PKI}")

    assert found.status is status
    assert found.worst if status is Status.PASS else len(found.worst) == 1
    if status is not Status.PASS:
        assert found.worst[0].where == f"cp1: {PKI}/front-proxy-client.crt"


def test_renewed_certificates_are_of_no_use_before_the_api_server_restarts(
    cluster: Cluster,
) -> None:
    node = cluster.node

    cluster.run("sleep 1.1")  # certificates count in seconds
    node.kubeadm("certs renew apiserver")
    renewed = cluster.asked("served-certificates")
    node.stop("kube-apiserver")
    node.start("kube-apiserver")
    restarted = cluster.asked("served-certificates")

    assert renewed.status is Status.WARN
    assert [note.where for note in renewed.worst] == ["cp1 port 6443"]
    assert "renewed, and not restarted since" in renewed.worst[0].value
    assert restarted.status is Status.PASS, restarted.worst


def test_a_name_that_is_not_in_the_certificate_is_told(cluster: Cluster) -> None:
    node = cluster.node
    before = json.loads(node.kubectl("-n kube-system get configmap kubeadm-config -o json"))
    changed = (
        before["data"]["ClusterConfiguration"] + "controlPlaneEndpoint: k8s.example.test:6443\n"
    )
    after = {"data": {"ClusterConfiguration": changed}}
    patch = "-n kube-system patch configmap kubeadm-config --type merge --patch-file /dev/stdin"

    node.kubectl(patch, stdin=json.dumps(after))
    found = cluster.asked("served-certificates")
    node.kubectl(patch, stdin=json.dumps({"data": before["data"]}))
    mended = cluster.asked("served-certificates")

    assert found.status is Status.WARN
    assert "not for k8s.example.test" in found.worst[0].value
    assert mended.status is Status.PASS


def test_a_changed_flag_that_kubeadm_knows_of_is_no_edit(cluster: Cluster) -> None:
    node = cluster.node
    before = json.loads(node.kubectl("-n kube-system get configmap kubeadm-config -o json"))
    config = yamltext.mapping(before["data"]["ClusterConfiguration"])
    config["apiServer"] = {"extraArgs": [{"name": "profiling", "value": "false"}]}
    patch = "-n kube-system patch configmap kubeadm-config --type merge --patch-file /dev/stdin"

    node.kubectl(patch, stdin=json.dumps({"data": {"ClusterConfiguration": json.dumps(config)}}))
    lost = cluster.asked("static-manifest-edits")
    path = f"{MANIFESTS}/kube-apiserver.yaml"
    cluster.run(
        f"cp {path} /root/; sed -i 's#    - --allow-priv#    - --profiling=false\\n&#' {path}"
    )
    kept = cluster.asked("static-manifest-edits")
    cluster.run(f"cp /root/kube-apiserver.yaml {path}")
    node.kubectl(patch, stdin=json.dumps({"data": before["data"]}))

    assert lost.status is Status.WARN
    assert "no --profiling" in lost.worst[0].value
    assert kept.status is Status.PASS, kept.worst


def test_an_alarm_of_etcd_is_told_until_it_is_disarmed(cluster: Cluster) -> None:
    alarm(cluster, "ACTIVATE")
    found = cluster.asked("etcd-health")
    alarm(cluster, "DEACTIVATE")
    mended = cluster.asked("etcd-health")

    assert found.status is Status.FAIL
    assert found.worst[0].value == "ALARM NOSPACE"
    assert mended.status is Status.PASS, mended.worst


def alarm(cluster: Cluster, action: str) -> None:
    """Set or take back an alarm by etcd's own API."""
    pki = f"{cluster.node.machine.root}{PKI}/etcd"
    keys = (
        "--cacert",
        f"{pki}/ca.crt",
        "--cert",
        f"{pki}/server.crt",
        "--key",
        f"{pki}/server.key",
    )
    asked = json.dumps({"action": action, "memberID": 0, "alarm": "NOSPACE"})
    address = cluster.node.machine.address
    url = f"https://{address}:2379/v3/maintenance/alarm"
    subprocess.run(("curl", "-sSf", *keys, url, "-d", asked), check=True, timeout=60)


def test_an_etcd_that_is_down_is_unknown_and_so_is_its_certificate(cluster: Cluster) -> None:
    facts = cluster.facts()
    cluster.node.stop("etcd")
    try:
        down = dataclasses.replace(
            facts, machines=cluster.machines(facts), shown=shown_by(facts.nodes)
        )
        results = [
            judged(BY_ID[one], down, TO_36) for one in ("etcd-health", "served-certificates")
        ]
    finally:
        cluster.node.start("etcd", *etcd_flags())

    assert [result.status for result in results] == [Status.UNKNOWN, Status.UNKNOWN]


def test_a_kubelet_that_shows_an_old_certificate_is_told(cluster: Cluster) -> None:
    facts = cluster.facts()

    results = [
        judged(BY_ID["served-certificates"], dataclasses.replace(facts, at=at), TO_36)
        for at in (facts.at, facts.at + timedelta(days=364), facts.at + timedelta(days=366))
    ]

    says = [next(note for note in one.notes if "10250" in note.where).status for one in results]
    assert says == [Status.PASS, Status.PASS, Status.WARN]


def test_with_the_rights_of_the_documentation_all_of_it_is_read(cluster: Cluster) -> None:
    machine, page = cluster.node.machine, Path("docs/nodes.md").read_text()
    lines = re.findall(r"^opsd ALL=.*$", page, re.MULTILINE)

    machine.sudoers(*lines)
    try:
        facts = cluster.facts()
    finally:
        machine.sudoers(EVERYTHING)

    (read,) = facts.machines.value
    assert len(lines) > 10
    assert {name: one.stderr for name, one in read.sections.items() if one.is_refused} == {}
    results = [judged(check, facts, TO_36) for check in CHECKS if check.probes]
    assert {one.check.id: one.worst for one in results if one.status is not Status.PASS} == {}


def test_no_key_leaves_the_machine(cluster: Cluster) -> None:
    machine = cluster.node.machine
    held = machine.run(
        "cat /etc/kubernetes/pki/*.key /etc/kubernetes/pki/etcd/*.key; sed -n '/PRIVATE/,/END/p'"
        " /var/lib/kubelet/pki/*.pem; for conf in /etc/kubernetes/*.conf; do"
        " sed -n 's/.*client-key-data: //p' $conf | base64 -d; done",
        check=True,
    ).out
    secret = {line for line in held.splitlines() if line and not line.startswith("--")}
    words = machine.run("grep -h key-data /etc/kubernetes/*.conf", check=True).out.split()
    encoded = {word[200:240] for word in words if len(word) > 1000}

    (read,) = cluster.facts().machines.value

    told = "\n".join(one.stdout + one.stderr for one in read.sections.values())
    assert len(secret) > 200
    assert len(encoded) == 4
    assert [line for line in (*secret, *encoded) if line in told] == []


def test_the_kubelet_of_a_node_that_is_not_ready_is_not_waited_for(cluster: Cluster) -> None:
    patch = "patch node cp1 --subresource=status --type strategic --patch-file /dev/stdin"

    def say(status: str) -> None:
        ready = {"type": "Ready", "status": status}
        cluster.node.kubectl(patch, stdin=json.dumps({"status": {"conditions": [ready]}}))

    say("Unknown")
    lost = cluster.facts().kubelets["cp1"].problem
    say("True")
    back = cluster.facts().kubelets["cp1"].problem

    assert lost
    assert lost.why == "the node is not Ready"
    assert back  # nobody answers there either, but it was asked
    assert back.why != lost.why
