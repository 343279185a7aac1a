"""A machine on which the real kubeadm set up a control plane, with real etcd and API server on it.

kubeadm writes the tree (certificates, kubeconfig files, static pods, the kubelet's settings) into
the machine; the commands of its static pods are then run in the machine's network, with its
files. There is no kubelet: what it would write is written here.

Limits: needs the programs that `make control-plane` builds, and root.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsd.hosts import yamltext
from tests.rig import controlplane
from tests.rig.controlplane import NEWEST
from tests.rig.machines import RealMachine
from tests.rig.parts import program
from tests.rig.server import Server

SECONDS = 120.0
ADMINS = "kubeadm:cluster-admins"
CONFIG = "/root/kubeadm.yaml"
CLIENT = "/var/lib/kubelet/pki/kubelet-client-current.pem"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
PHASES = ("certs all", "kubeconfig all", "control-plane all", "etcd local", "kubelet-start")
DROP_IN = """\
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
"""


@dataclass
class KubeadmNode:
    """One control-plane node."""

    machine: RealMachine
    minor: str = NEWEST
    cluster: Mapping[str, Any] = field(default_factory=dict)  #: more of its ClusterConfiguration
    servers: dict[str, Server] = field(default_factory=dict)

    def set_up(self) -> None:
        """Write everything that `kubeadm init` writes to the disk."""
        self.machine.write(CONFIG, self.configuration(), mode=0o600)
        for phase in PHASES:
            self.kubeadm(f"init phase {phase} --config {CONFIG}")
        self.machine.write("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", DROP_IN)
        self.adopt_kubelet_certificate()

    def adopt_kubelet_certificate(self) -> None:
        """What ``kubeadm init phase kubelet-finalize`` and the kubelet's rotation leave."""
        conf = "/etc/kubernetes/kubelet.conf"
        self.machine.run(
            f"mkdir -p {CLIENT.rpartition('/')[0]} && for what in certificate key; do"
            f' sed -n "s/.*client-$what-data: //p" {conf} | base64 -d; done >{CLIENT} &&'
            f" chmod 600 {CLIENT} && sed -i 's#client-\\(certificate\\|key\\)-data: .*"
            f"#client-\\1: {CLIENT}#' {conf}",
            check=True,
        )

    def configuration(self) -> str:
        """What kubeadm is given (JSON is YAML)."""
        api = "kubeadm.k8s.io/v1beta4"
        address = self.machine.address
        documents = (
            {
                "apiVersion": api,
                "kind": "InitConfiguration",
                "localAPIEndpoint": {"advertiseAddress": address, "bindPort": 6443},
                "nodeRegistration": {
                    "name": self.machine.name,
                    "criSocket": "unix:///run/containerd/containerd.sock",
                },
            },
            {
                "apiVersion": api,
                "kind": "ClusterConfiguration",
                "kubernetesVersion": self.version,
                "networking": {"serviceSubnet": "10.96.0.0/16"},
                **self.cluster,
            },
        )
        return "\n---\n".join(json.dumps(one) for one in documents)

    @property
    def version(self) -> str:
        """Of kubeadm and of the rest: ``v1.37.2``."""
        return self.kubeadm("version -o short").strip()

    def kubeadm(self, arguments: str) -> str:
        """Run the real kubeadm in the machine's files and network; what it printed.

        Raises:
            AssertionError: it failed.
        """
        binary = controlplane.bin_dir(self.minor) / "kubeadm"
        root = () if arguments.startswith("version") else ("--rootfs", str(self.machine.root))
        done = subprocess.run(
            [*self._in_its_network(), str(binary), *shlex.split(arguments), *root],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        )
        assert done.returncode == 0, f"kubeadm {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def _in_its_network(self) -> tuple[str, ...]:
        return (str(program("nsenter")), "--target", str(self.machine.pid), "--net", "--")

    def command(self, component: str) -> list[str]:
        """The command line of a static pod, with the machine's files as the host sees them."""
        text = self.machine.run(f"cat /etc/kubernetes/manifests/{component}.yaml", check=True).out
        words = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("- -")]
        root = str(self.machine.root)
        placed = (
            word.replace("=/etc/kubernetes", f"={root}/etc/kubernetes").replace(
                "=/var/lib/etcd", f"={root}/var/lib/etcd"
            )
            for word in words
        )
        return [component, *placed]

    def start(self, component: str, *more: str) -> None:
        """Run what a static pod says, and wait until it answers."""
        binary = controlplane.bin_dir(self.minor) / component
        _, *flags = self.command(component)
        self.servers[component] = server = Server(
            [*self._in_its_network(), str(binary), *flags, *more],
            log=self.machine.home / f"{component}.log",
        )
        port, path = (2381, "readyz") if component == "etcd" else (6443, "readyz")
        server.await_ready(lambda: self._answers(port, path))

    def _answers(self, port: int, path: str) -> bool:
        """Whether a port of the machine's loopback says that all is well."""
        scheme = "http" if port == 2381 else "https"
        argv = (
            *self._in_its_network(),
            *("curl", "-skf", "-m", "3", "-o", "/dev/null", f"{scheme}://127.0.0.1:{port}/{path}"),
        )
        return subprocess.run(argv, check=False, timeout=SECONDS).returncode == 0

    def stop(self, component: str) -> None:
        """End one program."""
        self.servers.pop(component).stop()

    def close(self) -> None:
        """End all of them."""
        for server in self.servers.values():
            server.kill()
        self.servers.clear()

    def kubectl(self, arguments: str, *, stdin: str = "") -> str:
        """Run kubectl as the cluster's admin.

        Raises:
            AssertionError: it failed.
        """
        binary = controlplane.bin_dir(self.minor) / "kubectl"
        admin = self.machine.home / "admin.conf"
        if not admin.exists():
            admin.write_text(
                self.machine.run("cat /etc/kubernetes/super-admin.conf", check=True).out
            )
        done = subprocess.run(
            [binary, "--kubeconfig", admin, *shlex.split(arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    @property
    def kubeconfig(self) -> Path:
        """Of the cluster's admin; written by the first `kubectl`."""
        return self.machine.home / "admin.conf"

    def join_cluster(self) -> None:
        """Have its node and its static pods in the cluster, as its kubelet would."""
        name = self.machine.name
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": self._labels()},
            "status": self._status(),
        }
        self.kubectl(
            f"create clusterrolebinding {ADMINS} --clusterrole=cluster-admin --group={ADMINS}"
        )
        self.kubectl("create -f -", stdin=json.dumps(node))
        self.kubectl("-n kube-system create serviceaccount default")
        self.mirror_pods()
        self.kubeadm(f"init phase upload-config all --config {CONFIG}")
        self.kubeadm(f"init phase addon all --config {CONFIG}")

    def _labels(self) -> dict[str, str]:
        name = self.machine.name
        return {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": name}

    def _status(self) -> dict[str, Any]:
        """What its kubelet would say of it."""
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        pressures = ("MemoryPressure", "DiskPressure", "PIDPressure")
        info = {
            "kubeletVersion": self.version,
            "kernelVersion": "6.1.0-98-opsd",
            "containerRuntimeVersion": "containerd://2.3.1",
            "osImage": "Debian GNU/Linux 12 (bookworm)",
            "operatingSystem": "linux",
            "architecture": "amd64",
            "machineID": "m",
            "systemUUID": "s",
            "bootID": self.machine.boot_id,
            "kubeProxyVersion": "",
        }
        return {
            "addresses": [{"type": "InternalIP", "address": self.machine.address}],
            "conditions": [ready, *({"type": one, "status": "False"} for one in pressures)],
            "nodeInfo": info,
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        }

    def mirror_pods(self) -> None:
        """Let the cluster's pods be what the files say."""
        for component in COMPONENTS:
            path = f"/etc/kubernetes/manifests/{component}.yaml"
            pod = yamltext.mapping(self.machine.run(f"cat {path}", check=True).out)
            pod["metadata"]["name"] = f"{component}-{self.machine.name}"
            pod["spec"]["nodeName"] = self.machine.name
            pod["metadata"].setdefault("annotations", {})["kubernetes.io/config.mirror"] = "1"
            pod.pop("status", None)
            self.kubectl("replace --force --grace-period=0 -f -", stdin=json.dumps(pod))


def etcd_flags() -> tuple[str, ...]:
    """Nothing is synced to disk, and little is logged."""
    return ("--unsafe-no-fsync=true", "--log-level=error")
