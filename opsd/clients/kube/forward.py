"""Reach a port of a pod from outside of the cluster, as ``kubectl port-forward`` does.

The port appears as a Unix socket in a directory of the caller's, because a port on loopback
would let every local user in as what the pod takes for its own host. Each connection to it is a
WebSocket of its own; what cannot be written waits, in both directions, in bounded memory.

Limits: libpq begins no TLS on a Unix socket, so a server that demands it of its own host
(``hostssl``) refuses. One side cannot end its sending alone (the protocol has no half-close):
who closes ends both directions, after what it sent has been passed on. opsd needs ``get`` and
``create`` of ``pods/portforward``.
Source: k8s.io/kubelet, pkg/cri/streaming/portforward, websocket.go.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import structlog

from opsd.clients.kube.client import Kube
from opsd.clients.kube.frames import CLOSE, PING, PONG, Frames, NotFrames, frame
from opsd.clients.kube.objects.pods import Pod
from opsd.clock import Deadline
from opsd.errors import OpsdError
from opsd.secrets import redact
from opsd.text import printable

log = structlog.get_logger()

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1  # channels of the first port
_HIGH_BYTES = 1 << 20  # waiting in one direction: no more is read until it is less
_PIECE_BYTES = 64 << 10
_LOOK_S = 1.0  # how often the deadline is looked at


class Forward:
    """A port that is being forwarded."""

    def __init__(self, kube: Kube, pod: Pod, port: int) -> None:
        self.error = ""  #: what the cluster last said when a connection failed
        self._kube, self._pod, self._port = kube, pod, port
        self._stopped = threading.Event()

    def open(self) -> tuple[socket.socket, bytes]:
        """A connection to the port, and what has come of it already.

        Raises:
            NotFound, Forbidden, Refused, Unreachable, DeadlineExceeded: as `Kube`.
        """
        path = self._pod.resource.path(self._pod.namespace, self._pod.name, "portforward")
        return self._kube.transport.upgrade(
            f"forward port {self._port} of {self._pod}",
            f"{path}?ports={self._port}",
            protocol=PROTOCOL,
            deadline=self._kube.deadline,
        )

    def stop(self) -> None:
        """End all connections within a second."""
        self._stopped.set()

    def serve(self, listener: socket.socket, ready: tuple[socket.socket, bytes]) -> None:
        """Take connections until `stop`; the first gets `ready`."""
        spare = [ready]
        threads: list[threading.Thread] = []
        listener.settimeout(_LOOK_S)
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                local, _ = listener.accept()
                arguments = (local, spare.pop() if spare else None)
                threads.append(threading.Thread(target=self._join, args=arguments))
                threads[-1].start()
            threads = [thread for thread in threads if thread.is_alive()]
        for remote, _ in spare:
            remote.close()
        for thread in threads:
            thread.join()

    def _join(self, local: socket.socket, ready: tuple[socket.socket, bytes] | None) -> None:
        with local:
            try:
                remote, begun = ready or self.open()
                with remote:
                    _Tunnel(local, remote, self._kube.deadline, self._stopped).run(begun)
            except (OpsdError, OSError, NotFrames) as exc:
                self.error = printable(redact(str(exc)))
                log.warning("forward.interrupted", pod=str(self._pod), error=self.error)


class _Tunnel:
    """Bytes of a local connection and messages of a remote one, passed on as they come."""

    def __init__(
        self,
        local: socket.socket,
        remote: socket.socket,
        deadline: Deadline,
        stopped: threading.Event,
    ) -> None:
        self._local, self._remote = local, remote
        self._deadline, self._stopped = deadline, stopped
        self._frames = Frames()
        self._to_local, self._to_remote = bytearray(), bytearray()
        self._begun: set[int] = set()  # channels that said which port they are for
        self._local_ended = self._remote_ended = False

    def run(self, begun: bytes) -> None:
        """Pass on until one side ended and everything that it sent is delivered.

        Raises:
            ConnectionError: the cluster ended it with an error.
            NotFrames: what came is not the protocol.
            OSError: a connection broke.
            DeadlineExceeded: no time is left.
        """
        self._local.setblocking(False)
        self._remote.setblocking(False)
        self._take(begun)
        while not self._stopped.is_set() and not self._is_done():
            self._deadline.remaining()
            self._step()

    def _is_done(self) -> bool:
        if self._remote_ended:
            return not self._to_local
        return self._local_ended and not self._to_remote

    def _step(self) -> None:
        readable, writable = self._wait()
        if self._remote in readable:
            self._receive()
        if self._local in readable:
            piece = self._local.recv(_PIECE_BYTES)
            self._local_ended = not piece
            self._to_remote += frame(bytes([_DATA]) + piece) if piece else frame(b"", CLOSE)
        if self._local in writable:
            del self._to_local[: self._local.send(self._to_local[:_PIECE_BYTES])]
        if self._remote in writable:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                del self._to_remote[: self._remote.send(self._to_remote[:_PIECE_BYTES])]

    def _wait(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """The sockets on which something can be done, after at most a second."""
        reading, writing = [], []
        if not self._remote_ended and len(self._to_local) < _HIGH_BYTES:
            reading.append(self._remote)
        if not self._local_ended and len(self._to_remote) < _HIGH_BYTES:
            reading.append(self._local)
        writing += [self._local] if self._to_local else []
        writing += [self._remote] if self._to_remote else []
        is_decrypted = (
            self._remote in reading
            and isinstance(self._remote, ssl.SSLSocket)
            and self._remote.pending() > 0
        )
        readable, writable, _ = select.select(reading, writing, [], 0 if is_decrypted else _LOOK_S)
        return ([*readable, self._remote] if is_decrypted else readable), writable

    def _receive(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            piece = self._remote.recv(_PIECE_BYTES)
            if not piece and not self._remote_ended:
                raise ConnectionError("the cluster broke the connection off")
            self._take(piece)

    def _take(self, data: bytes) -> None:
        for opcode, payload in self._frames.feed(data):
            if opcode == CLOSE:
                self._remote_ended = True
            elif opcode == PING:
                self._to_remote += frame(payload, PONG)
            elif opcode != PONG and payload:
                self._take_channel(payload[0], payload[1:])

    def _take_channel(self, channel: int, content: bytes) -> None:
        if channel not in self._begun:
            self._begun.add(channel)  # the port's number
        elif channel == _ERROR:
            raise ConnectionError(content.decode("utf-8", "backslashreplace"))
        elif channel == _DATA:
            self._to_local += content
        else:
            raise NotFrames(f"an unknown channel {channel}")


@contextlib.contextmanager
def forwarded(kube: Kube, pod: Pod, port: int, *, to: Path) -> Iterator[Forward]:
    """Have a port of a pod as the Unix socket `to`, until the end or the cluster's deadline.

    For PostgreSQL `to` is ``DIRECTORY/.s.PGSQL.5432``, and its host is the directory, which
    nobody else may enter.

    Raises:
        NotFound, Forbidden, Refused, Unreachable, DeadlineExceeded: the first connection,
            which is opened at once, could not be had.
        OSError: the socket cannot be made.
    """
    forward = Forward(kube, pod, port)
    ready = forward.open()
    with ready[0], socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(to))
        to.chmod(0o600)
        listener.listen()
        thread = threading.Thread(target=forward.serve, args=(listener, ready), name="forward")
        thread.start()
        try:
            yield forward
        finally:
            forward.stop()
            thread.join()
            to.unlink(missing_ok=True)
