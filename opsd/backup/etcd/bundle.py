"""One stream that holds all of a control plane, readable by tar on any machine.

    README.txt           how to go on, with the names and versions of this cluster
    meta.json            what it is: node, versions, revision, number of keys
    kubeadm-config.yaml  the ClusterConfiguration, if the cluster has one
    node/...             files of the node, by their path on it
    snapshot.db          etcd's snapshot, last, because it is large

Limits: only ordinary files and symbolic links of the node are in it, and extended attributes
are not.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from opsd.backup.etcd.snapshot import SnapshotCheck
from opsd.clients.etcd.member import Snapshot
from opsd.text import printable

README, META, KUBEADM, SNAPSHOT = "README.txt", "meta.json", "kubeadm-config.yaml", "snapshot.db"
NODE = "node/"
PRIVATE = 0o600
_END = b"\0" * (2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of the node, or one that opsd wrote about it."""

    path: str  #: without a leading slash: ``etc/kubernetes/pki/ca.crt``
    content: bytes = b""
    mode: int = PRIVATE  #: permission bits
    uid: int = 0
    gid: int = 0
    modified_s: int = 0  #: since 1970
    link: str = ""  #: where it points, if it is a symbolic link


class Unreadable(ValueError):
    """What came is no whole tar, or holds what opsd does not take."""


def safe_path(name: str) -> str:
    """A member's name, if it stays below the directory that it is unpacked in.

    Raises:
        Unreadable: it does not.
    """
    path = name.removeprefix("./").rstrip("/")
    if not path or path.startswith("/") or any(part in ("", "..") for part in path.split("/")):
        raise Unreadable(f"the name {printable(name)} does not stay below its directory")
    return path


def file_of(member: tarfile.TarInfo, content: bytes) -> File:
    """One member of a tar, with its owner and mode.

    Raises:
        Unreadable: its name leads elsewhere.
    """
    return File(
        path=safe_path(member.name),
        content=content,
        mode=stat.S_IMODE(member.mode),
        uid=member.uid,
        gid=member.gid,
        modified_s=int(member.mtime),
        link=member.linkname if member.issym() else "",
    )


def of_node(file: File) -> File:
    """A file of the node by its place in the bundle."""
    return replace(file, path=f"{NODE}{file.path}")


def write(
    files: Iterable[File], snapshot: Snapshot, check: SnapshotCheck, *, modified_s: int
) -> Iterator[bytes]:
    """The whole stream in pieces.

    Args:
        files: all but the snapshot, named as in the bundle.
        snapshot: on its way; it is read to its end.
        check: is fed all of it, and asked at the end.
        modified_s: when it was taken, in seconds since 1970.

    Raises:
        Incomplete: the snapshot is not whole.
        OpsdError: whatever the snapshot raises.
    """
    for file in files:
        yield _header(file, len(file.content)) + file.content + _padding(len(file.content))
    yield _header(File(path=SNAPSHOT, modified_s=modified_s), snapshot.size_bytes)
    for piece in snapshot.pieces:
        check.feed(piece)
        if check.size_bytes > snapshot.size_bytes:
            break  # what the header promised cannot be kept
        yield piece
    check.finish(promised_bytes=snapshot.size_bytes)
    yield _padding(snapshot.size_bytes) + _END


def overhead(files: Iterable[File]) -> int:
    """How many bytes the stream has besides the snapshot, at most."""
    return sum(len(file.content) + 8 * tarfile.BLOCKSIZE for file in files) + 8192


def _header(file: File, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(file.path)
    entry.size = 0 if file.link else size_bytes
    entry.mode, entry.uid, entry.gid = file.mode, file.uid, file.gid
    entry.mtime = file.modified_s
    if file.link:
        entry.type, entry.linkname = tarfile.SYMTYPE, file.link
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size_bytes: int) -> bytes:
    return b"\0" * (-size_bytes % tarfile.BLOCKSIZE)
