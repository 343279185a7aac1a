"""A file system that never answers: what a mount of a dead file server is to a program.

It speaks just enough of the FUSE protocol to be mounted; every request after that is taken
and never answered. A process that waits for an answer cannot be ended, not even by SIGKILL,
until the file system is closed. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import scratch

_INIT = 26  # opcode
_IN_HEADER = struct.Struct("<IIQQIIII")
_INIT_REPLY = struct.Struct("<IiQ IIII HHI I HHI 28x")
_REQUEST_BYTES = 1 << 20
_MNT_FORCE, _MNT_DETACH = 1, 2


@contextlib.contextmanager
def mounted() -> Iterator[Path]:
    """A directory on which every look hangs until the end of the block."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("a file system can be mounted by root with /dev/fuse only")
    libc = ctypes.CDLL(None, use_errno=True)
    with scratch.tmpfs("1m") as base:
        path = base / "dead"
        path.mkdir()
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if libc.mount(b"opsd-t", os.fsencode(path), b"fuse", 0, options) != 0:
            os.close(device)
            raise OSError(ctypes.get_errno(), "mount fuse")
        threading.Thread(target=_take_and_be_silent, args=(device,), daemon=True).start()
        try:
            yield path
        finally:
            libc.umount2(os.fsencode(path), _MNT_FORCE)  # fails what waits, so that it can end
            libc.umount2(os.fsencode(path), _MNT_DETACH)
            os.close(device)


def _take_and_be_silent(device: int) -> None:
    with contextlib.suppress(OSError):
        while request := os.read(device, _REQUEST_BYTES):
            _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
            if opcode == _INIT:
                size = _INIT_REPLY.size
                reply = (size, 0, unique, 7, 31, 65536, 0, 12, 9, 65536, 1, 32, 0, 0)
                os.write(device, _INIT_REPLY.pack(*reply))
