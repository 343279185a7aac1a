"""What to do with a restored control plane: the commands, with the names of this very cluster.

They stand in every backup as README.txt, and `opsd backups restore` says them again. Pure.
"""

from __future__ import annotations

import shlex

from opsd.backup.etcd.bundle import KUBEADM, SNAPSHOT
from opsd.backup.etcd.source import EtcdSource

# Revisions go on beyond all that anybody saw, so that no watch is told an old one as new.
BUMP = 1_000_000_000


def restore_command(source: EtcdSource, snapshot: str) -> str:
    """What makes etcd's data directory of the snapshot, for one member that starts alone."""
    name, peer = source.node or "NAME", source.peer_url or "https://ADDRESS:2380"
    return shlex.join(
        (
            *("etcdutl", "snapshot", "restore", snapshot),
            *("--data-dir", source.data_dir or "/var/lib/etcd"),
            *("--name", name),
            *("--initial-cluster", f"{name}={peer}"),
            *("--initial-advertise-peer-urls", peer),
            *("--bump-revision", str(BUMP), "--mark-compacted"),
        )
    )


def steps(source: EtcdSource, folder: str) -> tuple[str, ...]:
    """The next commands, in order, on the new control plane.

    Args:
        source: what the backup is.
        folder: where it was unpacked.
    """
    here = shlex.quote(folder)
    version, etcd = source.kubernetes_version or "?", source.etcd_version or "?"
    data_dir = shlex.quote(source.data_dir or "/var/lib/etcd")
    machine = f"host name {source.node or '?'}, address {source.address or '?'}"
    # Files only: the modes of directories such as / itself are those of the new machine.
    put_back = f"(cd {here}/node && find . ! -type d | tar -c -T -) | tar -C / -x --no-same-owner"
    return (
        f"a machine with {machine}, containerd, kubelet and kubeadm {version}; there, as root:",
        "systemctl stop kubelet; crictl ps -q | xargs -r crictl stop",
        f"mv {data_dir} /root/etcd-before   # if it is there",
        f"{restore_command(source, f'{folder}/{SNAPSHOT}')}   # etcdutl {etcd} or newer",
        put_back,
        "systemctl enable --now kubelet",
        "kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes   # docs/restore.md goes on",
    )


def readme(source: EtcdSource) -> str:
    """The text of README.txt."""
    members = ", ".join(source.members) or "not known"
    versions = f"Kubernetes {source.kubernetes_version or '?'}, etcd {source.etcd_version or '?'}"
    kubeadm = (
        f"{KUBEADM}: the ClusterConfiguration, for `kubeadm init --config`."
        if source.has_kubeadm_config
        else f"{KUBEADM} is not here, it could not be read; it is in the snapshot."
    )
    lines = [
        f"The control plane of the cluster {source.cluster}, from {source.node or '?'},",
        f"as of {source.taken_at:%Y-%m-%d %H:%M} UTC.",
        "",
        f"{versions}, members: {members}.",
        f"{source.promise.keys} keys at revision {source.promise.revision}.",
        "",
        "Whoever has this is the administrator of that cluster. Delete it when done.",
        "",
        f"{SNAPSHOT}: etcd's snapshot. Its last 32 bytes are the SHA-256 of the others.",
        "node/: files of the node, where they were below /.",
        kubeadm,
        "",
        "The same control plane again, on a machine with the same name and address:",
        "",
        *(f"  {number}. {step}" for number, step in enumerate(steps(source, "."), start=1)),
        "",
    ]
    if source.missing:
        lines += ["Not in here, and needed:", *(f"  {path}" for path in source.missing), ""]
    return "\n".join(lines)
