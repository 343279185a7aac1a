"""Directories and mounts that do not outlive the tests, however those end.

Every directory carries the pid of its test process in its name; the next test run removes
what a killed one left. Mounts live in a private mount namespace, which the kernel takes
down with the last process in it.

Limits: threads that were started before the first mount do not see it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNS = 0x00020000
MEMORY = Path("/dev/shm")  # noqa: S108 - names in it are random; nothing waits for a disk there
_NAME = re.compile(r"opsd-t-(\d+)-")


def make_directory(label: str, *, parent: Path | None = None) -> Path:
    """A new directory that any user may enter; `label` only helps a person who looks."""
    path = Path(tempfile.mkdtemp(prefix=f"opsd-t-{os.getpid()}-{label}-", dir=parent))
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def directory(label: str, *, in_memory: bool = False) -> Iterator[Path]:
    """A directory that is removed at the end; in memory where the machine has room for it."""
    path = make_directory(label, parent=MEMORY if in_memory and MEMORY.is_dir() else None)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep() -> None:
    """Remove the directories of test processes that are dead."""
    for path in (*Path(tempfile.gettempdir()).glob("opsd-t-*"), *MEMORY.glob("opsd-t-*")):
        match = _NAME.match(path.name)
        if match and not Path("/proc", match[1]).exists():
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def tmpfs(size: str) -> Iterator[Path]:
    """A file system of `size` (``8m``) that really fills up. Needs root."""
    _enter_private_mounts()
    with directory("tmpfs") as path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "opsd-t", path], check=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", "--lazy", path], check=True)


@functools.cache
def _enter_private_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare the mount namespace: {os.strerror(number)}")
    # Fails in a chroot, where / is no mount; each mount is taken down by hand as well.
    subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
