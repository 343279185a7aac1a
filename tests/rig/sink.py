"""A real HTTP server that keeps what it is sent: what ntfy, Gotify or a webhook would see."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.rig.server import HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it came over the wire."""

    method: str
    path: str  #: with the query
    headers: Mapping[str, str]  #: names in lower case
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the sink says to a request."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    drip_s: float = 0.0  #: pause after each byte, headers included; 0: all at once


class Sink:
    """A running sink. `answer`, `hang` and `refuse` change how it treats what comes next."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self.requests: list[Request] = []
        self._judge: Callable[[Request], Answer] = lambda _request: Answer()
        self._changed = threading.Condition()
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._open(0)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def answer(self, status: int, body: bytes = b"{}") -> None:
        """Answer with this status from now on."""
        self.answer_by(lambda _request: Answer(status=status, body=body))

    def answer_by(self, judge: Callable[[Request], Answer]) -> None:
        """Have `judge` say what to answer from now on."""
        self._judge = judge
        self._may_answer.set()

    def hang(self) -> None:
        """Take requests and answer none, until `answer` or the end."""
        self._may_answer.clear()

    def refuse(self) -> None:
        """Close the port: connections are refused until `listen`."""
        self._close()

    def listen(self) -> None:
        """Open the same port again."""
        self._open(self.port)

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Request]:
        """The requests so far, as soon as there are `count`.

        Raises:
            AssertionError: they did not come in `timeout` seconds.
        """
        until = time.monotonic() + timeout
        with self._changed:
            while len(self.requests) < count and time.monotonic() < until:
                self._changed.wait(max(0.0, until - time.monotonic()))
            if len(self.requests) < count:
                raise AssertionError(f"{len(self.requests)} of {count} requests came")
            return list(self.requests)

    def close(self) -> None:
        """End the server; hanging requests are let go."""
        self._may_answer.set()
        self._close()

    def take(self, request: Request) -> Answer:
        """Keep a request and say what to answer."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        self._may_answer.wait()
        return self._judge(request)

    def _open(self, port: int) -> None:
        self._server: _Server | None = _Server((HOST, port), _Handler)
        self._server.sink = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def _close(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    sink: Sink

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(method=self.command, path=self.path, headers=headers, body=body)
        answer = self.server.sink.take(request)
        if answer.drip_s:
            self._drip(answer)
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _drip(self, answer: Answer) -> None:
        head = f"HTTP/1.1 {answer.status} OK\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        for byte in head.encode() + answer.body:
            self.wfile.write(bytes([byte]))
            time.sleep(answer.drip_s)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _take  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The requests are kept; nothing is printed."""


@contextlib.contextmanager
def running() -> Iterator[Sink]:
    """A sink that is closed at the end."""
    sink = Sink()
    try:
        yield sink
    finally:
        sink.close()
