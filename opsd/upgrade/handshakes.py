"""The certificates that the programs of the cluster show to whoever connects.

Limits: seen from where opsd runs; a port that only the nodes may reach is unreadable from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from opsd.clients.kube.objects import Node
from opsd.clients.tls import shown_certificate
from opsd.errors import OpsdError
from opsd.hosts.certificates import Certificate, read_der
from opsd.upgrade.reading import Reading

APISERVER_PORT = 6443
ETCD_PORT = 2379
KUBELET_PORT = 10250
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"

_TIMEOUT_S = 4.0
_AT_ONCE = 16

Shown = Mapping[tuple[str, int], Reading[Certificate]]  # by node and port


def shown_by(nodes: Reading[tuple[Node, ...]]) -> Shown:
    """Ask every node's kubelet, and the API servers and etcd members of the control plane."""
    wanted = [
        (node, port)
        for node in (() if nodes.problem else nodes.value)
        for port in (
            (APISERVER_PORT, ETCD_PORT, KUBELET_PORT)
            if CONTROL_PLANE in node.labels
            else (KUBELET_PORT,)
        )
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        readings = pool.map(lambda one: _shown(*one), wanted)
        return {
            (node.name, port): reading
            for (node, port), reading in zip(wanted, readings, strict=True)
        }


def address_of(node: Node) -> str:
    """The one under which the cluster reaches it; empty: it has none."""
    found = (one.address for one in node.status.addresses if one.type == "InternalIP")
    return next(found, "")


def _shown(node: Node, port: int) -> Reading[Certificate]:
    where = f"{node.name} port {port}"
    address = address_of(node)
    if not address:
        return Reading.failed(where, "the node has no InternalIP")
    try:
        der = shown_certificate(address, port, timeout_s=_TIMEOUT_S)
        return Reading.of(read_der(where, der))
    except (OpsdError, ValueError) as exc:
        return Reading.failed(where, str(exc))
