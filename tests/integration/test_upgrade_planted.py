"""Trouble planted on a machine that the real kubeadm set up is found, and is gone when mended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from opsd.upgrade.check import Hop, Status, judged
from tests.rig.kubeadmcluster import BY_ID, TO_36, TO_37, Cluster, running

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(600)]

CONFIG = "/var/lib/kubelet/config.yaml"
DEFAULT = "/etc/default/kubelet"
MANIFESTS = "/etc/kubernetes/manifests"
PKI = "/etc/kubernetes/pki"
KEYRING = "/etc/apt/keyrings/opsd-fx.gpg"
MACHINE_CHECKS = (
    "kubelet-gates",
    "kubelet-flags",
    "cgroup-version",
    "swap",
    "certificates",
    "kubelet-certificate",
    "served-certificates",
    "etcd-health",
    "static-manifests",
    "static-manifest-edits",
    "static-pod-references",
    "disk-space",
    "clock",
    "images",
    "newest-patch",
    "packages",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running() as made:
        yield made


def test_a_node_in_good_order_passes_every_check(cluster: Cluster) -> None:
    facts = cluster.facts()

    results = [judged(BY_ID[name], facts, TO_36) for name in MACHINE_CHECKS]

    said = {result.check.id: result.worst for result in results if result.status != Status.PASS}
    assert said == {}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """One trouble."""

    check: str
    plant: str  #: shell, as root on the machine
    mend: str
    status: Status = Status.FAIL
    says: str  #: in the evidence
    hop: Hop = TO_36


def yaml_line(line: str) -> str:
    """Add to the kubelet's configuration."""
    return f"cp {CONFIG} /root/kept; printf '%s\\n' '{line}' >>{CONFIG}"


KEPT = f"cp /root/kept {CONFIG}"


def manifest(name: str, change: str) -> tuple[str, str]:
    """Change a static pod's file, and undo it."""
    path = f"{MANIFESTS}/{name}.yaml"
    return f"cp {path} /root/{name}; {change.format(path=path)}", f"cp /root/{name} {path}"


