"""A kubelet says through the API server which release will not take its container runtime."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator

import pytest
import trustme

from opsd.upgrade.check import Status
from tests.cluster.test_upgrade_plants import look, result_of, told
from tests.rig import controlplane
from tests.rig.controlplane import OLDEST
from tests.rig.kubeadm import Kubeadm
from tests.rig.kubeapi import Object
from tests.rig.machines import Network
from tests.rig.server import HOST

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubeadm]:
    with controlplane.running(OLDEST) as plane:
        yield Kubeadm(plane)


@contextlib.contextmanager
def kubelet(metrics: str, network: Network) -> Iterator[Object]:
    """The node whose kubelet this is: on an address of its own, as the API server wants it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.encode() if self.path == "/metrics" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    pem = network.home / "kubelet.pem"
    pem.write_bytes(trustme.CA().issue_cert(HOST).private_key_and_cert_chain_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    address = f"10.213.{network.number}.1"
    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "addresses": [{"type": "InternalIP", "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": server.server_address[1]}},
        }
        server.shutdown()


def node_with(cluster: Kubeadm, status: Object) -> Object:
    item = cluster.node("rpi4")
    return {**item, "status": item["status"] | status}


@pytest.mark.parametrize(
    ("version", "status"),
    [("1.36", Status.FAIL), ("1.37", Status.PASS)],
)
def test_what_the_kubelet_says_counts_and_for_the_release_that_it_says(
    cluster: Kubeadm, network: Network, version: str, status: Status
) -> None:
    metrics = (
        f'# TYPE x gauge\nkubelet_cgroup_version 2\ncri_losing_support{{version="{version}"}} 1\n'
    )

    with kubelet(metrics, network) as own, cluster.instead(node_with(cluster, own)):
        found = result_of(cluster, "container-runtime", "1.36")

    assert found.status is status, told(found.notes)
    assert status is Status.PASS or "its kubelet says that 1.36 will not take it" in told(
        found.worst
    )


def test_the_control_groups_of_a_kubelet_are_read(cluster: Kubeadm, network: Network) -> None:
    with (
        kubelet("kubelet_cgroup_version 1\n", network) as own,
        cluster.instead(node_with(cluster, own)),
    ):
        facts = look(cluster)

    assert facts.kubelets["rpi4"].value.cgroup == 1
    # Nobody answers for the others, which is no news about their runtime.
    assert facts.kubelets["rpi5"].problem is not None


def test_a_kubelet_of_a_node_that_is_not_ready_is_not_asked(cluster: Kubeadm) -> None:
    with cluster.instead(cluster.node("rpi4", conditions={"Ready": "Unknown"})):
        facts = look(cluster)

    problem = facts.kubelets["rpi4"].problem
    assert problem is not None
    assert problem.why == "the node is not Ready"
