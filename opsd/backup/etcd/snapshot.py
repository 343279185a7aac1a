"""Is a snapshot whole? Told by its own SHA-256, while it streams by.

`etcdutl snapshot status` says "fine" of a snapshot that was cut off. So it is not asked: a
snapshot is pages of a multiple of 512 bytes and then the SHA-256 of them all.

Limits: that the bytes are those that etcd sent does not say that etcd's own file was well; a
restore does.
"""

from __future__ import annotations

import hashlib

from opsd.backup.stream import Incomplete

SHA256_BYTES = 32
PAGE_BYTES = 512  # every page size is a multiple of it


class SnapshotCheck:
    """Is fed a snapshot in pieces of any length, and says at the end whether it is one."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._tail = b""  # the last bytes so far: they may be the SHA-256

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        self.size_bytes += len(piece)
        held = self._tail + piece if len(piece) < SHA256_BYTES else piece
        if held is piece:
            self._digest.update(self._tail)
        cut = max(0, len(held) - SHA256_BYTES)
        self._digest.update(memoryview(held)[:cut])
        self._tail = held[cut:]

    def finish(self, *, promised_bytes: int) -> None:
        """The snapshot has ended.

        Args:
            promised_bytes: how many there had to be.

        Raises:
            Incomplete: it was cut off or changed, or is no snapshot.
        """
        if self.size_bytes != promised_bytes:
            raise Incomplete(
                f"the snapshot ended after {self.size_bytes} of {promised_bytes} bytes"
            )
        if self.size_bytes % PAGE_BYTES != SHA256_BYTES or self.size_bytes < PAGE_BYTES:
            raise Incomplete(
                f"{self.size_bytes} bytes are no snapshot: not pages and a SHA-256 at the end"
            )
        if self._digest.digest() != self._tail:
            raise Incomplete(
                "the snapshot is not what etcd sent: the SHA-256 at its end does not match"
            )
