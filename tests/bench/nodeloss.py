"""One close look of stuck-pods at a thousand nodes and twenty thousand pods."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.bench.kube import THREADS, pod
from tests.bench.measure import interleaved, measure
from tests.bench.report import Line
from tests.rig import controlplane
from tests.rig.kubeapi import KubeApi, Object

NODES, LOST = 1_000, 10
PODS = 20_000
NAMESPACE = "full"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
ROUNDS = 3

LOOK = """
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.cluster.nodeloss.facts import STANDARD
from opsd.cluster.nodeloss.memory import MachineUptime
from opsd.cluster.nodeloss.report import losses
from opsd.cluster.nodeloss.survey import Survey
path, nodes, lost, leaving = sys.argv[1], *map(int, sys.argv[2:])
at_once = replace(STANDARD, hold=timedelta(0), lease_silent=timedelta(0))
survey = Survey(uptime=MachineUptime(), thresholds=at_once)
kube = Kube(
    Transport(lambda: find_cluster(kubeconfig=Path(path))),
    deadline=Deadline.after(600, SystemClock()),
)
_, picture = survey.look(kube, survey.begin(None), closely=True)
assert len(picture.nodes) == nodes, len(picture.nodes)
found = list(losses(picture, thresholds=at_once))
assert len(found) == lost, len(found)
assert len(picture.hanging) + sum(len(one.pods) for one in found) == leaving
"""


def lines(place: Path) -> Iterator[Line]:
    """Measure CPU and memory of a process that looks once, start and imports included."""
    del place
    with controlplane.running() as cluster:
        cluster.namespace(NAMESPACE)
        # Nothing renews the leases of these nodes, and nobody is to react to that.
        cluster.scheduler.stop()
        cluster.controller_manager.stop()
        _fill(cluster.api)
        argv: list[str | Path] = [sys.executable, "-c", LOOK, cluster.kubeconfig()]
        argv += [str(NODES), str(LOST), str(LOST * PODS // NODES)]
        result = interleaved({"look": partial(measure, argv)}, rounds=ROUNDS)["look"]
    what = f"a close look at {NODES} nodes and {PODS} pods"
    how = f"start and imports included; {LOST} nodes lost"
    yield Line(what=f"{what}: CPU", value=result.cpu_s, unit="s", goal=5, against=how)
    yield Line(what=f"{what}: memory", value=result.peak_mib, unit="MiB", goal=200, against=how)


def _fill(api: KubeApi) -> None:
    _each(lambda node: api.post("/api/v1/nodes", node), map(_node, range(NODES)))
    _each(lambda lease: api.post(LEASES, lease), map(_lease, range(NODES)))
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    _each(lambda one: api.post(path, one), map(_placed_pod, range(PODS)))


def _each(make: Callable[[Object], object], objects: Iterable[Object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(make, objects):
            pass


def _node(number: int) -> Object:
    is_lost = number < LOST
    ready = {
        "type": "Ready",
        "status": "Unknown" if is_lost else "True",
        "reason": "NodeStatusUnknown" if is_lost else "KubeletReady",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}"},
        "status": {"conditions": [ready]},
    }


def _lease(number: int) -> Object:
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": f"node-{number}"},
        "spec": {"holderIdentity": f"node-{number}", "renewTime": renewed},
    }


def _placed_pod(number: int) -> Object:
    one = pod(number)
    one["spec"]["nodeName"] = f"node-{number % NODES}"
    return one
