"""A mount of a file server on a real machine, whose server answers, hangs or fails as told.

This kernel may have no NFS. To programs the mount is the same: `stat` waits in the kernel, and
once it was killed it cannot be ended until the server answers. The mount calls itself ``nfs4``
with a word before it, since the kernel writes the kind of a FUSE mount so.

It speaks just enough of FUSE: a root without files. Needs root and /dev/fuse.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig import parts
from tests.rig.machines import RealMachine

KIND = "fuse.nfs4"
_GETATTR, _STATFS, _INIT, _FORGET, _INTERRUPT, _ACCESS = 3, 17, 26, 2, 36, 34
_OPEN_DIRECTORY, _READ_DIRECTORY, _CLOSE_DIRECTORY = 27, 28, 29
_IN_HEADER = struct.Struct("<IIQQIIII")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_REPLY = struct.Struct("<IIIIHHIIHHI28x")
_STATFS_REPLY = struct.Struct("<5Q4I24x")
_ATTRIBUTES_REPLY = struct.Struct("<QII6Q10I")
_REQUEST_BYTES = 1 << 20
_DIRECTORY = 0o040755
SLOW_S = 1.5


class Mode(enum.Enum):
    """What the server does with a request."""

    ANSWER = 0
    HANG = -1
    SLOW = -2
    DELETED = -3  #: the directory is gone, and the server still answers for its file system
    STALE = errno.ESTALE
    FAIL = errno.EIO


@dataclass
class NfsMount:
    """The mount."""

    machine: RealMachine
    path: str
    source: str
    device: int = field(repr=False)
    mode: Mode = Mode.ANSWER
    _held: list[tuple[int, int]] = field(default_factory=list, repr=False)

    def serve(self) -> None:
        """Take requests until the mount is gone."""
        with contextlib.suppress(OSError):
            while request := self._next():
                _, opcode, unique, *_ = _IN_HEADER.unpack_from(request)
                if opcode in {_FORGET, _INTERRUPT}:
                    continue
                if opcode == _INIT:
                    self._reply(
                        unique, _INIT_REPLY.pack(7, 31, 65536, 0, 12, 9, 65536, 1, 0, 0, 0)
                    )
                elif self.mode is Mode.HANG:
                    self._held.append((opcode, unique))
                else:
                    self._answer(opcode, unique)

    def _next(self) -> bytes:
        while True:
            try:
                return os.read(self.device, _REQUEST_BYTES)
            except PermissionError:  # it is not mounted yet
                time.sleep(0.01)

    def become(self, mode: Mode) -> None:
        """Behave otherwise from now on; what waits is answered so, too."""
        self.mode = mode
        if mode is Mode.HANG:
            return
        held, self._held = self._held, []
        for opcode, unique in held:
            with contextlib.suppress(OSError):  # the asker gave up
                self._answer(opcode, unique)

    def _answer(self, opcode: int, unique: int) -> None:
        if self.mode is Mode.SLOW:
            time.sleep(SLOW_S)
        if self.mode is Mode.DELETED and opcode == _GETATTR:
            self._reply(unique, error=errno.ESTALE)
        elif self.mode.value > 0:
            self._reply(unique, error=self.mode.value)
        elif opcode == _STATFS:
            self._reply(unique, _STATFS_REPLY.pack(9, 9, 9, 9, 9, 4096, 255, 4096, 0))
        elif opcode == _GETATTR:
            times, sizes = (0,) * 3, (1, 0, 0)
            rest = (_DIRECTORY, 2, 0, 0, 0, 4096, 0)
            self._reply(unique, _ATTRIBUTES_REPLY.pack(0, 0, 0, *sizes, *times, *times, *rest))
        elif opcode in {_ACCESS, _READ_DIRECTORY, _CLOSE_DIRECTORY}:
            self._reply(unique)
        elif opcode == _OPEN_DIRECTORY:
            self._reply(unique, bytes(16))
        else:
            self._reply(unique, error=errno.ENOENT)

    def _reply(self, unique: int, body: bytes = b"", *, error: int = 0) -> None:
        header = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -error, unique)
        os.write(self.device, header + body)


@contextlib.contextmanager
def mounted(machine: RealMachine, path: str, *, source: str) -> Iterator[NfsMount]:
    """Mount it on a machine; everything that hangs on it ends with the block."""
    if not Path("/dev/fuse").exists():
        parts.missing("FUSE (the device /dev/fuse)", "modprobe fuse")
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    mount = NfsMount(machine=machine, path=path, source=source, device=device)
    server = threading.Thread(target=mount.serve, daemon=True)
    try:
        machine.run(f"mkdir -p '{path}'", check=True)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
        command = ["mount", "-i", "-t", KIND, "-o", options, source, path]
        server.start()
        subprocess.run([*machine.entering(), *command], pass_fds=[device], check=True, timeout=60)
        yield mount
    finally:
        mount.become(Mode.FAIL)
        if machine.is_on:
            machine.run(f"umount -f '{path}'; umount -l '{path}'")
        os.close(device)
