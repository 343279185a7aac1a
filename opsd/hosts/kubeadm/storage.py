"""Is there room for what an upgrade writes, and does the kernel swap?

Limits: sizes of folders need root; without it they are not known.
"""

from __future__ import annotations

from dataclasses import dataclass

from opsd.hosts.script import Probe

ETCD = "/var/lib/etcd"
COPIES = "/etc/kubernetes/tmp"  # kubeadm's copies of etcd and of the manifests
CONTAINERD = "/var/lib/containerd"
BOOT = "/boot/firmware"

SPACE_PROBE = Probe(
    name="disk-space",
    command=f"for path in / {ETCD} /etc/kubernetes {CONTAINERD} /var/lib/kubelet {BOOT}; do"
    ' if [ -d "$path" ]; then printf "%s " "$path"; df -Pk "$path" | tail -n 1; fi; done',
)
FOLDERS_PROBE = Probe(name="disk-folders", command=f"$root du -sxk {ETCD} {COPIES}")
SWAP_PROBE = Probe(name="swap", command="cat /proc/swaps")
CGROUP_PROBE = Probe(
    name="cgroup",
    command="if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo cgroup2fs;"
    " else stat -fc %T /sys/fs/cgroup; fi",
)

_KIB = 1024
_SWAP_COLUMNS = 5
_DF_COLUMNS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The file system on which a folder lies."""

    path: str
    device: str
    size_bytes: int
    free_bytes: int  #: for others than root
    mount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One area that the kernel swaps to."""

    device: str
    size_bytes: int


def read_space(text: str) -> dict[str, Space]:
    """The answer to `SPACE_PROBE`, by path; a folder that is not there is not told.

    Raises:
        ValueError: a line is not what df prints.
    """
    return {space.path: space for space in map(_space, text.splitlines()) if space}


def read_folders(text: str) -> dict[str, int]:
    """The answer to `FOLDERS_PROBE`: bytes by path; a folder that is not there is not told."""
    found = (line.split(None, 1) for line in text.splitlines())
    return {
        path.strip(): int(size) * _KIB
        for size, path in (pair for pair in found if len(pair) == len(("size", "path")))
        if size.isdigit()
    }


def read_swaps(text: str) -> tuple[Swap, ...]:
    """The answer to `SWAP_PROBE`.

    Raises:
        ValueError: it is not what the kernel prints.
    """
    header, *lines = text.splitlines() or [""]
    if not header.startswith("Filename"):
        raise ValueError("this is not what /proc/swaps says")
    rows = [line.split() for line in lines if line.strip()]
    if any(len(row) < _SWAP_COLUMNS or not row[2].isdigit() for row in rows):
        raise ValueError("this is not what /proc/swaps says")
    return tuple(Swap(device=row[0], size_bytes=int(row[2]) * _KIB) for row in rows)


def _space(line: str) -> Space | None:
    if not line.strip():
        return None
    words = line.split()
    if len(words) < _DF_COLUMNS or not (words[2].isdigit() and words[4].isdigit()):
        raise ValueError(f"this is not what df says: {line}")
    return Space(
        path=words[0],
        device=words[1],
        size_bytes=int(words[2]) * _KIB,
        free_bytes=int(words[4]) * _KIB,
        mount=" ".join(words[6:]),
    )
