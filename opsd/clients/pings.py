"""Tell a service outside that something started, went well or failed: the signs of life.

Such a service raises the alarm when no sign comes, which nothing inside can do. Three kinds:
healthchecks (its own and compatible ones) knows starts, failures and runs; Uptime Kuma's push
monitors know up and down; plain is called when all is well and otherwise not at all.

Limits: what a service does with a sign is its own affair; a healthchecks server that does
not know the URL says so in an answer that looks good, and that is taken for an error.
"""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from opsd.clients.http import Call, call
from opsd.errors import ConfigError, PermanentError
from opsd.secrets import Secret
from opsd.text import printable, shortened, storable

PingKind = Literal["healthchecks", "uptime-kuma", "plain"]

BODY_BYTES = 10_000  # healthchecks keeps no more (its PING_BODY_LIMIT)
_KUMA_CHARACTERS = 200  # of a message that stands in a URL
_RUNS = uuid.UUID("6d0c0a5e-3f0e-5a53-9d5c-0f1d7a0c5b1e")  # namespace of ids of runs


class Sign(enum.Enum):
    """What happened."""

    STARTED = "start"
    WELL = ""
    FAILED = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One URL of a service that watches opsd."""

    name: str  #: what errors call it: ``heartbeat``, ``ping of postgres-backup``
    url: Secret
    kind: PingKind

    def send(
        self,
        sign: Sign,
        *,
        timeout_s: float,
        run_id: str = "",
        text: str = "",
        duration: timedelta | None = None,
    ) -> None:
        """Give a sign; returning means that the service took it or does not know such signs.

        Args:
            sign: what happened.
            timeout_s: for everything together.
            run_id: pairs the end of a run with its start.
            text: for people; cut to what the service keeps.
            duration: how long the run took.

        Raises:
            ConfigError: the secret is missing, or is no URL.
            DeadlineExceeded, TransientError, PermanentError: see `opsd.clients.http.call`.
        """
        what = f"{self.name} ({self.url})"
        request = call_for(
            self.url.reveal(), self.kind, sign, run_id=run_id, text=text, duration=duration
        )
        if request is None:
            return
        answer = call(request, what=what, timeout_s=timeout_s)
        if self.kind == "healthchecks" and "not found" in answer.lower():
            raise PermanentError(f"{what}: the server does not know this URL: {answer}")


def call_for(
    url: str,
    kind: PingKind,
    sign: Sign,
    *,
    run_id: str = "",
    text: str = "",
    duration: timedelta | None = None,
) -> Call | None:
    """What to ask of the service; None when it has no word for this. Pure.

    Source: healthchecks.io/docs/http_api (signals, ``rid``); Uptime Kuma, push monitors.

    Raises:
        ConfigError: the URL cannot be read.
    """
    match kind:
        case "healthchecks":
            path = f"/{sign.value}" if sign.value else ""
            rid = {"rid": str(uuid.uuid5(_RUNS, run_id))} if run_id else {}
            return Call(url=_changed(url, add_path=path, query=rid), body=_body(text))
        case "uptime-kuma":
            if sign is Sign.STARTED:
                return None
            told = {
                "status": "down" if sign is Sign.FAILED else "up",
                "msg": shortened(printable(text), _KUMA_CHARACTERS) or "OK",
                "ping": str(int(duration / timedelta(milliseconds=1))) if duration else "",
            }
            return Call(url=_changed(url, query=told))
        case "plain":
            return Call(url=url) if sign is Sign.WELL else None


def _changed(url: str, *, query: dict[str, str], add_path: str = "") -> str:
    """`url` with `query` in place of its own values of the same names."""
    try:
        parts = urlsplit(url)
        kept = [
            pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in query
        ]
    except ValueError:
        raise ConfigError("the secret is no URL of the form https://host/path") from None
    path = parts.path.rstrip("/") + add_path if add_path else parts.path
    return urlunsplit(parts._replace(path=path, query=urlencode([*kept, *query.items()])))


def _body(text: str) -> bytes:
    """The beginning of `text`, cut between characters."""
    return storable(text).encode()[:BODY_BYTES].decode("utf-8", "ignore").encode()
