"""Call a URL that may hang, drip, redirect or be somebody else's, and never wait for long.

Made for services that watch opsd. One deadline holds for all of it: the name, the
connection, every redirect and every byte of the answer, however slowly they come. Whoever
knows such a URL can silence the alarm, so no part of it is shown; errors name what was
called instead.

Limits: no proxy, no cookies, no connection is used twice. A name server that hangs keeps a
thread until it answers; the caller does not wait for it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.parse import SplitResult, urljoin, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from opsd.errors import ConfigError, DeadlineExceeded, OpsdError, PermanentError, TransientError
from opsd.secrets import conceal_url, redact
from opsd.text import printable, shortened

CONNECT_TIMEOUT_S = 5.0
MOST_REDIRECTS = 3
_ANSWER_BYTES = 1 << 10  # of the body: enough for what such services say
_REASON_CHARACTERS = 200
_REDIRECTS = (301, 302, 303, 307, 308)
_MAY_PASS = (408, 425, 429)  # besides everything from 500 on


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked of a server."""

    url: str  #: http or https; a secret
    body: bytes | None = None  #: with one it is a POST, without a GET
    headers: Mapping[str, str] = field(default_factory=dict)


def call(request: Call, *, what: str, timeout_s: float) -> str:
    """Make the call and return the first kilobyte of a good answer (2xx), printable.

    Args:
        request: what to ask.
        what: how errors name it, such as ``heartbeat (env:OPSD_HEARTBEAT_URL)``.
        timeout_s: for everything together.

    Raises:
        ConfigError: this is no URL of a server.
        DeadlineExceeded: the answer was not complete in time.
        TransientError: not reached, or the server has trouble (5xx, 429).
        PermanentError: the server refuses (4xx), redirects elsewhere, or is not trusted.
    """
    exchange = _Exchange(request, what=what)
    worker = threading.Thread(target=exchange.run, name="http", daemon=True)
    worker.start()
    worker.join(timeout_s)
    if worker.is_alive():
        exchange.cut()
        raise DeadlineExceeded(f"{what}: no answer within {timeout_s:.0f} s")
    if exchange.error is not None:
        raise exchange.error
    return exchange.answer


class _Exchange:
    """One call with its redirects, in a thread that the caller may leave behind."""

    def __init__(self, request: Call, *, what: str) -> None:
        self.answer = ""
        self.error: OpsdError | None = None
        self._request = request
        self._what = what
        self._connection: HTTPConnection | None = None
        self._is_cut = False

    def run(self) -> None:
        try:
            self.answer = self._follow()
        except OpsdError as exc:
            self.error = exc
        except ssl.SSLCertVerificationError as exc:
            self.error = PermanentError(f"{self._what}: {_reason(exc)}")
        except (HTTPError, OSError) as exc:
            self.error = TransientError(f"{self._what}: {_reason(exc)}")
        except (HTTPException, ValueError) as exc:
            self.error = TransientError(f"{self._what}: not HTTP: {type(exc).__name__}")
        finally:
            self._close()

    def cut(self) -> None:
        """End the connection under the thread that waits for it."""
        self._is_cut = True
        sock = self._connection.sock if self._connection else None
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own: that would wait

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()

    def _follow(self) -> str:
        url = self._request.url
        conceal_url(url, slugs=True)
        for _ in range(MOST_REDIRECTS + 1):
            status, answer, location = self._ask(url)
            if status not in _REDIRECTS:
                return self._judged(status, answer)
            url = self._redirected(url, location)
        raise PermanentError(f"{self._what}: more than {MOST_REDIRECTS} redirects")

    def _ask(self, url: str) -> tuple[int, str, str]:
        """Status, beginning of the body, and where else to go."""
        parts = self._parts(url)
        connection = self._connected(parts)
        connection.request(
            "GET" if self._request.body is None else "POST",
            parts._replace(scheme="", netloc="", path=parts.path or "/", fragment="").geturl(),
            body=self._request.body,
            headers={"User-Agent": "opsd", **self._request.headers},
            preload_content=False,
        )
        response = connection.getresponse()
        body = response.read(_ANSWER_BYTES)
        return response.status, _text(body), response.headers.get("Location", "")

    def _connected(self, parts: SplitResult) -> HTTPConnection:
        self._close()
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)
        self._connection.connect()
        if self._is_cut:
            raise TransientError(f"{self._what}: given up")
        self._connection.sock.settimeout(None)  # the deadline of all holds for the rest
        return self._connection

    def _parts(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            url.encode("ascii")
        except ValueError:
            known = False
        if not known:
            raise ConfigError(f"{self._what}: this is no URL of the form https://host/path")
        return parts

    def _redirected(self, url: str, location: str) -> str:
        before, after = self._parts(url), self._parts(urljoin(url, location))
        if after.hostname != before.hostname or (before.scheme, after.scheme) == ("https", "http"):
            raise PermanentError(
                f"{self._what}: it redirects to {printable(after.scheme)}://{after.hostname}, "
                "which is not followed; set the URL that it means"
            )
        conceal_url(after.geturl(), slugs=True)
        return after.geturl()

    def _judged(self, status: int, answer: str) -> str:
        if 200 <= status < 300:  # noqa: PLR2004 - HTTP
            return answer
        kind = TransientError if status >= 500 or status in _MAY_PASS else PermanentError  # noqa: PLR2004 - HTTP
        said = f": {shortened(answer, _REASON_CHARACTERS)}" if answer else ""
        raise kind(f"{self._what}: the server answered {status}{said}")


def _text(body: bytes) -> str:
    return printable(redact(body.decode("utf-8", "backslashreplace")))


def _reason(exc: Exception) -> str:
    """What went wrong, without the library's names for its own objects."""
    said = re.sub(r"^<?\w*Connection\(.*?\)[^:]*: ", "", str(exc))
    return shortened(printable(redact(said)), _REASON_CHARACTERS) or type(exc).__name__
