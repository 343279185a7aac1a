"""A TCP proxy that treats connections as a bad network does.

It stands in front of any server. Its fault can be changed while it runs: every chunk that
passes asks for the present one, so running connections are hit too. A fault with a limited
number of `times` is spent when it struck that often; what comes later passes.

Limits: bytes are counted for each connection and direction by itself, from its start.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.rig.server import HOST, free_port

CHUNK_BYTES = 64 << 10
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST instead of FIN
NO_ADDRESS = bytes(16)  # a sockaddr of the family AF_UNSPEC
_libc = ctypes.CDLL(None, use_errno=True)


class Kind(enum.Enum):
    """What a bad network does."""

    PASS = enum.auto()  #: nothing; the proxy is a wire
    REFUSE = enum.auto()  #: connecting fails at once; running connections are reset
    BLACKHOLE = enum.auto()  #: accepts, swallows everything, never reaches the server
    MUTE = enum.auto()  #: the server gets everything, the client gets nothing back
    RESET = enum.auto()  #: RST to both sides after `after_bytes`
    CUT = enum.auto()  #: orderly end to both sides after `after_bytes`
    STALL = enum.auto()  #: nothing passes any more after `after_bytes`, and nothing ends
    DELAY = enum.auto()  #: every chunk waits `seconds`
    THROTTLE = enum.auto()  #: at most `bytes_per_s`
    CORRUPT = enum.auto()  #: one bit of the byte at offset `after_bytes` is flipped
    LOSE_REPLY = enum.auto()  #: a request with `pattern` is carried out; its reply is lost


class Way(enum.Enum):
    """A direction of a connection."""

    TO_SERVER = enum.auto()
    TO_CLIENT = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault; the fields that its kind does not name are without meaning."""

    kind: Kind
    way: Way = Way.TO_SERVER  #: for RESET, CUT, STALL, CORRUPT, DELAY, THROTTLE
    after_bytes: int = 0
    seconds: float = 0.0
    bytes_per_s: int = 0
    pattern: bytes = b""  #: regular expression, searched in what the client sent
    times: int | None = None  #: how often it strikes; None: always


PASS = Fault(kind=Kind.PASS)
REFUSE = Fault(kind=Kind.REFUSE)
BLACKHOLE = Fault(kind=Kind.BLACKHOLE)
MUTE = Fault(kind=Kind.MUTE)


class Proxy:
    """A running proxy; `set` its fault at any time."""

    host = HOST

    def __init__(self, server_port: int, *, server_host: str = HOST) -> None:
        """Listen on a free port, forward to the server."""
        self.server = (server_host, server_port)
        self.port = free_port()
        self.connections = 0  #: accepted so far
        self.struck = 0  #: how often a fault hit
        self._fault = PASS
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def fault(self) -> Fault:
        """The fault that is in force."""
        return self._fault

    def set(self, fault: Fault) -> None:
        """Change the fault, for new and running connections."""
        self._fault = fault
        self._left = fault.times
        if fault.kind is Kind.REFUSE:
            self.close()
        elif self._listener is None:
            self._listen()

    def strike(self, fault: Fault) -> bool:
        """Whether the fault hits now; counts it, and ends one that is spent."""
        with self._lock:
            if self._fault is not fault:
                return False
            self.struck += 1
            if self._left is not None:
                self._left -= 1
                if self._left <= 0:
                    self._fault = PASS
            return True

    def close(self) -> None:
        """Stop listening and reset what is connected."""
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            self._acceptor.join()
        with self._lock:
            still_open = tuple(self._open)
        for connection in still_open:
            connection.reset()

    def closed(self, connection: _Connection) -> None:
        """Forget a connection that ended."""
        with self._lock:
            self._open.discard(connection)

    def _listen(self) -> None:
        listener = socket.create_server((HOST, self.port), backlog=128)
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.connections += 1
                connection = _Connection(self, client)
                with self._lock:
                    self._open.add(connection)
                connection.start()


