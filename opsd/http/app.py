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

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger()

TEXT = "text/plain; charset=utf-8"
_ON_EVERY_ANSWER = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a path answers."""

    body: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = TEXT


class App:
    """A WSGI application that answers GET and HEAD."""

    def __init__(self, paths: Mapping[str, Callable[[], Answer]]) -> None:
        """`paths` says what answers each of them; an OpsdError it raises becomes a 503."""
        self._paths = dict(paths)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        answer = self._answer(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        body = answer.body.encode("utf-8", "backslashreplace")
        headers = [
            *_ON_EVERY_ANSWER,
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(body))),
        ]
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        start(f"{answer.status.value} {answer.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, method: str, path: str) -> Answer:
        if path not in self._paths:
            return Answer(body="there is nothing here\n", status=HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return Answer(body="read only\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return self._paths[path]()
        except OpsdError as exc:
            return Answer(body=f"{describe(exc)}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception as exc:
            log.exception("http.crashed", path=path)
            return Answer(body=f"{describe(exc)}\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
