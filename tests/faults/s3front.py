"""An S3 server that fails as S3 servers fail: a front that forwards, except when told not to.

It passes requests through unchanged, the Host header included: clients sign for the front's
address, and the server behind checks the signature against the header that it got.

Limits: plain HTTP only; one fault for each rule, rules are asked in order.
"""

from __future__ import annotations

import contextlib
import enum
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.faults.proxy import RESET_ON_CLOSE
from tests.rig.server import HOST

CHUNK_BYTES = 64 << 10
HOP_BY_HOP = {"connection", "expect", "keep-alive"}
ANSWER_S = 60


class Action(enum.Enum):
    """How a request fails on its way to the server, or its answer on the way back."""

    HANG = enum.auto()  #: take the request, never answer
    CUT_REQUEST = enum.auto()  #: the connection breaks half-way through the body
    CORRUPT_REQUEST = enum.auto()  #: one bit in the middle of the body is wrong
    LOSE_REPLY = enum.auto()  #: carried out; the connection breaks before the answer
    CUT_REPLY = enum.auto()  #: the connection ends within the answer, after what it said so far
    CORRUPT_REPLY = enum.auto()  #: one bit in the middle of the answer is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the front says by itself; the server never sees the request."""

    status: int
    content_type: str
    body: str


def error(status: int, code: str) -> Answer:
    """An S3 error, with the server's word for it."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{code}</Code><Message>{code} on purpose</Message></Error>"
    )
    return Answer(status=status, content_type="application/xml", body=body)


INTERNAL_ERROR = error(500, "InternalError")
SLOW_DOWN = error(503, "SlowDown")
TIME_SKEWED = error(403, "RequestTimeTooSkewed")
ACCESS_DENIED = error(403, "AccessDenied")
NOT_IMPLEMENTED = error(501, "NotImplemented")
OK_WITH_ERROR = error(200, "InternalError")  #: S3 does this when it completes an upload
WEB_PAGE = Answer(status=200, content_type="text/html", body="<html><body>hello <b>you</html>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which requests fail, and how."""

    action: Action | Answer
    method: str = ".*"  #: regular expression for the whole method
    target: str = ""  #: regular expression, searched in path and query
    header: str = ""  #: only requests with this header
    nth: int = 1  #: the first of the matching requests that fails, counted from 1
    times: int = 1_000_000  #: how many fail from there on
    keep_bytes: int | None = None  #: of an answer's body that is cut; None: half of it

    def matches(self, request: BaseHTTPRequestHandler) -> bool:
        """Whether the rule is about such a request."""
        return (
            re.fullmatch(self.method, request.command) is not None
            and re.search(self.target, request.path) is not None
            and (not self.header or self.header in request.headers)
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """One request that came, and the status that was answered; 0 when none was."""

    method: str
    target: str
    status: int


class S3Front:
    """A running front; give it `rules` at any time."""

    def __init__(self, server_port: int) -> None:
        """Listen on a free port in front of the server on this machine."""
        self.server_port = server_port
        self.seen: list[Seen] = []  #: in the order in which they ended
        self.struck = 0  #: how many requests failed on purpose
        self.over = threading.Event()
        self._rules: dict[Rule, int] = {}
        self._lock = threading.Lock()
        self._server = _Server((HOST, 0), _Handler)
        self._server.front = self
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def fail(self, *rules: Rule) -> None:
        """Replace the rules; without any, everything passes."""
        with self._lock:
            self._rules = dict.fromkeys(rules, 0)

    def rule_for(self, request: BaseHTTPRequestHandler) -> Rule | None:
        """Count the request against the rules that match it; the first that strikes wins."""
        with self._lock:
            for rule in self._rules:
                if rule.matches(request):
                    self._rules[rule] += 1
                    if rule.nth <= self._rules[rule] < rule.nth + rule.times:
                        self.struck += 1
                        return rule
        return None

    def close(self) -> None:
        """End the front; hanging requests are let go."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    front: S3Front

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        rule = self.server.front.rule_for(self)
        match rule.action if rule else None:
            case Answer() as answer:
                self._drain()
                self._answer(answer)
            case Action.HANG:
                self._drain()
                self._note(0)
                self.server.front.over.wait()
                self._break()
            case _:
                self._forward(rule)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _note(self, status: int) -> None:
        """Keep what came, before the client can know that it was answered."""
        self.server.front.seen.append(Seen(self.command, self.path, status))

    def _forward(self, rule: Rule | None) -> None:
        action = rule.action if rule else None
        server = HTTPConnection(HOST, self.server.front.server_port, timeout=ANSWER_S)
        with contextlib.closing(server):
            self._send(server, action)
            if action is not Action.CUT_REQUEST:
                reply = server.getresponse()
                if action is not Action.LOSE_REPLY:
                    self._pass_back(reply, rule)
                    return
                reply.read()
        self._note(0)
        self._break()

    def _send(self, server: HTTPConnection, action: Action | Answer | None) -> None:
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in HOP_BY_HOP:
                server.putheader(name, value)
        server.endheaders()
        if action is Action.CORRUPT_REQUEST:
            server.send(with_wrong_bit(b"".join(self._body())))
            return
        half = self._length() // 2 if action is Action.CUT_REQUEST else None
        for chunk in self._body(limit=half):
            server.send(chunk)

    def _pass_back(self, reply: HTTPResponse, rule: Rule | None) -> None:
        self._note(reply.status)
        self.send_response_only(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in HOP_BY_HOP | {"transfer-encoding"}:
                self.send_header(name, value)
        body = b"" if self.command == "HEAD" else reply.read()
        if reply.getheader("Content-Length") is None and reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(self._spoiled(body, rule))

    def _spoiled(self, body: bytes, rule: Rule | None) -> bytes:
        """What the client gets of an answer."""
        if rule and rule.action is Action.CORRUPT_REPLY:
            return with_wrong_bit(body)
        if rule and rule.action is Action.CUT_REPLY:
            self.close_connection = True
            return body[: len(body) // 2 if rule.keep_bytes is None else rule.keep_bytes]
        return body

    def _answer(self, answer: Answer) -> None:
        self._note(answer.status)
        body = answer.body.encode()
        self.send_response_only(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _break(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.close_connection = True
        self.server.close_request(self.connection)

    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _drain(self) -> None:
        for _ in self._body():
            pass

    def _body(self, *, limit: int | None = None) -> Iterator[bytes]:
        """The body as it came; chunked bodies keep their frames."""
        if limit is None and self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            yield from self._frames()
            return
        left = self._length() if limit is None else limit
        while left and (chunk := self.rfile.read(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk

    def _frames(self) -> Iterator[bytes]:
        while True:
            size = self.rfile.readline()
            yield size
            count = int(size.split(b";")[0], 16)
            if count == 0:
                break
            yield self.rfile.read(count + 2)
        while (trailer := self.rfile.readline()) not in (b"\r\n", b""):
            yield trailer
        yield b"\r\n"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """What came is in `seen`; nothing is printed."""


def with_wrong_bit(body: bytes) -> bytes:
    """The same bytes with one bit in the middle wrong; of nothing, nothing."""
    middle = len(body) // 2
    return (
        body[:middle] + bytes(byte ^ 1 for byte in body[middle : middle + 1]) + body[middle + 1 :]
    )


@contextlib.contextmanager
def in_front_of(server_port: int) -> Iterator[S3Front]:
    """A front that is closed at the end."""
    front = S3Front(server_port)
    try:
        yield front
    finally:
        front.close()
