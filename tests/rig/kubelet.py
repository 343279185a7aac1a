"""Nodes without machines: what a kubelet tells the API server, with the faults that nodes have.

Each node has a Node object and a Lease, renews both, sets the pods bound to it to Running and
ends deleted ones in their grace period. Two threads serve all nodes: one beats, one looks at the
pods, so that much work with pods silences no node. Their identity (``fake-kubelet``) is easy to
leave out when the audit log is read.

`FakeNode.containers` is the truth that no API shows: the pods whose containers really run there.
A lost machine has none; a node that is only cut off has them all, whatever the API says.

Limits: containers always start, never crash and do nothing; there are no probes, no init
containers and no static pods. All pods are listed at every look: for hundreds, not thousands.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import urllib3

from tests.rig.controlplane import SYSTEM_MASTERS, ControlPlane
from tests.rig.kubeapi import ApiError, Object, eventually

USER = "fake-kubelet"
LOOK_S = 0.2  # between two looks at the pods
STATUS_S = 300.0  # between two reports of a node's status when nothing changed, as a kubelet's
NEVER = float("-inf")
#: The taint of control-plane nodes.
NO_PODS = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
CAPACITY = {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "64Gi", "pods": "110"}
HEALTHY = {
    "Ready": ("True", "KubeletReady", "kubelet is posting ready status"),
    "MemoryPressure": ("False", "KubeletHasSufficientMemory", "enough memory"),
    "DiskPressure": ("False", "KubeletHasNoDiskPressure", "no disk pressure"),
    "PIDPressure": ("False", "KubeletHasSufficientPID", "enough process ids"),
}


@dataclass(slots=True, kw_only=True)
class FakeNode:
    """One node. Set the knobs at any time; the next look obeys them."""

    name: str
    ip: str  #: a loopback address of its own, on which a test can listen in its name
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 0.0  #: how long containers take to end when asked
    start_s: float = 0.0  #: how long after its return it begins to look at its pods
    keeps_objects: bool = False  #: containers end, but the pod is not removed: a hung teardown
    clock_skew: timedelta = timedelta()  #: of the node's own clock
    taints: tuple[Object, ...] = ()  #: at registration
    boot_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    containers: set[str] = field(default_factory=set)  #: UIDs of pods whose containers run
    _connected: bool = True
    _ready_since: datetime = field(default_factory=lambda: datetime.now(UTC))
    _looks_from: float = NEVER
    _renewed_at: float = NEVER
    _reported_at: float = NEVER
    _asked_to_end_at: dict[str, float] = field(default_factory=dict)

    def lose_power(self) -> None:
        """The machine is gone: no heartbeat, and no container runs any more."""
        self._connected = False
        self.containers = set()  # a new one: the thread may still be adding to the old one
        self._asked_to_end_at = {}

    def cut_off(self) -> None:
        """Only the network is gone: no heartbeat, and every container runs on."""
        self._connected = False

    def come_back(self) -> None:
        """Reach the API server again: what was deleted meanwhile is ended now, late."""
        self._looks_from = time.monotonic() + self.start_s
        self._renewed_at = NEVER
        self.contradict()
        self._connected = True

    def contradict(self) -> None:
        """Report at the next beat that it is ready: the control plane believes otherwise."""
        self._ready_since = datetime.now(UTC)
        self._reported_at = NEVER

    def boot(self) -> None:
        """Lose power, get another boot id, and come back."""
        self.lose_power()
        self.boot_id = str(uuid.uuid4())
        self.come_back()

    @property
    def pool(self) -> str:
        """The pool that it was made for."""
        return self.labels["pool"]

    @property
    def has_reported(self) -> bool:
        """Whether the API server knows its status."""
        return self._reported_at != NEVER

    def serves_pods(self) -> bool:
        """Whether it can look at its pods now."""
        return self._connected and time.monotonic() >= self._looks_from


class Kubelets:
    """The kubelets of all nodes of a control plane. `running` makes one and runs it."""

    def __init__(self, control_plane: ControlPlane) -> None:
        """Serve no node yet."""
        self._api = control_plane.api_as(USER, group=SYSTEM_MASTERS)
        self._clock = control_plane.clock
        self._version = f"v{control_plane.minor}.0"
        self._nodes: dict[str, FakeNode] = {}
        self._numbers = itertools.count(1)
        self._beating = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(work,), name="kubelets", daemon=True)
            for work in (self._beat, self._look)
        ]

    def add(self, name: str, *, taints: tuple[Object, ...] = (), **labels: str) -> FakeNode:
        """Register a node; underscores in names of labels stand for dashes."""
        number = next(self._numbers)
        node = FakeNode(
            name=name,
            ip=f"127.53.{number // 250}.{number % 250 + 1}",
            labels={key.replace("_", "-"): value for key, value in labels.items()},
            taints=taints,
        )
        self._api.create(_node_object(node))
        self._nodes[name] = node
        return node

    def add_pool(self, name: str, count: int) -> list[FakeNode]:
        """Register ``name-1``, ... with the label ``pool=name``; they have reported by then."""
        pool = [self.add(f"{name}-{number}", pool=name) for number in range(1, count + 1)]
        eventually(lambda: all(node.has_reported for node in pool))
        return pool

    def remove(self, *names: str) -> None:
        """Take nodes away for good: the Node objects, the Leases and what is bound to them."""
        with self._beating:  # or it might renew a lease that was just removed
            for name in names:
                self._nodes.pop(name, None)
        for name in names:
            for pod in self._api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={name}"):
                self._remove_pod(pod)
            for path in (f"/api/v1/nodes/{name}", _lease_path(name)):
                with contextlib.suppress(ApiError):
                    self._api.delete(path)

    def start(self) -> None:
        """Serve the nodes until `stop`."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Serve them no more."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._stopping.wait(LOOK_S):
            # An API server that is away or busy is met again the next time.
            with contextlib.suppress(ApiError, urllib3.exceptions.HTTPError):
                work()

    def _connected(self) -> dict[str, FakeNode]:
        return {node.name: node for node in list(self._nodes.values()) if node._connected}

    def _beat(self) -> None:
        with self._beating:
            nodes = self._connected()
            for node in nodes.values():
                with contextlib.suppress(ApiError):  # its object was removed
                    self._heartbeat(node)
            for seen in self._api.items("/api/v1/nodes", resourceVersion=0):
                its_node = nodes.get(seen["metadata"]["name"])
                if its_node is not None and not _is_ready(seen):
                    its_node.contradict()

    def _look(self) -> None:
        nodes = self._connected()
        pods = self._api.items("/api/v1/pods", resourceVersion=0)
        for pod in pods:
            node = nodes.get(pod["spec"].get("nodeName", ""))
            if node is not None and node.serves_pods():
                with contextlib.suppress(ApiError):  # changed or gone meanwhile: look again
                    self._sync(node, pod)
        known = {pod["metadata"]["uid"] for pod in pods}
        for its_node in filter(FakeNode.serves_pods, nodes.values()):
            its_node.containers &= known  # the object was removed by force: its containers end

    def _heartbeat(self, node: FakeNode) -> None:
        now = time.monotonic()
        if now - node._renewed_at >= self._clock.heartbeat_s:
            self._renew(node)
            node._renewed_at = now
        if now - node._reported_at >= STATUS_S:
            status = _node_status(node, self._version)
            self._api.patch(
                f"/api/v1/nodes/{node.name}/status", {"status": status}, kind="strategic"
            )
            node._reported_at = now

    def _renew(self, node: FakeNode) -> None:
        spec = {
            "holderIdentity": node.name,
            "leaseDurationSeconds": self._clock.lease_s,
            "renewTime": _text(datetime.now(UTC) + node.clock_skew, fraction=True),
        }
        path = _lease_path(node.name)
        try:
            self._api.patch(path, {"spec": spec})
        except ApiError as exc:
            if exc.status != 404:
                raise
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
            self._api.post(path.rpartition("/")[0], {**lease, "metadata": {"name": node.name}})

    def _sync(self, node: FakeNode, pod: Object) -> None:
        containers, uid = node.containers, pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            self._end(node, pod)
        elif _has_ended(pod):
            containers.discard(uid)
        elif uid not in containers or not _is_ready(pod):
            self._report(node, pod, phase="Running", restarted=uid not in containers)
            containers.add(uid)

    def _end(self, node: FakeNode, pod: Object) -> None:
        containers, uid = node.containers, pod["metadata"]["uid"]
        asked_at = node._asked_to_end_at.setdefault(uid, time.monotonic())
        grace_s = pod["metadata"].get("deletionGracePeriodSeconds", 0)
        ends_after_s = min(node.stop_s, grace_s) if uid in containers else 0.0
        if time.monotonic() < asked_at + ends_after_s:
            return
        containers.discard(uid)
        if not _has_ended(pod):
            self._report(node, pod, phase="Succeeded")
        if not node.keeps_objects:
            self._remove_pod(pod)

    def _remove_pod(self, pod: Object) -> None:
        with contextlib.suppress(ApiError):  # gone already
            self._api.delete(_pod_path(pod), grace_s=0, uid=pod["metadata"]["uid"])

    def _report(self, node: FakeNode, pod: Object, *, phase: str, restarted: bool = False) -> None:
        status = _pod_status(node, pod, phase=phase, restarted=restarted)
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}
        self._api.patch(f"{_pod_path(pod)}/status", patch, kind="strategic")


