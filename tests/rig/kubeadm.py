"""A cluster as kubeadm leaves it, written as objects onto a real control plane without nodes.

Six nodes, the mirror pods of the control plane, kubeadm's ConfigMaps, CoreDNS and kube-proxy. The
controllers are stopped, so that everything stays as it was written, the status included: a
problem is planted by writing it.

Limits: nothing runs. What the API server does by itself (admission, APIServices, metrics) is real.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import KubeApi, Object, eventually, path_of

MASTER, *WORKERS = NODES = ("rpi1", "rpi2", "rpi3", "rpi4", "rpi5", "rpi6")
SYSTEM = "kube-system"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
CLUSTER_CONFIGURATION = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration"}
COREFILE = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""
_VERSIONS = {"1.35": ("v1.35.4", "3.6.11-0"), "1.37": ("v1.37.2", "3.7.0-0")}
_CONDITIONS = {
    "Ready": "True",
    "MemoryPressure": "False",
    "DiskPressure": "False",
    "PIDPressure": "False",
}


class Kubeadm:
    """The objects of one such cluster."""

    def __init__(self, control_plane: ControlPlane) -> None:
        """Write them; stops the controllers of the control plane."""
        self.control_plane = control_plane
        self.api: KubeApi = control_plane.api
        self.version, self.etcd = _VERSIONS[control_plane.minor]
        for name in ("db", "web"):
            control_plane.namespace(name)
        eventually(lambda: self.api.find(f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/default"))
        control_plane.controller_manager.stop()
        control_plane.scheduler.stop()
        for node in NODES:
            self.write(self.node(node))
            self.write(self.pod(f"kube-proxy-{node}", node, owner="DaemonSet", labels=PROXY))
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"):
            self.write(self.mirror(name))
        self.write(*self.settings())
        self.write(*self.dns())

    def write(self, *objects: Object) -> None:
        """Create objects, and their status where they have one."""
        for one in objects:
            status = one.get("status")
            self.api.create(one)
            if one["kind"] == "Node":  # admission says that it is not ready yet
                spec = {"spec": {"taints": one["spec"].get("taints", [])}}
                self.api.patch(path_of(one), spec)
            if status:
                self.api.patch(f"{path_of(one)}/status", {"status": status})

    @contextlib.contextmanager
    def with_(self, *objects: Object) -> Iterator[None]:
        """These objects besides, for a while."""
        try:
            self.write(*objects)
            yield
        finally:
            for one in reversed(objects):
                if self.api.find(path_of(one)):
                    # Of volumes and claims; the controller that takes them off is stopped.
                    self.api.patch(path_of(one), {"metadata": {"finalizers": None}})
                    self.api.delete(path_of(one), grace_s=0)
            eventually(lambda: all(self.api.find(path_of(one)) is None for one in objects) or None)

    @contextlib.contextmanager
    def instead(self, *objects: Object) -> Iterator[None]:
        """These objects in the place of those of the same name, for a while."""
        before = [self.api.get(path_of(one)) for one in objects]
        try:
            self._replace(*objects)
            yield
        finally:
            self._replace(*(_unbound(one) for one in before))

    @contextlib.contextmanager
    def without(self, *paths: str) -> Iterator[None]:
        """Without these objects, for a while."""
        before = [self.api.get(path) for path in paths]
        try:
            for path in paths:
                self.api.delete(path, grace_s=0)
            yield
        finally:
            self.write(*(_unbound(one) for one in before))

    def _replace(self, *objects: Object) -> None:
        for one in objects:
            self.api.delete(path_of(one), grace_s=0)
            eventually(lambda one=one: self.api.find(path_of(one)) is None or None)  # type: ignore[misc]
            self.write(one)

    def node(
        self,
        name: str,
        *,
        conditions: Mapping[str, str] = _CONDITIONS,
        unschedulable: bool = False,
        **info: str,
    ) -> Object:
        """A node, well if not said otherwise."""
        labels = {"kubernetes.io/hostname": name} | ({CONTROL_PLANE: ""} if name == MASTER else {})
        taints = [{"key": CONTROL_PLANE, "effect": "NoSchedule"}] if name == MASTER else []
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        amounts = {"cpu": "4", "memory": "8Gi", "pods": "110"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": taints, "unschedulable": unschedulable},
            "status": {
                "conditions": [
                    {
                        "type": kind,
                        "status": status,
                        "reason": "Planted",
                        "message": "planted",
                        "lastHeartbeatTime": now,
                        "lastTransitionTime": now,
                    }
                    for kind, status in {**_CONDITIONS, **conditions}.items()
                ],
                "addresses": [{"type": "InternalIP", "address": f"127.0.53.{name[-1]}"}],
                "capacity": amounts,
                "allocatable": amounts,
                "nodeInfo": {
                    "bootID": name,
                    "machineID": name,
                    "systemUUID": name,
                    "kubeletVersion": self.version,
                    "kubeProxyVersion": "",
                    "kernelVersion": "6.12.34+rpt-rpi-2712",
                    "osImage": "Debian GNU/Linux 13 (trixie)",
                    "containerRuntimeVersion": "containerd://2.3.1",
                    "operatingSystem": "linux",
                    "architecture": "arm64",
                    **info,
                },
            },
        }

    def mirror(self, name: str, *flags: str, image: str = "", node: str = MASTER) -> Object:
        """The mirror pod of a part of the control plane."""
        tag = self.etcd if name == "etcd" else self.version
        labels = {"component": name, "tier": "control-plane"}
        pod = self.pod(f"{name}-{node}", node, labels=labels, image=image or f"{name}:{tag}")
        pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "0123456789abcdef"}
        pod["spec"]["containers"][0] |= {"name": name, "command": [name, "--v=2", *flags]}
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "controller": True}
        uid = self.api.get(f"/api/v1/nodes/{node}")["metadata"]["uid"]
        pod["metadata"]["ownerReferences"] = [owner | {"uid": uid}]
        return pod

    def pod(
        self,
        name: str,
        node: str,
        *,
        namespace: str = SYSTEM,
        owner: str = "",
        labels: Mapping[str, str] | None = None,
        image: str = "",
        **spec: object,
    ) -> Object:
        """A pod that runs on a node."""
        reference = {"apiVersion": "apps/v1", "kind": owner, "name": name.rpartition("-")[0]}
        metadata: Object = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
        if owner:
            metadata["ownerReferences"] = [reference | {"uid": "0", "controller": True}]
        image = image or f"kube-proxy:{self.version}"
        container = {"name": image.partition(":")[0].rpartition("/")[2], "image": image}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"containers": [container], "nodeName": node, **spec},
            "status": {"phase": "Running"},
        }

    def settings(self) -> tuple[Object, ...]:
        """kubeadm's ConfigMaps; their YAML is JSON."""
        return (
            self.config_map(
                "kubeadm-config",
                ClusterConfiguration={
                    **CLUSTER_CONFIGURATION,
                    "kubernetesVersion": self.version,
                },
            ),
            self.config_map("kubelet-config", kubelet={"kind": "KubeletConfiguration"}),
            self.config_map("kube-proxy", **{"config.conf": {"mode": "iptables"}}),
            self.config_map("coredns", Corefile=COREFILE),
        )

    def config_map(self, name: str, **files: object) -> Object:
        """A ConfigMap of kube-system; what is no text becomes JSON."""
        data = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in files.items()
        }
        metadata = {"name": name, "namespace": SYSTEM}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    def dns(self, tag: str = "v1.12.0") -> tuple[Object, ...]:
        """CoreDNS with two pods on two nodes."""
        image = f"registry.test/coredns/coredns:{tag}"
        return (
            workload(
                "Deployment", SYSTEM, "coredns", replicas=2, image=image, container="coredns"
            ),
            workload("ReplicaSet", SYSTEM, "coredns-1", replicas=2, image=image),
            *(
                self.pod(f"coredns-1-{node}", node, owner="ReplicaSet", image=image)
                for node in WORKERS[:2]
            ),
        )


PROXY = {"k8s-app": "kube-proxy"}


def workload(
    kind: str,
    namespace: str,
    name: str,
    *,
    image: str = "registry.test/app:1",
    container: str = "app",
    labels: Mapping[str, str] | None = None,
    volumes: tuple[Object, ...] = (),
    **spec: object,
) -> Object:
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet."""
    own = {"app": name}
    template = {
        "metadata": {"labels": own},
        "spec": {"containers": [{"name": container, "image": image}], "volumes": list(volumes)},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {**own, **(labels or {})}},
        "spec": {"selector": {"matchLabels": own}, "template": template, **spec},
    }


def _unbound(one: Object) -> Object:
    """An object as it can be created again."""
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    metadata = {key: one["metadata"][key] for key in kept if key in one["metadata"]}
    return {**one, "metadata": metadata}
