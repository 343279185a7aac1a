"""A proxy in front of the S3 server that breaks chosen requests as networks and servers do.

It passes the bytes of a request on unchanged, so that signatures stay valid.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

HOST = "127.0.0.1"
Way = Literal["refuse", "lose_reply", "hang", "cut", "flip", "answer_html"]


@dataclass(kw_only=True)
class Fault:
    """What happens to matching requests."""

    method: str
    path: str = ""  #: a part of path and query, e.g. ``uploadId=``
    header: str = ""  #: only requests that carry this header
    way: Way
    status: int = 503
    code: str = "SlowDown"
    times: int = 1_000_000  #: for how many requests
    keep_bytes: int = 0  #: of the body, when it is cut

    def hits(self, request: BaseHTTPRequestHandler) -> bool:
        """Whether `request` is broken; counts down."""
        matches = (
            self.times > 0
            and request.command == self.method
            and self.path in request.path
            and (not self.header or self.header in request.headers)
        )
        self.times -= matches
        return matches


@dataclass(kw_only=True)
class S3Faults:
    """The proxy: add to `faults` while it runs."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)  #: (method, path) of requests


@contextlib.contextmanager
def running(upstream_port: int) -> Iterator[S3Faults]:
    """A proxy for the S3 server on `upstream_port`."""
    proxy = S3Faults(endpoint="")
    released = threading.Event()
    bound = {"proxy": proxy, "upstream_port": upstream_port, "released": released}
    server = ThreadingHTTPServer((HOST, 0), type("Handler", (_Handler,), bound))
    server.daemon_threads = True
    proxy.endpoint = f"http://{HOST}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: S3Faults
    upstream_port: int
    released: threading.Event
    lock = threading.Lock()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            self.proxy.seen.append((self.command, self.path))
            fault = next((one for one in self.proxy.faults if one.hits(self)), None)
        way = fault.way if fault else ""
        if fault and way == "refuse":
            self.refuse(fault)
        elif way == "answer_html":
            self.reply(200, [("Content-Type", "text/html")], b"<html><body>hello <b>you</html>")
        elif way == "hang":
            self.released.wait()
            self.close_connection = True
        else:
            status, headers, content = self.pass_on(_flipped(body) if way == "flip" else body)
            if way == "lose_reply":
                self.close_connection = True
            else:
                cut = fault.keep_bytes if fault and way == "cut" else None
                self.reply(status, headers, content, keep=cut)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay  # noqa: N815 - http.server's names

    def pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(HOST, self.upstream_port, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            upstream.close()

    def refuse(self, fault: Fault) -> None:
        xml = f"<Error><Code>{fault.code}</Code><Message>on purpose</Message></Error>"
        self.reply(fault.status, [("Content-Type", "application/xml")], xml.encode())

    def reply(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        *,
        keep: int | None = None,
    ) -> None:
        self.send_response_only(status)
        length = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:keep])
        if keep is not None:
            self.close_connection = True


def _flipped(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:] if body else body