@contextlib.contextmanager
def running(control_plane: ControlPlane) -> Iterator[Kubelets]:
    """Kubelets of a control plane, serving until the end."""
    kubelets = Kubelets(control_plane)
    kubelets.start()
    try:
        yield kubelets
    finally:
        kubelets.stop()


def until(moment: str) -> timedelta:
    """How far ahead a clock is that shows this moment now."""
    return datetime.fromisoformat(moment) - datetime.now(UTC)


def _node_object(node: FakeNode) -> Object:
    labels = {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        **node.labels,
    }
    metadata = {"name": node.name, "labels": labels}
    spec = {"taints": list(node.taints)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}


def _node_status(node: FakeNode, version: str) -> Object:
    times = {
        "lastHeartbeatTime": _text(datetime.now(UTC) + node.clock_skew),
        "lastTransitionTime": _text(node._ready_since + node.clock_skew),
    }
    return {
        "conditions": [
            {"type": kind, "status": status, "reason": reason, "message": message, **times}
            for kind, (status, reason, message) in HEALTHY.items()
        ],
        "addresses": [
            {"type": "InternalIP", "address": node.ip},
            {"type": "Hostname", "address": node.name},
        ],
        "capacity": CAPACITY,
        "allocatable": CAPACITY,
        "nodeInfo": _node_info(node, version),
    }


