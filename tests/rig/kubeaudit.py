"""What was asked of the API server, by whom: its audit log as small records.

The API server writes a call's line before the caller sees the end of the answer, so a test may
read the log right after the call.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that the API server answered, or a watch that it began to answer."""

    verb: str  #: get, list, watch, create, update, patch, delete, deletecollection
    resource: str  #: with its subresource: ``pods/eviction``; empty for URLs like /version
    namespace: str
    name: str
    user: str  #: ``system:serviceaccount:opsd:opsd``
    code: int  #: HTTP status
    path: str
    query: str

    def __str__(self) -> str:
        """As a person writes it: ``delete pods db/pg-0: 200``."""
        where = "/".join(filter(None, (self.namespace, self.name)))
        what = " ".join(filter(None, (self.verb, self.resource or self.path, where)))
        return f"{what}: {self.code}"


class AuditLog:
    """The log of one API server."""

    def __init__(self, path: Path) -> None:
        """Read the log that lies or will lie at `path`."""
        self.path = path

    def mark(self) -> int:
        """A place in the log: `calls` after it are those made from now on."""
        return self.path.stat().st_size if self.path.exists() else 0

    def calls(self, *, user: str = "", since: int = 0) -> list[Call]:
        """The calls of one user (of everyone when empty), in the order of their answers."""
        return [call for call in self._all(since) if user in ("", call.user)]

    def _all(self, since: int) -> Iterator[Call]:
        begun: set[str] = set()  # a watch is logged when it begins and when it ends
        with self.path.open("rb") as log:
            log.seek(since)
            for line in log:
                if not line.endswith(b"\n"):
                    return  # still being written
                event = json.loads(line)
                if event["auditID"] not in begun:
                    begun.add(event["auditID"])
                    yield _call_of(event)


def _call_of(event: dict[str, Any]) -> Call:
    target = event.get("objectRef", {})
    resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
    where = urllib.parse.urlsplit(event["requestURI"])
    return Call(
        verb=event["verb"],
        resource=resource,
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        user=event["user"].get("username", ""),
        code=event.get("responseStatus", {}).get("code", 0),
        path=where.path,
        query=where.query,
    )