class _Connection:
    """Two sockets and a thread for each direction between them."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._passed = {Way.TO_SERVER: 0, Way.TO_CLIENT: 0}
        self._sent = bytearray()  # what the client sent lately, for LOSE_REPLY
        self._losing: Fault | None = None
        self._over = False  # broken on purpose: nobody else may end it in another way

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def reset(self) -> None:
        """RST to both sides."""
        self._over = True
        for side in self._sides():
            _reset(side)

    def _end(self) -> None:
        """FIN to both sides."""
        self._over = True
        for side in self._sides():
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _sides(self) -> tuple[socket.socket, ...]:
        return (self._client, self._server) if self._server else (self._client,)

    def _run(self) -> None:
        fault = self._proxy.fault
        if fault.kind is Kind.BLACKHOLE and self._proxy.strike(fault):
            _swallow(self._client)
        else:
            self._connect()
        for side in self._sides():
            side.close()
        self._proxy.closed(self)

    def _connect(self) -> None:
        try:
            server = socket.create_connection(self._proxy.server, timeout=10)
        except OSError:
            self.reset()
            return
        server.settimeout(None)
        self._server = server
        for side in (self._client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(
            target=self._pump, args=(server, self._client, Way.TO_CLIENT), daemon=True
        )
        back.start()
        self._pump(self._client, server, Way.TO_SERVER)
        back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        with contextlib.suppress(OSError, _Ended):
            while chunk := source.recv(CHUNK_BYTES):
                self._forward(chunk, sink, way)
        if not self._over:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)  # a half-closed connection stays half open

    def _forward(self, chunk: bytes, sink: socket.socket, way: Way) -> None:
        fault = self._proxy.fault
        before = self._passed[way]
        self._passed[way] += len(chunk)
        if way is Way.TO_CLIENT:
            self._withhold(fault)
        elif fault.kind is Kind.LOSE_REPLY:
            self._watch(chunk, fault)
        if fault.way is way:
            chunk = self._spoil(chunk, sink, before=before, fault=fault)
        sink.sendall(chunk)

    def _withhold(self, fault: Fault) -> None:
        """Keep a reply from the client: for good, or by an end of the connection."""
        if self._losing and self._proxy.strike(self._losing):
            self.reset()
            raise _Ended
        if fault.kind is Kind.MUTE and self._server and self._proxy.strike(fault):
            _swallow(self._server)
            raise _Ended

    def _watch(self, chunk: bytes, fault: Fault) -> None:
        self._sent = (self._sent + chunk)[-CHUNK_BYTES:]
        if re.search(fault.pattern, self._sent):
            self._losing = fault

    def _spoil(self, chunk: bytes, sink: socket.socket, *, before: int, fault: Fault) -> bytes:
        place = fault.after_bytes - before
        match fault.kind:
            case Kind.RESET | Kind.CUT if place < len(chunk) and self._proxy.strike(fault):
                self._break(chunk[: max(0, place)], sink, fault=fault)
            case Kind.STALL if place < len(chunk) and self._proxy.strike(fault):
                sink.sendall(chunk[: max(0, place)])
                self._over = True
                raise _Ended
            case Kind.CORRUPT if 0 <= place < len(chunk) and self._proxy.strike(fault):
                return chunk[:place] + bytes([chunk[place] ^ 1]) + chunk[place + 1 :]
            case Kind.DELAY if self._proxy.strike(fault):
                time.sleep(fault.seconds)
            case Kind.THROTTLE if self._proxy.strike(fault):
                time.sleep(len(chunk) / fault.bytes_per_s)
        return chunk

    def _break(self, last: bytes, sink: socket.socket, *, fault: Fault) -> None:
        sink.sendall(last)
        if fault.kind is Kind.RESET:
            self.reset()
        else:
            self._end()
        raise _Ended


class _Ended(Exception):
    """The connection is over."""


def _swallow(source: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while source.recv(CHUNK_BYTES):
            pass


def _reset(side: socket.socket) -> None:
    """Send RST now, although another thread may wait in recv(): connect() to no address does."""
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if _libc.connect(side.fileno(), NO_ADDRESS, len(NO_ADDRESS)) != 0:
            side.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def in_front_of(server_port: int) -> Iterator[Proxy]:
    """A proxy to a server on this machine."""
    proxy = Proxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