TROUBLES = {
    "a gate in the kubelet's file that the target does not know": Planted(
        check="kubelet-gates",
        plant=yaml_line("featureGates: {SidecarContainers: true}"),
        mend=KEPT,
        says="SidecarContainers=true: removed in 1.37",
        hop=TO_37,
    ),
    "a gate on the kubelet's command line that is locked to the other value": Planted(
        check="kubelet-gates",
        plant=f"echo 'KUBELET_EXTRA_ARGS=\"--feature-gates=KubeletPSI=false\"' >{DEFAULT}",
        mend=f"rm {DEFAULT}",
        says="KubeletPSI=false: locked to true since 1.36",
    ),
    "a flag that is gone, in /etc/default/kubelet": Planted(
        check="kubelet-flags",
        plant=f"echo 'KUBELET_EXTRA_ARGS=--pod-infra-container-image=pause:3.9' >{DEFAULT}",
        mend=f"rm {DEFAULT}",
        says="--pod-infra-container-image: gone in 1.35",
    ),
    "a flag that is gone, in a drop-in": Planted(
        check="kubelet-flags",
        plant="mkdir -p /etc/systemd/system/kubelet.service.d; printf '%s\\n' '[Service]'"
        " 'Environment=\"KUBELET_EXTRA_ARGS=--v=2 --machine-id-file=/etc/machine-id\"'"
        " >/etc/systemd/system/kubelet.service.d/20-own.conf",
        mend="rm -r /etc/systemd/system/kubelet.service.d",
        says="--machine-id-file: gone in 1.37",
        hop=TO_37,
    ),
    "drop-ins of the configuration, which opsd does not read": Planted(
        check="kubelet-flags",
        plant=f"echo 'KUBELET_EXTRA_ARGS=--config-dir=/etc/kubelet.d' >{DEFAULT}",
        mend=f"rm {DEFAULT}",
        status=Status.UNKNOWN,
        says="/etc/kubelet.d",
    ),
    "cgroup v1": Planted(
        check="cgroup-version",
        plant="umount /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup",
        mend="umount /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup",
        says="refuses",
    ),
    "cgroup v1 that is allowed": Planted(
        check="cgroup-version",
        plant=f"umount /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup;"
        f" {yaml_line('failCgroupV1: false')}",
        mend=f"umount /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; {KEPT}",
        status=Status.WARN,
        says="allowed by failCgroupV1",
    ),
    "swap": Planted(
        check="swap",
        plant="printf 'Filename\\tType\\tSize\\tUsed\\n/dev/zram0 partition 1024 0 5\\n'"
        " >/root/swaps; mount --bind /root/swaps /proc/swaps",
        mend="umount /proc/swaps",
        says="/dev/zram0 1 MiB",
    ),
    "no kubelet configuration": Planted(
        check="swap",
        plant="printf 'Filename\\n/dev/sda2 partition 1024 0 5\\n' >/root/swaps;"
        f" mount --bind /root/swaps /proc/swaps; mv {CONFIG} /root/away",
        mend=f"umount /proc/swaps; mv /root/away {CONFIG}",
        status=Status.UNKNOWN,
        says="not set up by kubeadm",
    ),
    "a certificate without its authority's key": Planted(
        check="certificates",
        plant=f"mv {PKI}/ca.key /root",
        mend=f"mv /root/ca.key {PKI}",
        status=Status.WARN,
        says="cannot renew",
    ),
    "a certificate that nobody may read": Planted(
        check="certificates",
        plant=f"chmod 600 {PKI}/apiserver.crt",
        mend=f"chmod 644 {PKI}/apiserver.crt",
        status=Status.UNKNOWN,
        says="Permission denied",
    ),
    "a certificate that is damaged": Planted(
        check="certificates",
        plant=f"cp {PKI}/ca.crt /root; sed -i 5d {PKI}/ca.crt",
        mend=f"cp /root/ca.crt {PKI}",
        status=Status.UNKNOWN,
        says="cannot be read",
    ),
    "a kubelet that never renews": Planted(
        check="kubelet-certificate",
        plant="cp /etc/kubernetes/kubelet.conf /root; cd /etc/kubernetes;"
        ' sed -i "s#client-certificate:.*#client-certificate-data: $(base64 -w0'
        ' /var/lib/kubelet/pki/kubelet-client-current.pem)#" kubelet.conf',
        mend="cp /root/kubelet.conf /etc/kubernetes",
        status=Status.WARN,
        says="never renewed",
    ),
    "a kubelet without a certificate": Planted(
        check="kubelet-certificate",
        plant="mv /var/lib/kubelet/pki/kubelet-client-current.pem /root",
        mend="mv /root/kubelet-client-current.pem /var/lib/kubelet/pki",
        status=Status.UNKNOWN,
        says="No such file",
    ),
    "a static pod that is missing": Planted(
        check="static-manifests",
        plant=f"mv {MANIFESTS}/kube-scheduler.yaml /root",
        mend=f"mv /root/kube-scheduler.yaml {MANIFESTS}",
        says="it is missing",
    ),
    "etcd's static pod missing where the API server needs it": Planted(
        check="static-manifests",
        plant=f"mv {MANIFESTS}/etcd.yaml /root",
        mend=f"mv /root/etcd.yaml {MANIFESTS}",
        says="it is missing",
    ),
    "a copy in the folder": Planted(
        check="static-manifests",
        plant=f"cp {MANIFESTS}/etcd.yaml {MANIFESTS}/etcd.yaml.bak",
        mend=f"rm {MANIFESTS}/etcd.yaml.bak",
        says="one of 2 files for the pod etcd",
    ),
    "a file that is no manifest": Planted(
        check="static-manifests",
        plant=f"echo '{{' >{MANIFESTS}/own.yaml",
        mend=f"rm {MANIFESTS}/own.yaml",
        says="it is no YAML",
    ),
    "a pod that is not what its file says": Planted(
        check="static-manifests",
        plant=manifest("kube-scheduler", "sed -i 's#:v1.35.4#:v1.35.9#' {path}")[0],
        mend=manifest("kube-scheduler", "")[1],
        says="v1.35.9, and registry.k8s.io/kube-scheduler:v1.35.4 runs",
    ),
    "a flag that somebody added by hand": Planted(
        check="static-manifest-edits",
        plant=manifest(
            "kube-apiserver", "sed -i 's#    - --allow-priv#    - --profiling=false\\n&#' {path}"
        )[0],
        mend=manifest("kube-apiserver", "")[1],
        status=Status.WARN,
        says="--profiling=false",
    ),
    "a value that somebody changed by hand": Planted(
        check="static-manifest-edits",
        plant=manifest(
            "kube-apiserver",
            "sed -i 's#=NodeRestriction#=NodeRestriction,AlwaysPullImages#' {path}",
        )[0],
        mend=manifest("kube-apiserver", "")[1],
        status=Status.WARN,
        says="--enable-admission-plugins=NodeRestriction,AlwaysPullImages",
    ),
    "a static pod with a Secret": Planted(
        check="static-pod-references",
        plant=f"printf '%s\\n' 'metadata: {{name: own}}' 'spec: {{volumes: [{{name: x, secret:"
        f" {{secretName: keys}}}}]}}' >{MANIFESTS}/own.yaml",
        mend=f"rm {MANIFESTS}/own.yaml",
        says="secret keys",
    ),
    "no room for the copy of etcd": Planted(
        check="disk-space",
        plant="cp -a /etc/kubernetes /root/kept-etc; mount -t tmpfs -o size=64m none"
        " /etc/kubernetes; cp -a /root/kept-etc/. /etc/kubernetes",
        mend="umount /etc/kubernetes; rm -r /root/kept-etc",
        says="kubeadm needs 1.0 GiB",
    ),
    "no room for images": Planted(
        check="disk-space",
        plant="mkdir -p /var/lib/containerd; mount -t tmpfs -o size=20m none /var/lib/containerd;"
        " head -c 18000000 /dev/zero >/var/lib/containerd/images",
        mend="umount /var/lib/containerd",
        says="below 15 %",
    ),
    "images that are not there": Planted(
        check="images",
        plant="cp /usr/bin/crictl /root; sed -i s/kube-proxy:v1.36.4/kube-proxy:v1.35.4/"
        " /usr/bin/crictl",
        mend="cp /root/crictl /usr/bin",
        status=Status.WARN,
        says="not there for 1.36: kube-proxy",
    ),
    "no crictl": Planted(
        check="images",
        plant="mv /usr/bin/crictl /root",
        mend="mv /root/crictl /usr/bin",
        status=Status.UNKNOWN,
        says="crictl is not there",
    ),
    "packages that are not held": Planted(
        check="packages",
        plant="apt-mark unhold kubelet",
        mend="apt-mark hold kubelet",
        status=Status.WARN,
        says="kubelet not held",
    ),
    "dpkg that was interrupted": Planted(
        check="packages",
        plant="touch /var/lib/dpkg/updates/0001",
        mend="rm /var/lib/dpkg/updates/0001",
        says="interrupted",
    ),
    "package lists that were never fetched": Planted(
        check="packages",
        plant="mv /var/lib/apt/lists /root",
        mend="rm -rf /var/lib/apt/lists; mv /root/lists /var/lib/apt",
        status=Status.UNKNOWN,
        says="was ever fetched",
    ),
    "a key of a repository that ends soon": Planted(
        check="packages",
        plant=f"cp {KEYRING} /root/keyring; export GNUPGHOME=/root/gpg; mkdir -m 700 $GNUPGHOME;"
        " gpg --batch --quiet --passphrase '' --quick-generate-key x ed25519 sign 20d;"
        f" gpg --batch --quiet --yes --export -o {KEYRING}; gpgconf --kill all",
        mend=f"cp /root/keyring {KEYRING}; rm -r /root/gpg",
        status=Status.WARN,
        says="the repository's key expires on",
    ),
    "a repository of the next minor": Planted(
        check="newest-patch",
        plant="sed -i s/1.36/1.37/ /etc/apt/sources.list.d/kubernetes.list; apt-get -qq update",
        mend="sed -i s/1.37/1.36/ /etc/apt/sources.list.d/kubernetes.list; apt-get -qq update",
        status=Status.WARN,
        says="next minor release already",
    ),
    "a clock that nobody keeps right": Planted(
        check="clock",
        plant="sed -i s/yes/no/ /usr/bin/timedatectl",
        mend="sed -i s/no/yes/ /usr/bin/timedatectl",
        says="nothing keeps the clock of cp1 right",
    ),
    "rights that were taken away": Planted(
        check="certificates",
        plant="echo 'opsd ALL=(root) NOPASSWD: /usr/bin/true' >/etc/sudoers.d/opsd",
        mend="echo 'opsd ALL=(root) NOPASSWD: ALL' >/etc/sudoers.d/opsd",
        status=Status.UNKNOWN,
        says="sudo refused",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_planted_trouble_is_found_and_gone_when_mended(cluster: Cluster, name: str) -> None:
    trouble = TROUBLES[name]

    cluster.run(trouble.plant)
    try:
        found = cluster.asked_of_machine(trouble.check, trouble.hop)
    finally:
        cluster.run(trouble.mend)
    mended = cluster.asked_of_machine(trouble.check)

    assert found.status is trouble.status, found.notes
    assert any(trouble.says in note.value for note in found.worst), found.worst
    assert found.fix
    assert mended.status is Status.PASS, mended.worst
