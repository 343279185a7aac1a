"""One question to an etcd member over HTTP and TLS, and every way in which it can fail."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Self

import msgspec

from opsd.clients.etcd.answers import Failure
from opsd.clock import Deadline
from opsd.errors import ConfigError, OpsdError, PermanentError, TransientError
from opsd.secrets import redact
from opsd.text import printable, shortened

CONNECT_S = 5.0
READ_S = 30.0  # of silence; a member without a leader gives up after 5 to 12 s by itself
_MOST_BYTES = 16 << 20  # of one answer, or of one piece of a snapshot
_PIECE_BYTES = 256 << 10
_SAID_CHARACTERS = 200
_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError)
_MAY_PASS = (4, 8, 10, 14)  # gRPC: deadline exceeded, resource exhausted, aborted, unavailable


class NotEtcd(PermanentError):
    """Something answers, and it is no etcd that opsd can ask."""


class CertificateRefused(PermanentError):
    """The member does not believe opsd, or opsd does not believe the member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What opsd shows to a member, and by what it knows that one; PEM texts, in memory only."""

    authority: str  #: of etcd, not of Kubernetes: ``pki/etcd/ca.crt``
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a member listens, as the machine sees it from which it is asked."""

    name: str  #: for people: ``etcd on rpi1``
    host: str = "127.0.0.1"
    port: int = 2379
    identity: Identity | None = None  #: None: plain HTTP
    unix_socket: str = ""  #: path; it listens there, instead of at host and port
    dial: Callable[[str, int], socket.socket] | None = None  #: connects; None: directly


class Exchange:
    """One question and its answer. A context manager; errors come out translated."""

    def __init__(
        self,
        endpoint: Endpoint,
        tls: ssl.SSLContext | None,
        *,
        what: str,
        path: str,
        body: bytes,
        deadline: Deadline,
    ) -> None:
        self.what = what
        self._endpoint, self._tls = endpoint, tls
        self._path, self._body = path, body
        self._deadline = deadline
        self._connection = HTTPConnection(endpoint.host, endpoint.port)
        self._answer: HTTPResponse | None = None

    def __enter__(self) -> Self:
        try:
            self._send()
        except BaseException as exc:
            self._connection.close()
            self._translate(exc)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def whole(self) -> bytes:
        """The body of the answer."""
        return b"".join(self._body_of(_MOST_BYTES))

    def lines(self) -> Iterator[bytes]:
        """The lines of the answer's body as they come."""
        rest = b""
        for piece in self._body_of(None):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            if len(rest) > _MOST_BYTES:
                raise NotEtcd(f"{self.what}: a line of more than {_MOST_BYTES} bytes came")
        if rest:
            yield rest

    def _send(self) -> None:
        connected = _connected(self._endpoint, self._wait_s(CONNECT_S))
        connected.settimeout(self._wait_s(CONNECT_S))
        self._connection.sock = connected  # closed with the connection from now on
        if self._tls:
            self._connection.sock = self._tls.wrap_socket(
                connected, server_hostname=self._endpoint.host
            )
        self._connection.sock.settimeout(self._wait_s(READ_S))
        self._connection.request(
            "POST", self._path, body=self._body, headers={"Content-Type": "application/json"}
        )
        self._answer = self._connection.getresponse()
        if self._answer.status != 200:  # noqa: PLR2004 - HTTP
            raise self._refusal(self._answer.status)

    def _body_of(self, limit_bytes: int | None) -> Iterator[bytes]:
        """Pieces of the body; the connection's errors are translated here."""
        answer, received = self._answer, 0
        while answer is not None:
            try:
                self._connection.sock.settimeout(self._wait_s(READ_S))
                piece = answer.read1(_PIECE_BYTES)
            except (OSError, HTTPException) as exc:
                self._translate(exc)
                raise
            if not piece:
                return
            received += len(piece)
            if limit_bytes is not None and received > limit_bytes:
                raise NotEtcd(f"{self.what}: more than {limit_bytes} bytes came")
            yield piece

    def _wait_s(self, longest_s: float) -> float:
        return min(longest_s, self._deadline.remaining())

    def _refusal(self, status: int) -> OpsdError:
        raw = self.whole()
        if status == 404:  # noqa: PLR2004 - HTTP
            hint = "is it started with --enable-grpc-gateway=false, or is it no etcd?"
            return NotEtcd(f"{self.what}: it has no such page ({status}); {hint}")
        try:
            failure = msgspec.json.decode(raw, type=Failure)
        except msgspec.DecodeError:
            failure = Failure(message=raw.decode("utf-8", "backslashreplace"))
        text = f"{self.what}: {said(failure)} ({status})"
        may_pass = failure.code in _MAY_PASS or status >= 500  # noqa: PLR2004 - HTTP
        return TransientError(text) if may_pass else PermanentError(text)

    def _translate(self, exc: BaseException) -> None:
        """Raise what `exc` means; return when it is not of the network."""
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        if isinstance(exc, ssl.SSLCertVerificationError):
            text = f"its certificate is not of the authority given ({exc.verify_message})"
            raise CertificateRefused(f"{self.what}: {text}") from exc
        if isinstance(exc, ssl.SSLError) and _is_alert(exc):
            text = f"it refuses the certificate that opsd shows ({exc.reason})"
            raise CertificateRefused(f"{self.what}: {text}") from exc
        if isinstance(exc, ssl.SSLError) and "WRONG_VERSION" in str(exc):
            raise NotEtcd(f"{self.what}: {where} does not speak TLS; is it http?") from exc
        if isinstance(exc, TimeoutError):
            self._deadline.remaining()
            raise TransientError(f"{self.what}: {where} fell silent for {READ_S:.0f} s") from exc
        if isinstance(exc, _HUNG_UP) and self._answer is None:
            # With TLS 1.3 a client is refused after it believes to be in; the reason may get lost.
            text = "it hung up; is it https, and does it know the certificate that opsd shows?"
            raise TransientError(f"{self.what}: {where}: {text}") from exc
        if isinstance(exc, OSError | HTTPException):
            said = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            reason = printable(redact(said)) or type(exc).__name__
            text = shortened(reason, _SAID_CHARACTERS)
            raise TransientError(f"{self.what}: {where}: {text}") from exc


