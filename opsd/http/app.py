"""Who asks for what: the paths that opsd answers, and what every answer carries.

Limits: it reads only; everybody who reaches the port may read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog

from opsd.errors import OpsdError
from opsd.secrets import describe
from opsd.text import printable

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger()

TEXT = "text/plain; charset=utf-8"
NOTHING = "default-src 'none'; frame-ancestors 'none'"
_ON_EVERY_ANSWER = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a path answers."""

    body: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT
    policy: str = NOTHING  #: what a browser may load for it


class App:
    """A WSGI application that answers GET and HEAD."""

    def __init__(
        self,
        paths: Mapping[str, Callable[[], Answer]],
        *,
        pages: Mapping[str, Callable[[], Answer]] | None = None,
        is_expected: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Prepare; an OpsdError that a path raises becomes a 503.

        Args:
            paths: what answers each of them.
            pages: likewise, for browsers.
            is_expected: whether a page is shown under the host of a request.
        """
        self._paths = dict(paths)
        self._pages = dict(pages or {})
        self._is_expected = is_expected

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path, host = environ.get("PATH_INFO", ""), environ.get("HTTP_HOST", "")
        answer = self._answer(environ["REQUEST_METHOD"], path, host)
        body = answer.body.encode("utf-8", "backslashreplace")
        headers = [
            *_ON_EVERY_ANSWER,
            ("Content-Security-Policy", answer.policy),
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(body))),
        ]
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        start(f"{answer.status.value} {answer.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, method: str, path: str, host: str) -> Answer:
        answers = self._paths.get(path) or self._pages.get(path)
        if answers is None:
            return Answer(body="there is nothing here\n", status=HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return Answer(body="read only\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
        if path in self._pages and not self._is_expected(host):
            told = f"opsd is not known as {printable(host)}; add the name to http.hosts\n"
            return Answer(body=told, status=HTTPStatus.MISDIRECTED_REQUEST)
        try:
            return answers()
        except OpsdError as exc:
            return Answer(body=f"{describe(exc)}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception as exc:
            log.exception("http.crashed", path=path)
            return Answer(body=f"{describe(exc)}\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
