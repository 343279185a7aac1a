"""What the files of a control plane say about it: who it is, and what a rebuild would lack.

Read from the static manifests that kubeadm wrote and people edited: flags with a value, written
one by one as ``--flag=value``. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from opsd.backup.etcd.bundle import File
from opsd.clients.etcd.exchange import Identity

MANIFESTS = "etc/kubernetes/manifests"
ETCD, APISERVER = f"{MANIFESTS}/etcd.yaml", f"{MANIFESTS}/kube-apiserver.yaml"
OTHERS = (f"{MANIFESTS}/kube-controller-manager.yaml", f"{MANIFESTS}/kube-scheduler.yaml")
PKI = "etc/kubernetes/pki"
#: Without these a cluster is another one, or does not start.
NEEDED = (
    f"{PKI}/ca.crt",
    f"{PKI}/ca.key",
    f"{PKI}/sa.pub",
    f"{PKI}/sa.key",
    f"{PKI}/front-proxy-ca.crt",
    f"{PKI}/front-proxy-ca.key",
    APISERVER,
    *OTHERS,
    "var/lib/kubelet/config.yaml",
    "var/lib/kubelet/kubeadm-flags.env",
)
#: Besides, where etcd runs on the control plane itself.
NEEDED_STACKED = (f"{PKI}/etcd/ca.crt", f"{PKI}/etcd/ca.key", ETCD)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ENCRYPTION = "encryption-provider-config"
DATA_DIR = "/var/lib/etcd"
DEFAULT_PORT = 2379
DEFAULT_QUOTA_BYTES = 2 << 30  # of --quota-backend-bytes

_FLAG = re.compile(r"""(?:^|[\s"'\[,])--([a-z][a-z0-9-]*)=([^\s"',\]]+)""", re.MULTILINE)
_IMAGE = re.compile(r"""image:\s*["']?([^\s"'@]+)""")
_TAG_VERSION = re.compile(r"v?(\d+\.\d+\.\d+)")
_A_FILE = re.compile(r"(?:file|config|kubeconfig)$")
_WRITTEN = ("log-file",)  # flags of files that the component writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One control plane as its files describe it; empty where they do not."""

    node: str = ""  #: name of the node and of its etcd member
    peer_url: str = ""  #: ``https://10.0.0.11:2380``
    data_dir: str = DATA_DIR  #: of etcd on the node
    kubernetes_version: str = ""
    etcd_version: str = ""
    etcd_servers: tuple[str, ...] = ()  #: URLs that the API server uses
    etcd_files: tuple[str, str, str] = ("", "", "")  #: paths of authority, certificate, key
    quota_bytes: int = DEFAULT_QUOTA_BYTES
    named: Mapping[str, str] = field(default_factory=dict)  #: files that flags name: path: flag
    is_encrypted: bool = False  #: Secrets in etcd, by a key that a file holds

    @property
    def is_stacked(self) -> bool:
        """Whether etcd runs on the control plane itself; so it is where nothing else is said."""
        hosts = [urlsplit(one).hostname for one in self.etcd_servers]
        return not hosts or any(host in (*LOOPBACK, self.address) for host in hosts)

    @property
    def address(self) -> str:
        """Of the node, as its etcd is known to others."""
        return urlsplit(self.peer_url).hostname or ""


def plane_of(files: Iterable[File]) -> Plane:
    """What the files say."""
    texts = {file.path: file.content.decode("utf-8", "replace") for file in files}
    etcd, apiserver = flags_of(texts.get(ETCD, "")), flags_of(texts.get(APISERVER, ""))
    named: dict[str, str] = {}
    for manifest in (APISERVER, *OTHERS, ETCD):
        named |= _named(flags_of(texts.get(manifest, "")))
    return Plane(
        node=etcd.get("name", ""),
        peer_url=etcd.get("initial-advertise-peer-urls", "").split(",")[0],
        data_dir=etcd.get("data-dir", DATA_DIR),
        kubernetes_version=version_of(texts.get(APISERVER, "")),
        etcd_version=version_of(texts.get(ETCD, "")),
        etcd_servers=tuple(one for one in apiserver.get("etcd-servers", "").split(",") if one),
        etcd_files=(
            apiserver.get("etcd-cafile", "").lstrip("/"),
            apiserver.get("etcd-certfile", "").lstrip("/"),
            apiserver.get("etcd-keyfile", "").lstrip("/"),
        ),
        quota_bytes=_quota(etcd),
        named=named,
        is_encrypted=ENCRYPTION in apiserver,
    )


def identity_of(plane: Plane, files: Iterable[File]) -> Identity | None:
    """With what the API server reaches etcd; None: a file of it is not there."""
    texts = {file.path: file.content.decode("utf-8", "replace") for file in files}
    authority, certificate, key = (texts.get(path, "") for path in plane.etcd_files)
    if not (authority and certificate and key):
        return None
    return Identity(authority=authority, certificate=certificate, key=key)


def not_yet(plane: Plane, files: Iterable[File]) -> tuple[str, ...]:
    """Paths that flags name and that were not collected, without their leading slash."""
    there = {file.path for file in files}
    return tuple(sorted(path for path in plane.named if path not in there))


def missing(plane: Plane, files: Iterable[File], *, accepted: Collection[str]) -> tuple[str, ...]:
    """What a rebuild needs and the backup lacks: paths with their leading slash.

    Args:
        plane: what the files say.
        files: that are there.
        accepted: paths that are meant to be missing, with or without the slash.
    """
    there = {file.path for file in files} | {one.lstrip("/") for one in accepted}
    stacked = NEEDED_STACKED if plane.is_stacked else ()
    needed = dict.fromkeys((*NEEDED, *stacked, *sorted(plane.named)))
    return tuple(f"/{path}" for path in needed if path not in there)


def flags_of(manifest: str) -> dict[str, str]:
    """The flags of a static pod that have a value; of two the last counts, as for the program."""
    return dict(_FLAG.findall(manifest))


def version_of(manifest: str) -> str:
    """The version in its image's tag; empty when there is none."""
    image = _IMAGE.search(manifest)
    found = _TAG_VERSION.match(image[1].rpartition(":")[2]) if image else None
    return found[1] if found else ""


def _named(flags: Mapping[str, str]) -> dict[str, str]:
    return {
        value.lstrip("/"): flag
        for flag, value in flags.items()
        if value.startswith("/") and _A_FILE.search(flag) and flag not in _WRITTEN
    }


def _quota(flags: Mapping[str, str]) -> int:
    raw = flags.get("quota-backend-bytes", "")
    return int(raw) if raw.isdigit() and int(raw) else DEFAULT_QUOTA_BYTES
