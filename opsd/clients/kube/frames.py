"""WebSocket messages (RFC 6455), as bytes in and bytes out, as far as a client needs them.

Limits: no extensions; a message is held in memory until it is whole.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
_FINAL = 0x80
_MASKED = 0x80
_MOST_BYTES = 16 << 20  # of one message
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class NotFrames(ValueError):
    """These bytes are no WebSocket frames of a server."""


def new_key() -> str:
    """What a client challenges a server with."""
    return base64.b64encode(os.urandom(16)).decode()


def accept_of(key: str) -> str:
    """What a server must answer to it."""
    digest = hashlib.sha1(key.encode() + _ACCEPT, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """One message of a client."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - RFC 6455, 5.2
        length = bytes([_MASKED | size])
    elif size < 1 << 16:
        length = bytes([_MASKED | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([_MASKED | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    return bytes([_FINAL | opcode]) + length + mask + _masked(payload, mask)


class Frames:
    """The messages of a server, from its bytes as they come."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._message = bytearray()
        self._opcode = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Opcode and payload of each message that is whole now.

        Raises:
            NotFrames: these are none.
        """
        self._pending += data
        while (head := self._head()) is not None:
            start, size = head
            first = self._pending[0]
            payload = bytes(self._pending[start : start + size])
            del self._pending[: start + size]
            yield from self._assembled(first, payload)

    def _head(self) -> tuple[int, int] | None:
        """Where the payload of the first frame begins, and its size; None: not all is there."""
        data = self._pending
        if len(data) < 2:  # noqa: PLR2004 - RFC 6455, 5.2
            return None
        if data[0] & 0x70 or data[1] & _MASKED:
            raise NotFrames("reserved bits are set, or a server masks")
        width = {126: 2, 127: 8}.get(data[1], 0)
        start = 2 + width
        size = int.from_bytes(data[2:start], "big") if width else data[1]
        if len(data) >= start and size + len(self._message) > _MOST_BYTES:
            raise NotFrames(f"a message of {size} bytes")
        return (start, size) if len(data) >= start + size else None

    def _assembled(self, first: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
        opcode = first & 0x0F
        if opcode >= CLOSE:  # may stand between the parts of a message
            yield opcode, payload
            return
        self._opcode = opcode or self._opcode
        self._message += payload
        if first & _FINAL:
            whole, self._message = bytes(self._message), bytearray()
            yield self._opcode, whole


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    pattern = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")
    return mixed.to_bytes(size, "big")
