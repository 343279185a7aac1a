"""The files of a control plane without which etcd's snapshot opens no cluster again.

Read over SSH by two commands that only root may run (find, tar), or below a directory where the
node's root is mounted. The keys among them are the cluster: whoever may read them is its
administrator. They are held in memory, and go into the encrypted backup only.

Limits: files of more than 256 KiB are left out, they are no configuration; so is
/etc/kubernetes/tmp, where kubeadm keeps copies of etcd.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import shlex
import stat
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from opsd.backup.etcd.bundle import File, Unreadable, file_of
from opsd.errors import PermanentError, TransientError
from opsd.hosts.script import Probe, Section

#: Everything below these is taken.
FOLDERS = ("etc/kubernetes", "etc/systemd/system/kubelet.service.d", "var/lib/kubelet/pki")
#: These are taken where they are.
SINGLE = (
    "var/lib/kubelet/config.yaml",
    "var/lib/kubelet/instance-config.yaml",
    "var/lib/kubelet/kubeadm-flags.env",
    "etc/default/kubelet",
    "etc/sysconfig/kubelet",
    "etc/containerd/config.toml",
    "etc/crictl.yaml",
)
LEFT_OUT = "etc/kubernetes/tmp"
MOST_BYTES = 256 << 10  # of one file
COLLECT_S = 30.0
NAME = "etcd-files"
_BLOCK_BYTES = 512  # in which find counts
_TAR_END = b"\0" * 1024

FIND = (
    f"find {' '.join(FOLDERS)} -size -{MOST_BYTES // _BLOCK_BYTES + 1} ! -type d"
    f" ! -path '{LEFT_OUT}/*'"
)
TAR = "tar -cf - -T -"


def probe() -> Probe:
    """Asks for all of them, as one tar in base64."""
    single = " ".join(SINGLE)  # tar passes over those that are not there
    # One after the other: two sudo at once complain into each other's lines.
    command = f"names=$($root {FIND}); printf '%s\\n' \"$names\" {single} | $root {TAR} | base64"
    return Probe(name=NAME, command=command, within_s=COLLECT_S)


def probe_for(paths: Iterable[str]) -> Probe:
    """Asks for these: what flags name outside of `FOLDERS`."""
    names = " ".join(shlex.quote(path) for path in paths)
    return Probe(
        name=NAME, command=f"printf '%s\\n' {names} | $root {TAR} | base64", within_s=COLLECT_S
    )


def received(section: Section | None, *, machine: str) -> tuple[File, ...]:
    """The files in an answer, by path.

    Raises:
        PermanentError: sudo did not allow it, or there is none.
        TransientError: the answer is not whole.
    """
    if section is None:
        raise TransientError(f"read /etc/kubernetes on {machine}: no answer came")
    if section.is_refused:
        raise PermanentError(
            f"read /etc/kubernetes on {machine}: sudo does not allow it; its sudoers lines"
            " stand in docs/etcd.md#rights"
        )
    try:
        raw = base64.b64decode(section.stdout, validate=False)
        found = tuple(_unpacked(raw))
    except (Unreadable, binascii.Error, tarfile.TarError, KeyError) as exc:
        raise TransientError(
            f"read /etc/kubernetes on {machine}: {exc} ({section.complaint()})"
        ) from exc
    if not found:
        raise PermanentError(
            f"read /etc/kubernetes on {machine}: nothing is there ({section.complaint()}); is it a"
            " control plane of kubeadm?"
        )
    return found


def below(root: Path) -> tuple[File, ...]:
    """The same of a node whose root is mounted at `root`.

    Raises:
        PermanentError: they cannot be read, or there are none.
    """
    try:
        found = tuple(_local(root, _names(root)))
    except OSError as exc:
        raise PermanentError(f"read {exc.filename}: {exc.strerror}; opsd must be root") from exc
    if not found:
        raise PermanentError(f"read {root / FOLDERS[0]}: nothing is there; see host_root")
    return found


def at(root: Path, paths: Iterable[str]) -> tuple[File, ...]:
    """Those of `paths` that are there below `root`.

    Raises:
        PermanentError: one is there and cannot be read.
    """
    try:
        return tuple(_local(root, (root / path for path in paths if (root / path).exists())))
    except OSError as exc:
        raise PermanentError(f"read {exc.filename}: {exc.strerror}; opsd must be root") from exc


def _unpacked(raw: bytes) -> Iterator[File]:
    if raw and not raw.endswith(_TAR_END):
        raise Unreadable("the files came cut off")
    if not raw:
        return
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:") as tar:
        for member in sorted(tar.getmembers(), key=lambda one: one.name):
            if member.issym():
                yield file_of(member, b"")
            elif member.isfile() or member.islnk():  # the second name of a file that came before
                content = tar.extractfile(member)
                yield file_of(member, content.read() if content else b"")


def _names(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for directory, names, files in os.walk(root / folder, onerror=_raise_but_missing):
            if directory == str(root / LEFT_OUT):
                names.clear()
                continue
            linked = [one for one in names if Path(directory, one).is_symlink()]
            yield from (Path(directory, name) for name in sorted([*files, *linked]))
    yield from (root / path for path in SINGLE if (root / path).exists())


def _raise_but_missing(exc: OSError) -> None:
    if not isinstance(exc, FileNotFoundError):
        raise exc


def _local(root: Path, paths: Iterable[Path]) -> Iterator[File]:
    for path in paths:
        found = path.lstat()
        is_link = stat.S_ISLNK(found.st_mode)
        if is_link or (stat.S_ISREG(found.st_mode) and found.st_size <= MOST_BYTES):
            yield File(
                path=str(path.relative_to(root)),
                content=b"" if is_link else path.read_bytes(),
                mode=stat.S_IMODE(found.st_mode),
                uid=found.st_uid,
                gid=found.st_gid,
                modified_s=int(found.st_mtime),
                link=str(path.readlink()) if is_link else "",
            )
