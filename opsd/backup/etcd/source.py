"""What the manifest of a control plane's backup says about it: all that a restore is held to.

Limits: fields are only ever added. Nothing secret stands here, a manifest is not encrypted.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from opsd.backup.manifest import DamagedManifest, Manifest

KIND = "etcd_snapshot"
FORMAT = 1  # of the tar inside


class Promise(msgspec.Struct, kw_only=True, frozen=True):
    """What the cluster held just before the snapshot: it is all in it, at this revision."""

    revision: int
    keys: int
    #: Of all keys and values; comparable where `compact_revision` is the same. None: not told.
    hash: int | None = None
    compact_revision: int = 0


class EtcdSource(msgspec.Struct, kw_only=True, frozen=True):
    """`Manifest.source` of kind ``etcd_snapshot``; empty or 0 where it is not known."""

    format: int = FORMAT
    cluster: str
    node: str = ""  #: whose files are in it, and whose member gave the snapshot
    address: str = ""  #: of that node
    peer_url: str = ""
    data_dir: str = ""
    etcd_version: str = ""
    kubernetes_version: str = ""
    members: tuple[str, ...] = ()  #: names
    snapshot_bytes: int = 0  #: its last 32 are the SHA-256 of the others
    db_in_use_bytes: int = 0
    quota_bytes: int = 0
    taken_at: datetime
    promise: Promise
    files: int = 0
    missing: tuple[str, ...] = ()  #: paths that a rebuild needs and that are not in it
    encrypts_secrets: bool = False  #: in etcd, by a key in a file
    has_kubeadm_config: bool = False


def source_of(manifest: Manifest) -> EtcdSource:
    """Read the origin of such a manifest.

    Raises:
        DamagedManifest: it is of another kind, or a field is missing or of the wrong type.
    """
    if manifest.kind != KIND:
        raise DamagedManifest(f"{manifest.subject}: is of kind {manifest.kind}, not {KIND}")
    try:
        return msgspec.convert(manifest.source, EtcdSource)
    except msgspec.ValidationError as exc:
        raise DamagedManifest(f"{manifest.subject}: its source is not readable: {exc}") from exc


def to_builtins(source: EtcdSource) -> dict[str, object]:
    """The form that `Manifest.source` takes."""
    built: dict[str, object] = msgspec.to_builtins(source)
    return built
