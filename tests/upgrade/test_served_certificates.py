"""What programs show, against what lies in the files and how they are called."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import trustme

from opsd.clients.kube.objects import ConfigMap, Node
from opsd.clients.kube.objects.base import Metadata
from opsd.clients.kube.objects.nodes import NodeAddress, NodeStatus
from opsd.hosts import certificates
from opsd.hosts.certificates import Certificate
from opsd.upgrade.check import Status, judged
from opsd.upgrade.checks.served_certificates import SERVED
from opsd.upgrade.facts import Facts
from opsd.upgrade.handshakes import CONTROL_PLANE
from opsd.upgrade.reading import Reading
from tests.upgrade.test_machine_checks import HOP, NOW, facts_of

AUTHORITY = trustme.CA()
ADDRESS = "10.0.0.1"
NODE = Node(
    metadata=Metadata(name="a", labels={CONTROL_PLANE: ""}),
    status=NodeStatus(addresses=(NodeAddress(type="InternalIP", address=ADDRESS),)),
)
PORTS = (6443, 2379, 10250)


def made(left: timedelta = timedelta(days=300), *names: str) -> tuple[str, Certificate]:
    """A certificate, as its file and as a program shows it."""
    end = NOW + left
    leaf = AUTHORITY.issue_cert(
        *(names or (ADDRESS,)), not_before=end - timedelta(days=365), not_after=end
    )
    text = leaf.cert_chain_pems[0].bytes().decode()
    return text, certificates.read_pem("shown", text)[0]


def files(**texts: str) -> str:
    paths = {"api": "apiserver.crt", "etcd": "etcd/server.crt"}
    return "".join(
        f"/etc/kubernetes/pki/{paths[name]}:{line}\n"
        for name, text in texts.items()
        for line in text.splitlines()
    )


def cluster(shown: dict[int, Certificate], listing: str = "", *, endpoint: str = "") -> Facts:
    """A control-plane node whose ports show these; the others nobody reached."""
    config = ConfigMap(data={"ClusterConfiguration": f"controlPlaneEndpoint: '{endpoint}'"})
    away = Reading[Certificate].failed("a port", "connection refused")
    return dataclasses.replace(
        facts_of({"certificates-folder": listing}),
        nodes=Reading.of((NODE,)),
        config_maps=Reading.of({"kubeadm-config": config}),
        shown={("a", port): Reading.of(shown[port]) if port in shown else away for port in PORTS},
    )


GOOD_TEXT, GOOD = made()
FILES = files(api=GOOD_TEXT, etcd=GOOD_TEXT)
ALL_GOOD = dict.fromkeys(PORTS, GOOD)
ENDED = made(timedelta(seconds=-1))[1]
ENDING = made(timedelta(seconds=1))[1]


@pytest.mark.parametrize(
    ("port", "certificate", "expected"),
    [
        (6443, ENDED, Status.FAIL),
        (6443, ENDING, Status.PASS),
        (2379, ENDED, Status.FAIL),
        (10250, ENDED, Status.WARN),
        (10250, ENDING, Status.PASS),
    ],
)
def test_a_certificate_that_ended_is_in_the_way_and_a_kubelets_is_a_warning(
    port: int, certificate: Certificate, expected: Status
) -> None:
    facts = cluster({**ALL_GOOD, port: certificate})

    assert judged(SERVED, facts, HOP).status is expected


@pytest.mark.parametrize("port", PORTS)
def test_a_port_that_cannot_be_reached_is_unknown_and_hides_no_other(port: int) -> None:
    reached = {other: ENDED for other in PORTS if other != port}

    notes = judged(SERVED, cluster(reached), HOP).notes

    assert [note.status for note in notes].count(Status.UNKNOWN) == 1
    assert len([note for note in notes if "ended on" in note.value]) == 2


def test_without_an_etcd_of_its_own_a_node_shows_none() -> None:
    shown = {6443: GOOD, 10250: GOOD}

    here = judged(SERVED, cluster(shown, files(api=GOOD_TEXT, etcd=GOOD_TEXT)), HOP)
    elsewhere = judged(SERVED, cluster(shown, files(api=GOOD_TEXT)), HOP)

    assert here.status is Status.UNKNOWN
    assert elsewhere.status is Status.PASS


def test_an_older_one_than_in_the_file_is_told_and_a_newer_one_is_not() -> None:
    newer_text, newer = made(timedelta(days=301))

    renewed = judged(SERVED, cluster(ALL_GOOD, files(api=newer_text, etcd=GOOD_TEXT)), HOP)
    other = judged(SERVED, cluster(dict.fromkeys(PORTS, newer), FILES), HOP)

    assert renewed.status is Status.WARN
    assert "not restarted since" in renewed.worst[0].value
    assert "kube-apiserver.yaml" in renewed.fix
    assert other.status is Status.PASS


@pytest.mark.parametrize(
    ("endpoint", "names", "missing"),
    [
        ("", (ADDRESS,), ""),
        ("", ("10.0.0.2",), ADDRESS),
        ("k8s.lan:6443", (ADDRESS,), "k8s.lan"),
        ("k8s.lan:6443", (ADDRESS, "k8s.lan"), ""),
        ("[fd00::1]:6443", (ADDRESS, "fd00::1"), ""),
        ("[fd00::1]:6443", (ADDRESS,), "fd00::1"),
    ],
)
def test_every_name_by_which_the_api_server_is_called_must_be_in_it(
    endpoint: str, names: tuple[str, ...], missing: str
) -> None:
    _, api = made(timedelta(days=300), *names)

    found = judged(SERVED, cluster({**ALL_GOOD, 6443: api}, endpoint=endpoint), HOP)

    if missing:
        assert found.status is Status.WARN
        assert f"not for {missing}, by which it is called" in found.worst[0].value
    else:
        assert found.status is Status.PASS


def test_a_node_without_an_address_was_asked_by_nobody() -> None:
    facts = dataclasses.replace(cluster({}), shown={})

    assert judged(SERVED, facts, HOP).status is Status.UNKNOWN
