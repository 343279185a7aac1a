"""A cluster in a second's steps: nodes, their leases, and a controller manager that judges them.

It knows the truth that no API shows, and its API shows what a real one would. The time is its
own, so that an hour of outages takes a moment. How the real control plane behaves is tested in
tests/cluster; here it is only repeated.

Limits: one StatefulSet pod on each node; whoever asks gets whole lists.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from opsd.clients.kube.errors import Unreachable
from opsd.clients.kube.objects import Lease, Object
from opsd.clients.kube.objects import Node as KubeNode
from opsd.clients.kube.objects import Pod as KubePod
from opsd.clock import Deadline

RENEW_S, KCM_POLL_S, KCM_GRACE_S, LEADER_S = 10, 5, 50, 2
EVICT_AFTER_S, GRACE_S, REPORT_S = 300, 30, 5
MANY, FEW = 0.55, 2  # share and number of lost nodes beyond which nothing is evicted
START = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@dataclass(kw_only=True)
class SimNode:
    """One node: what it is, and what the API server believes."""

    name: str
    phase: int  #: when in ten seconds it renews
    is_up: bool = True
    is_behind: bool = False  #: its clock was set back: its renewals look old
    up_since_s: int = 0
    down_since_s: int = 0
    version: int = 0  #: of its lease
    ready: str = "True"
    judged_version: int = -1  #: by the controller manager
    judged_s: int = 0
    unknown_s: int = 0
    pod_uid: int = 0
    delete_at: datetime | None = None


@dataclass(kw_only=True)
class SimCluster:
    """All of it. `advance` is the only thing that moves."""

    nodes: list[SimNode]
    now_s: int = 0
    api_up: bool = True
    kcm_up: bool = True
    leader_version: int = 0
    server_offset: timedelta = timedelta(0)
    boot: int = 1  #: of the machine that opsd runs on
    events: Callable[[SimCluster], None] = lambda _cluster: None
    _uids: Iterator[int] = field(default_factory=itertools.count)

    @property
    def server_time(self) -> datetime:
        """By the API server's clock."""
        return START + timedelta(seconds=self.now_s) + self.server_offset

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(max(1, round(seconds))):
            self.now_s += 1
            self.events(self)
            if self.api_up:
                self._step()

    def cut(self, node: SimNode) -> None:
        """Take a node away."""
        if node.is_up:
            node.is_up, node.down_since_s = False, self.now_s

    def mend(self, node: SimNode) -> None:
        """Bring it back."""
        if not node.is_up:
            node.is_up, node.up_since_s = True, self.now_s

    def restart_kcm(self) -> None:
        """It forgets since when leases are silent."""
        self.kcm_up = True
        for node in self.nodes:
            node.judged_version, node.judged_s = node.version, self.now_s

    def _step(self) -> None:
        for node in self.nodes:
            if node.is_up:
                self._live(node)
        if self.kcm_up:
            self.leader_version += self.now_s % LEADER_S == 0
            if self.now_s % KCM_POLL_S == 0:
                for node in self.nodes:
                    self._judge(node)

    def _live(self, node: SimNode) -> None:
        if self.now_s % RENEW_S == node.phase:
            node.version += 1
        if self.now_s % REPORT_S == node.phase % REPORT_S:
            node.ready = "True"
            if node.delete_at is not None:  # the kubelet ends it, and its replacement starts
                node.delete_at, node.pod_uid = None, next(self._uids)

    def _judge(self, node: SimNode) -> None:
        if node.judged_version != node.version and not node.is_behind:
            node.judged_version, node.judged_s = node.version, self.now_s
        elif self.now_s - node.judged_s >= KCM_GRACE_S and node.ready == "True":
            node.ready, node.unknown_s = "Unknown", self.now_s
        lost = sum(one.ready != "True" for one in self.nodes)
        halted = lost == len(self.nodes) or (lost > FEW and lost >= MANY * len(self.nodes))
        is_due = node.ready != "True" and self.now_s - node.unknown_s >= EVICT_AFTER_S
        if is_due and not halted and node.delete_at is None:
            node.delete_at = self.server_time + timedelta(seconds=GRACE_S)


@dataclass(frozen=True, slots=True)
class SimKube:
    """What `opsd.clients.kube.client.Kube` is to a job that only reads."""

    cluster: SimCluster

    def until(self, _deadline: Deadline) -> SimKube:
        """Itself: it answers at once."""
        return self

    def server_time(self) -> datetime:
        """The API server's clock."""
        return self.cluster.server_time

    def list(
        self, kind: type[Object], *, namespace: str = "", fields: str = ""
    ) -> Iterator[Object]:
        """What there is of a kind."""
        self._ask()
        for node in self.cluster.nodes:
            if kind is Lease and namespace == "kube-node-lease":
                yield _lease(node.name, node.version)
            elif kind is KubeNode:
                yield _node(node)
            elif kind is KubePod and fields in ("", f"spec.nodeName={node.name}"):
                yield _pod(node)

    def find(self, kind: type[Object], name: str, *, namespace: str) -> Object:
        """The lease of the controller manager."""
        assert (kind, namespace, name) == (Lease, "kube-system", "kube-controller-manager")
        self._ask()
        return _lease(name, self.cluster.leader_version)

    def _ask(self) -> None:
        if not self.cluster.api_up:
            raise Unreachable("list leases: Connection refused")


def _lease(name: str, version: int) -> Lease:
    return msgspec.convert({"metadata": {"name": name, "resourceVersion": str(version)}}, Lease)


def _node(node: SimNode) -> KubeNode:
    ready: dict[str, Any] = {"type": "Ready", "status": node.ready}
    if node.ready == "Unknown":
        ready["reason"] = "NodeStatusUnknown"
    value = {
        "metadata": {"name": node.name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": [ready]},
    }
    return msgspec.convert(value, KubeNode)


def _pod(node: SimNode) -> KubePod:
    owner = {"kind": "StatefulSet", "name": f"db-{node.name}", "controller": True}
    metadata: dict[str, Any] = {
        "namespace": "db",
        "name": f"db-{node.name}-0",
        "uid": str(node.pod_uid),
        "creationTimestamp": "2026-02-01T00:00:00Z",
        "ownerReferences": [owner],
    }
    if node.delete_at is not None:
        metadata |= {"deletionTimestamp": node.delete_at, "deletionGracePeriodSeconds": GRACE_S}
    status = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}
    value = {"metadata": metadata, "spec": {"nodeName": node.name}, "status": status}
    return msgspec.convert(value, KubePod)
