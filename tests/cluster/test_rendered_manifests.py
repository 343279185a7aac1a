"""The flags that opsd takes for kubeadm's own are those that the real kubeadm writes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from opsd.hosts.kubeadm import manifests
from opsd.upgrade.components import flags_of
from opsd.upgrade.rendered import FLAGS, is_own
from tests.rig import controlplane, parts
from tests.rig.controlplane import NEWEST, OLDEST

pytestmark = [pytest.mark.real, pytest.mark.cluster]

PHASES = ("certs all", "control-plane all", "etcd local")


@pytest.fixture(params=[OLDEST, NEWEST])
def pods(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[manifests.StaticPod, ...]:
    """The static pods of a cluster with every range of addresses set, read as from a machine."""
    if os.geteuid() != 0:
        parts.missing("a folder to chroot into (only root can)", "sudo make test")
    minor: str = request.param
    kubeadm = controlplane.bin_dir(minor) / "kubeadm"
    version = subprocess.run(
        [kubeadm, "version", "-o", "short"], check=True, capture_output=True, text=True
    ).stdout.strip()
    api = "kubeadm.k8s.io/v1beta4"
    networking = {"serviceSubnet": "10.96.0.0/16", "podSubnet": "10.244.0.0/16"}
    local = {"apiVersion": api, "kind": "InitConfiguration"} | {
        "localAPIEndpoint": {"advertiseAddress": "192.0.2.1"},
        "nodeRegistration": {"name": "cp1", "criSocket": "unix:///run/containerd.sock"},
    }
    cluster = {"apiVersion": api, "kind": "ClusterConfiguration"} | {
        "kubernetesVersion": version,
        "networking": networking,
    }
    (tmp_path / "root").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "root/config").write_text(f"{json.dumps(local)}\n---\n{json.dumps(cluster)}")
    for phase in PHASES:
        told = ("--config", "/root/config", "--rootfs", str(tmp_path))
        subprocess.run(
            (str(kubeadm), "init", "phase", *phase.split(), *told),
            check=True,
            capture_output=True,
            timeout=60,
        )
    folder = tmp_path / manifests.FOLDER.lstrip("/")
    return manifests.read(
        "".join(
            f"{manifests.FOLDER}/{file.name}:{line}\n"
            for file in folder.iterdir()
            for line in file.read_text().splitlines()
        )
    )


def test_every_flag_that_kubeadm_writes_is_taken_for_its_own(
    pods: tuple[manifests.StaticPod, ...],
) -> None:
    strange = {
        f"{pod.component} --{name}={value}"
        for pod in pods
        for name, value in flags_of(pod.words).items()
        if not is_own(pod.component, name, value)
    }

    assert {pod.component for pod in pods} == set(FLAGS)
    assert strange == set()


def test_another_value_of_a_flag_that_has_one_everywhere_is_not() -> None:
    assert is_own("kube-scheduler", "leader-elect", "true")
    assert not is_own("kube-scheduler", "leader-elect", "false")
    assert not is_own("kube-scheduler", "profiling", "false")