def _node_info(node: FakeNode, version: str) -> Object:
    return {
        "bootID": node.boot_id,
        "machineID": uuid.uuid5(uuid.NAMESPACE_DNS, node.name).hex,
        "systemUUID": str(uuid.uuid5(uuid.NAMESPACE_DNS, node.name)),
        "kubeletVersion": version,
        "kubeProxyVersion": version,
        "kernelVersion": "6.12.0",
        "osImage": "Debian GNU/Linux 13 (trixie)",
        "containerRuntimeVersion": "containerd://2.1.0",
        "operatingSystem": "linux",
        "architecture": "arm64",
    }


def _pod_status(node: FakeNode, pod: Object, *, phase: str, restarted: bool) -> Object:
    now = _text(datetime.now(UTC) + node.clock_skew)
    ready = "True" if phase == "Running" else "False"
    earlier = pod.get("status", {}).get("containerStatuses", [])
    restarts = earlier[0]["restartCount"] + restarted if earlier else 0
    number = int(uuid.UUID(pod["metadata"]["uid"])) % 65536
    pod_ip = f"10.244.{number >> 8}.{number & 255}"
    return {
        "phase": phase,
        "hostIP": node.ip,
        "podIP": pod_ip,
        "podIPs": [{"ip": pod_ip}],
        "startTime": pod.get("status", {}).get("startTime", now),
        "conditions": [
            {"type": kind, "status": status, "lastTransitionTime": now}
            for kind, status in (
                ("PodReadyToStartContainers", ready),
                ("Initialized", "True"),
                ("ContainersReady", ready),
                ("Ready", ready),
            )
        ],
        "containerStatuses": [
            _container_status(pod, container, now=now, runs=phase == "Running")
            | {"restartCount": restarts}
            for container in pod["spec"]["containers"]
        ],
    }


def _container_status(pod: Object, container: Object, *, now: str, runs: bool) -> Object:
    name, image = container["name"], container["image"]
    container_id = f"containerd://{uuid.uuid5(uuid.UUID(pod['metadata']['uid']), name).hex * 2}"
    ended: dict[str, Any] = {"exitCode": 0, "reason": "Completed", "startedAt": now}
    ended |= {"finishedAt": now, "containerID": container_id}
    return {
        "name": name,
        "image": image,
        "imageID": image,
        "containerID": container_id,
        "ready": runs,
        "started": runs,
        "state": {"running": {"startedAt": now}} if runs else {"terminated": ended},
    }


def _has_ended(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _is_ready(item: Object) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _pod_path(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


def _lease_path(name: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"


def _text(moment: datetime, *, fraction: bool = False) -> str:
    """As the API writes times: whole seconds, or microseconds in leases."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if fraction else "%Y-%m-%dT%H:%M:%SZ")