def _connected(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    if endpoint.dial:
        return endpoint.dial(endpoint.host, endpoint.port)
    if not endpoint.unix_socket:
        return socket.create_connection((endpoint.host, endpoint.port), timeout_s)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(timeout_s)
        found.connect(endpoint.unix_socket)
    except BaseException:
        found.close()
        raise
    return found


def context_of(endpoint: Endpoint) -> ssl.SSLContext:
    """What the endpoint's identity says, for the TLS library.

    Raises:
        ConfigError: it is no certificate and its key.
    """
    identity = endpoint.identity
    assert identity is not None  # noqa: S101 - for the types
    try:
        context = ssl.create_default_context(cadata=identity.authority)
        with _in_memory(identity.certificate + "\n" + identity.key) as path:
            context.load_cert_chain(path)
    except (ssl.SSLError, ValueError, OSError) as exc:
        raise ConfigError(
            f"{endpoint.name}: its authority, certificate or key is no PEM, or certificate and"
            f" key do not belong together ({exc})"
        ) from exc
    return context


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A file that is nowhere on disk: the TLS library reads a key from files only."""
    descriptor = os.memfd_create("opsd-etcd", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "w") as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _is_alert(exc: ssl.SSLError) -> bool:
    reason = str(exc.reason or exc)
    return "ALERT" in reason and ("CERT" in reason or "UNKNOWN_CA" in reason)


def said(failure: Failure) -> str:
    """The reason that it gives, for an error."""
    text = failure.message or str(failure.error) or "no reason given"
    return shortened(printable(redact(text)), _SAID_CHARACTERS)
