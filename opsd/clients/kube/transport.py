"""One request and its whole answer, in bounded time, whatever the network or the server does.

A deadline holds for every byte, those of the headers included: each read waits for what is left
of it, and never longer than `READ_S`. Connections are kept and used again while they are fresh.
A request that only reads is tried again, with growing pauses or as long as the server asks for;
one that changes something is sent once.

Limits: a name server that hangs is waited for as long as the system's resolver does. In the
cluster and in most kubeconfig files there is an address, which needs none.
"""

from __future__ import annotations

import contextlib
import io
import random
import select
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import structlog

from opsd.clients.kube.answers import Answer, raise_for, unpacked
from opsd.clients.kube.calls import Request
from opsd.clients.kube.cluster import Cluster
from opsd.clients.kube.errors import Refused, Unreachable
from opsd.clients.kube.frames import accept_of, new_key
from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded
from opsd.secrets import redact
from opsd.text import printable

log = structlog.get_logger()

CONNECT_S = 3.0  # TCP, and then again TLS
READ_S = 10.0  # of silence
CALL_S = 60.0  # all tries of one request together
PAUSES_S = (0.2, 1.0, 3.0)  # before each further try; the server may ask for more
FRESH_S = 30.0  # an idle connection older than this may be dead without knowing it
MOST_IDLE = 4
MOST_BYTES = 64 << 20  # of one answer
_PIECE_BYTES = 64 << 10
_COMPRESSED = {"Accept-Encoding": "gzip"}  # lists shrink to a tenth; nodes decrypt slowly


