"""A cluster of one node that the real kubeadm set up, as opsd sees it before an upgrade.

Limits: as of `tests.rig.kubeadmnode`; crictl and timedatectl are scripts that print what the real
ones print.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.hosts.machine import Role
from opsd.upgrade.check import Hop, Result, judged
from opsd.upgrade.checks import CHECKS
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.gather import Wanted, read_cluster
from opsd.upgrade.handshakes import shown_by
from opsd.upgrade.reading import Reading
from opsd.upgrade.version import Minor
from opsd.upgrade.visiting import read_machines
from tests.rig import fleets, machines
from tests.rig.kubeadmnode import KubeadmNode, etcd_flags
from tests.rig.server import Server

START = "1.35"
PATCH = "1.36.4-1.1"  # of the packages in the rig's archive
TO_36 = Hop(start=Minor(1, 35), target=Minor(1, 36))
TO_37 = Hop(start=Minor(1, 36), target=Minor(1, 37), is_first=False)
BY_ID = {check.id: check for check in CHECKS}
IMAGES = [
    f"registry.k8s.io/{name}:v1.36.4"
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
]


@dataclass
class Cluster:
    """One node, what opsd reads of it, and what it thinks of that."""

    node: KubeadmNode
    fleet_machines: list[machines.RealMachine]
    kube: Kube
    said: Facts | None = None  #: by the API, when `asked_of_machine` was called first

    def facts(self) -> Facts:
        """Read everything anew."""
        cluster = read_cluster(self.kube, Wanted(helm=False), at=datetime.now(UTC))
        return dataclasses.replace(
            cluster,
            machines=self.machines(cluster),
            shown=shown_by(cluster.nodes),
            backups=Reading.of({"etcd/main": cluster.at}),
        )

    def machines(self, facts: Facts) -> Reading[tuple[MachineFacts, ...]]:
        """Visit the machine."""
        roles = frozenset((Role.NODE, Role.CONTROL_PLANE))
        access = fleets.access_to(self.fleet_machines)
        entries = tuple(dataclasses.replace(one, roles=roles) for one in access.machines)
        fleet = fleets.fleet_with(dataclasses.replace(access, machines=entries))
        return read_machines(fleet, CHECKS, facts)

    def asked(self, check: str, hop: Hop = TO_36) -> Result:
        """One check about the cluster as it is now."""
        return judged(BY_ID[check], self.facts(), hop)

    def asked_of_machine(self, check: str, hop: Hop = TO_36) -> Result:
        """The same with what the API said at the first time."""
        self.said = said = self.said or self.facts()
        return judged(BY_ID[check], dataclasses.replace(said, machines=self.machines(said)), hop)

    def run(self, command: str) -> None:
        """As root on the machine."""
        self.node.machine.run(f"set -e; {command}", check=True)


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster of one node, in good order."""
    with machines.network() as network:
        machine = network.machine("cp1")
        node = KubeadmNode(machine, minor=START)
        kubelet: Server | None = None
        try:
            node.set_up()
            node.start("etcd", *etcd_flags())
            node.start("kube-apiserver")
            node.join_cluster()
            kubelet = listen_as_kubelet(machine)
            put_in_order(machine)
            transport = Transport(lambda: find_cluster(kubeconfig=node.kubeconfig))
            kube = Kube(transport, deadline=fleets.within(600))
            yield Cluster(node=node, fleet_machines=[machine], kube=kube)
        finally:
            if kubelet is not None:
                kubelet.kill()
            node.close()


def listen_as_kubelet(machine: machines.RealMachine) -> Server:
    """TLS on the kubelet's port, with a certificate of its own, as kubelets have."""
    certificate, key = machine.home / "kubelet.crt", machine.home / "kubelet.key"
    make_certificate(certificate, key)
    return Server(
        [
            *("nsenter", "--target", str(machine.pid), "--net", "--"),
            *("openssl", "s_server", "-quiet", "-accept", "10250"),
            *("-cert", certificate, "-key", key),
        ],
        log=machine.home / "kubelet.log",
    )


def make_certificate(certificate: Path, key: Path, *, days: int = 365) -> None:
    """One that signed itself."""
    curve = (
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=cp1@1",
    )
    files = ("-keyout", str(key), "-out", str(certificate))
    argv = ("openssl", "req", "-x509", *curve, "-days", str(days), *files)
    subprocess.run(argv, check=True, capture_output=True, timeout=60)


def put_in_order(machine: machines.RealMachine) -> None:
    """What this machine has not, and real ones have."""
    names = " ".join(f"{name}={PATCH}" for name in ("kubeadm", "kubelet", "kubectl"))
    machine.run(
        "mount -t cgroup2 none /sys/fs/cgroup;"
        f" apt-get -qq install -y --allow-change-held-packages {names};"
        " apt-mark hold kubeadm kubelet kubectl",
        check=True,
    )
    listed = json.dumps({"images": [{"id": "sha256:0", "repoTags": IMAGES}]})
    machine.write("/usr/bin/crictl", f"#!/bin/sh\necho '{listed}'\n", mode=0o755)
    tell_time(machine, "yes")


def tell_time(machine: machines.RealMachine, synced: str) -> None:
    """What timedatectl would print, for there is no systemd."""
    script = f"#!/bin/sh\necho NTPSynchronized={synced}\n"
    machine.write("/usr/bin/timedatectl", script, mode=0o755)
