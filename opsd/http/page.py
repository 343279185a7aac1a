"""The status page for browsers: made by a child, kept for a while, and shown only to those meant.

A child makes it, because it reads every repository, which loads what the daemon does without. A
page that is asked for again soon is the same one. It says itself how old it is.

A browser can be talked into asking for another site's page under a name that leads here. So a
name in a request has to be one that is expected; an address always is.

Limits: whoever comes while the first page is being made is asked to come again.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
import threading
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from http import HTTPStatus

from opsd.clock import Clock
from opsd.errors import OpsdError
from opsd.http.app import Answer
from opsd.secrets import describe

FRESH_S = 30.0  # a page that is younger is shown again
PATIENCE_S = 8.0  # for a fresher page, when there is an old one
FIRST_S = 60.0  # for the first
HTML = "text/html; charset=utf-8"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]+)?")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_POLICY = (
    "default-src 'none'; img-src data:; style-src {style}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Page:
    """One page, made again when somebody wants it and it is old."""

    def __init__(self, make: Callable[[], str], *, clock: Clock) -> None:
        """`make` returns the HTML, or raises an OpsdError."""
        self._make = make
        self._clock = clock
        self._kept: Answer | None = None
        self._made_at = 0.0  # monotonic
        self._error = ""
        self._lock = threading.Lock()
        self._waiting = threading.Lock()
        self._made = threading.Event()
        self._maker: threading.Thread | None = None

    def answer(self) -> Answer:
        """``/``; waits for a fresh page, but never two callers at once."""
        if not self._is_fresh() and self._waiting.acquire(blocking=False):
            try:
                self._refresh()
                self._made.wait(FIRST_S if self._kept is None else PATIENCE_S)
            finally:
                self._waiting.release()
        if self._kept is not None:
            return self._kept
        why = self._error or "the page is being made; load it again"
        return Answer(body=f"{why}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)

    def _is_fresh(self) -> bool:
        age_s = self._clock.monotonic() - self._made_at
        return self._kept is not None and not self._error and age_s < FRESH_S

    def _refresh(self) -> None:
        with self._lock:
            if self._maker is None or not self._maker.is_alive():
                self._made.clear()
                self._maker = threading.Thread(target=self._renew, name="page", daemon=True)
                self._maker.start()

    def _renew(self) -> None:
        try:
            html = self._make()
        except OpsdError as exc:
            # An old page would go on saying what is no longer known.
            self._kept, self._error = None, f"could not tell: {describe(exc)}"
        else:
            policy = _POLICY.format(style=_style_source(html))
            self._kept = Answer(body=html, content_type=HTML, policy=policy)
            self._made_at, self._error = self._clock.monotonic(), ""
        finally:
            self._made.set()


def is_expected(host: str, names: Sequence[str]) -> bool:
    """Whether a ``Host`` header is an address, the machine itself, or one of the names.

    Args:
        host: of the request, with or without a port.
        names: or patterns of names.
    """
    found = _HOST.fullmatch(host.lower())
    if found is None:
        return False
    name = found[1].removesuffix(".")
    if name == "localhost" or any(fnmatchcase(name, pattern.lower()) for pattern in names):
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _style_source(html: str) -> str:
    """The page's own style sheet as a source that its policy allows."""
    found = _STYLE.search(html)
    if found is None:
        return "'none'"
    digest = hashlib.sha256(found[1].encode("utf-8", "backslashreplace")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
