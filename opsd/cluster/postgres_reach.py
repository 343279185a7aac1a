"""Get to a found server from where opsd runs: in a pod, on a node, or anywhere else.

In a pod the Service's name leads there, on a node its cluster address, and from elsewhere a
port of the server's pod, forwarded through the API server.

Limits: through a forwarded port the server sees a connection from its own pod without TLS, and
its ``pg_hba.conf`` must allow that. A failover during the run breaks it.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from opsd.clients.kube.objects import Pod
from opsd.clients.pgserver import Server
from opsd.cluster.postgres import Found
from opsd.errors import TransientError

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

ANSWER_S = 2.0  # a cluster address answers at once or leads nowhere
_SERVICE = ".svc"
_SOCKET_PORT = 5432  # part of the socket's name


def beside(server: Server, found: Found, *, in_cluster: bool) -> Server:
    """The server by its name in a pod, and by its cluster address elsewhere."""
    if in_cluster or not found.address.cluster_ip:
        return server
    return replace(server, host=found.address.cluster_ip)


@contextlib.contextmanager
def reached(kube: Kube, server: Server, found: Found, *, in_cluster: bool) -> Iterator[Server]:
    """The server under an address that works here, until the end.

    Raises:
        TransientError, PermanentError: as `opsd.clients.kube.forward.forwarded`, or no pod runs.
    """
    near = beside(server, found, in_cluster=in_cluster)
    is_outside = not found.address.host.endswith(_SERVICE)  # of the cluster: an ExternalName
    if in_cluster or is_outside or (found.address.cluster_ip and _answers(near)):
        yield near
        return
    from opsd.clients.kube.forward import forwarded  # noqa: PLC0415 - seldom needed

    pod = _pod_of(kube, found)
    with tempfile.TemporaryDirectory(prefix="opsd-") as directory:
        place = Path(directory) / f".s.PGSQL.{_SOCKET_PORT}"
        with forwarded(kube, pod, found.pods.port, to=place):
            yield replace(server, host=directory, port=_SOCKET_PORT)


def _answers(server: Server) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((server.host, server.port), timeout=ANSWER_S).close()
        return True
    return False


def _pod_of(kube: Kube, found: Found) -> Pod:
    if found.pods.name:
        return kube.get(Pod, found.pods.name, namespace=found.namespace)
    labels = ",".join(f"{key}={value}" for key, value in sorted(found.pods.labels.items()))
    pods = kube.list(Pod, namespace=found.namespace, labels=labels)
    for pod in pods:
        if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
            return pod
    raise TransientError(f"forward a port of {found.workload}: no pod with {labels} runs")