class Transport:
    """Connections to one API server. Threads may share it; nothing is opened before first use."""

    def __init__(
        self, cluster: Callable[[], Cluster], *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.pause = pause
        self._find = cluster
        self._found: Cluster | None = None
        self._lock = threading.Lock()
        self._idle: list[tuple[_Connection, float]] = []
        self._date: tuple[datetime, float] | None = None

    def __del__(self) -> None:
        self.close()

    @property
    def cluster(self) -> Cluster:
        """Where it leads.

        Raises:
            ConfigError: nowhere.
        """
        with self._lock:
            self._found = self._found or self._find()
            return self._found

    def server_time(self) -> datetime | None:
        """The API server's clock now, by its last answer; exact to a second. None: no answer."""
        if self._date is None:
            return None
        date, seen_at = self._date
        return date + timedelta(seconds=time.monotonic() - seen_at)

    def read(self, request: Request, deadline: Deadline) -> bytes:
        """Ask for something, several times if need be; the body of the good answer.

        Raises:
            ConfigError, DeadlineExceeded: as `send`.
            NotFound, Forbidden, Refused, Expired, Unreachable: see there.
        """
        give_up = _at_most(deadline)
        for pause_s in PAUSES_S:
            try:
                return self.send(request, deadline)
            except Unreachable as exc:
                wait_s = max(pause_s * random.uniform(0.5, 1.0), exc.retry_after_s)  # noqa: S311 - spreads load
                if give_up.clock.monotonic() + wait_s >= give_up.at:
                    raise
                log.debug("request.repeated", error=str(exc))
            self.pause(wait_s)
        return self.send(request, deadline)

    def send(self, request: Request, deadline: Deadline) -> bytes:
        """Ask once; again only when the credentials had to be renewed, as nothing was done then.

        Raises:
            ConfigError: there is no cluster, or there are no credentials.
            DeadlineExceeded: the answer was not complete in time.
            NotFound, Forbidden, Conflict, Refused, Expired, Unreachable: see there.
        """
        answer = self._exchange(request, deadline)
        if answer.status == 401 and self.cluster.credentials.renew():  # noqa: PLR2004 - HTTP
            self.close()  # a connection may be bound to the old certificate
            answer = self._exchange(request, deadline)
        raise_for(answer, request.what)
        return answer.body

    @contextlib.contextmanager
    def stream(
        self, request: Request, deadline: Deadline, *, silence_s: float
    ) -> Iterator[Iterator[bytes]]:
        """The lines of an answer that goes on; half a line at its end is dropped.

        Raises:
            as `send`; in the middle of it Unreachable when it falls silent or breaks.
        """
        connection = self._connected(_at_most(deadline), request.what)
        try:
            with self._translated(request.what, deadline):
                response = connection.ask(request, self._headers(request))
                if response.status != 200:  # noqa: PLR2004 - HTTP
                    raise_for(_answer(response), request.what)
            connection.deadline, connection.silence_s = deadline, silence_s
            yield self._lines(response, request.what, deadline)
        finally:
            connection.close()

    def close(self) -> None:
        """Close what is idle; later requests connect anew."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def upgrade(
        self, what: str, path: str, *, protocol: str, deadline: Deadline
    ) -> tuple[socket.socket, bytes]:
        """A connection that goes on as a WebSocket, and what has come of it already.

        Raises:
            as `send`; Refused: the server speaks no such protocol.
        """
        request, key = Request(what=what, path=path), new_key()
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Protocol": protocol,
        }
        connection = self._connected(_at_most(deadline), what)
        try:
            with self._translated(what, deadline):
                response = connection.ask(request, self._headers(request) | headers)
                _expect_websocket(response, key, what)
            return connection.released(response)
        except BaseException:
            connection.close()
            raise

    def _exchange(self, request: Request, deadline: Deadline) -> Answer:
        soon = _at_most(deadline)
        connection = self._kept(soon) or self._connected(soon, request.what)
        is_reusable = False
        try:
            with self._translated(request.what, deadline):
                response = connection.ask(request, self._headers(request) | _COMPRESSED)
                answer = _answer(response)
            self._note_date(response)
            is_reusable = not response.will_close
        finally:
            if is_reusable:
                self._keep(connection)
            else:
                connection.close()
        return answer

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Accept": request.accept, "User-Agent": "opsd"}
        if request.body:
            headers["Content-Type"] = request.content_type
        if authorization := self.cluster.credentials.authorization():
            headers["Authorization"] = authorization
        return headers

    def _lines(self, response: HTTPResponse, what: str, deadline: Deadline) -> Iterator[bytes]:
        pending = b""
        with self._translated(what, deadline):
            while piece := response.read1(_PIECE_BYTES):
                *lines, pending = (pending + piece).split(b"\n")
                yield from (line for line in lines if line)
                if len(pending) > MOST_BYTES:
                    raise Refused(f"{what}: one object is larger than {MOST_BYTES >> 20} MiB")

    def _kept(self, deadline: Deadline) -> _Connection | None:
        with self._lock:
            while self._idle:
                connection, since = self._idle.pop()
                if time.monotonic() - since < FRESH_S and connection.is_alive():
                    connection.deadline = deadline
                    return connection
                connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append((connection, time.monotonic()))
                return
        connection.close()

    def _connected(self, deadline: Deadline, what: str) -> _Connection:
        with self._translated(what, deadline):
            connection = _Connection(self.cluster, deadline)
            try:
                connection.connect()
            except BaseException:
                connection.close()
                raise
        return connection

    def _note_date(self, response: HTTPResponse) -> None:
        with contextlib.suppress(ValueError, TypeError):
            date = parsedate_to_datetime(response.headers["Date"])
            self._date = date, time.monotonic()

    @contextlib.contextmanager
    def _translated(self, what: str, deadline: Deadline) -> Iterator[None]:
        """Say in opsd's words what the network did."""
        where = f"{what}: {self.cluster.url}"
        try:
            yield
        except (DeadlineExceeded, TimeoutError) as exc:
            if deadline.at <= deadline.clock.monotonic():
                raise DeadlineExceeded(f"{what}: no answer before the deadline") from exc
            raise Unreachable(f"{where}: no answer in time") from exc
        except ssl.SSLCertVerificationError as exc:
            reason = f"its certificate is not trusted: {exc.verify_message}"
            raise Refused(f"{where}: {reason}; check the certificate authority") from exc
        except OSError as exc:
            raise Unreachable(f"{where}: {_reason(exc)}") from exc
        except (HTTPException, ValueError) as exc:
            raise Unreachable(f"{where}: broken off, or not HTTP: {_reason(exc)}") from exc


class _Connection(HTTPConnection):
    """One connection; every wait ends with the deadline that is set on it."""

    def __init__(self, cluster: Cluster, deadline: Deadline) -> None:
        target, proxy = urlsplit(cluster.url), urlsplit(cluster.proxy)
        self.deadline = deadline
        self.silence_s = READ_S
        self._path = target.path.rstrip("/")
        self._tls = cluster.tls() if target.scheme == "https" else None
        self._name = cluster.server_name or target.hostname or ""
        port = target.port or (443 if self._tls else 80)
        first = proxy if cluster.proxy else target
        super().__init__(first.hostname or "", first.port or port, timeout=self.wait_s(CONNECT_S))
        if cluster.proxy:
            self.set_tunnel(target.hostname or "", port, headers=_proxy_login(cluster.proxy))

    def connect(self) -> None:
        """Connect, through the proxy if there is one, and begin TLS."""
        super().connect()
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)

    def ask(self, request: Request, headers: dict[str, str]) -> HTTPResponse:
        """Send the request and read the head of the answer."""
        self.silence_s = READ_S
        self.sock.settimeout(self.wait_s())
        self.request(
            request.method, self._path + request.path, body=request.body or None, headers=headers
        )
        return self.getresponse()

    def is_alive(self) -> bool:
        """Whether the server neither closed it nor sent what nobody asked for."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return not poller.poll(0)

    def released(self, response: HTTPResponse) -> tuple[socket.socket, bytes]:
        """The bare socket, after the head of an answer, and what was read beyond that head."""
        self.silence_s = 0.0
        begun = b""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
            begun = response.fp.peek()
        response.close()  # of what it read with; the socket stays open
        sock, self.sock = self.sock, None
        return cast("socket.socket", sock), begun

    def wait_s(self, limit_s: float | None = None) -> float:
        """How long to wait for the next byte.

        Raises:
            DeadlineExceeded: no longer.
        """
        return min(self.silence_s if limit_s is None else limit_s, self.deadline.remaining())

    # Called by the base class like the class that it replaces.
    def response_class(self, sock: socket.socket, **more: Any) -> HTTPResponse:  # type: ignore[override]
        """What answers are read with."""
        return HTTPResponse(cast("socket.socket", _Patient(sock, self.wait_s)), **more)


class _Patient(io.RawIOBase):
    """A socket to read from, each time for as long as there is time."""

    def __init__(self, sock: socket.socket, wait_s: Callable[[], float]) -> None:
        self._sock, self._wait_s = sock, wait_s
        self._waited_s = -1.0
        self._held = sock.makefile("rb", buffering=0)  # so that the socket outlives a close()

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What the response reads from."""
        return io.BufferedReader(self, _PIECE_BYTES)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        """Read once. Long answers come in thousands of pieces: nothing is done in vain here."""
        wait_s = self._wait_s()
        if wait_s != self._waited_s:
            self._sock.settimeout(wait_s)
            self._waited_s = wait_s
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._held.close()
        super().close()


def _answer(response: HTTPResponse) -> Answer:
    body = response.read(MOST_BYTES + 1)
    is_whole = not response.length
    if response.headers.get("Content-Encoding") == "gzip":
        body, ends_well = unpacked(body, MOST_BYTES + 1)
        is_whole = is_whole and ends_well
    return Answer(
        status=response.status,
        body=body,
        content_type=response.headers.get("Content-Type", ""),
        retry_after=response.headers.get("Retry-After", ""),
        is_whole=is_whole and len(body) <= MOST_BYTES,
    )


def _expect_websocket(response: HTTPResponse, key: str, what: str) -> None:
    if response.status != 101:  # noqa: PLR2004 - HTTP
        raise_for(_answer(response), what)
    if response.headers.get("Sec-WebSocket-Accept") != accept_of(key):
        raise Refused(f"{what}: the server does not speak WebSocket")


def _at_most(deadline: Deadline) -> Deadline:
    """The deadline, or that of one call if it is earlier."""
    return Deadline(deadline.clock, min(deadline.at, deadline.clock.monotonic() + CALL_S))


def _proxy_login(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(login.encode()).decode()}


def _reason(exc: Exception) -> str:
    said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
    return printable(redact(said)) or type(exc).__name__
