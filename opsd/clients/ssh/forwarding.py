"""Reach an address as a machine sees it, through the login on it, as an ordinary socket.

Nothing listens anywhere: no other user of this machine can use the way. What one end closes, or
the end of the login, ends the other.

Limits: two threads each while a socket is open. Half-closing one direction ends both.
"""

from __future__ import annotations

import contextlib
import socket
import threading

import paramiko

from opsd.clients.ssh.connection import Connection
from opsd.clock import Deadline

_PIECE_BYTES = 64 << 10


def opened(connection: Connection, host: str, port: int, *, deadline: Deadline) -> socket.socket:
    """A socket that leads to `host`, as the machine knows it; close it when done.

    Raises:
        Unreachable: the machine cannot reach it, or does not answer.
        PermanentError: it does not forward.
        DeadlineExceeded: no time is left.
    """
    channel = connection.tunnel(host, port, deadline=deadline)
    ours, theirs = socket.socketpair()
    for work in (_to_socket, _to_channel):
        threading.Thread(target=work, args=(channel, theirs), name="tunnel", daemon=True).start()
    return ours


def _to_socket(channel: paramiko.Channel, theirs: socket.socket) -> None:
    """Until the far end closes; then nobody uses `theirs` any more."""
    with contextlib.suppress(OSError):
        while piece := channel.recv(_PIECE_BYTES):
            theirs.sendall(piece)
    with contextlib.suppress(OSError):
        theirs.shutdown(socket.SHUT_RDWR)
    _close(channel)


def _to_channel(channel: paramiko.Channel, theirs: socket.socket) -> None:
    """Until our end closes."""
    with contextlib.suppress(OSError):
        while piece := theirs.recv(_PIECE_BYTES):
            channel.sendall(piece)
    _close(channel)
    theirs.close()


def _close(channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError):  # the login itself ended first
        channel.close()
