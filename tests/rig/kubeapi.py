"""A thin client of the Kubernetes API for tests: JSON in, JSON out, no types of its own.

It creates what a test needs and looks at what became of it. opsd's own client is another one,
so that a fault of that one cannot hide itself.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import urllib3

Object = dict[str, Any]
T = TypeVar("T")

REQUEST_S = 30.0
POLL_S = 0.1
PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
# Plurals that adding an s does not make.
IRREGULAR = {
    "endpoints": "endpoints",
    "ingress": "ingresses",
    "networkpolicy": "networkpolicies",
    "storageclass": "storageclasses",
    "priorityclass": "priorityclasses",
    "validatingadmissionpolicy": "validatingadmissionpolicies",
}


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, answer: Object) -> None:
        """Keep the HTTP status and the answer's own words."""
        super().__init__(f"{status} {answer.get('reason')}: {answer.get('message')}")
        self.status = status
        self.reason: str = answer.get("reason", "")


class KubeApi:
    """One identity's access to one API server; threads may share it."""

    def __init__(
        self, url: str, *, ca: Path, certificate: tuple[Path, Path] | None = None, token: str = ""
    ) -> None:
        """Speak as the holder of a certificate (file and key file) or of a token."""
        self.url = url
        cert_file, key_file = map(str, certificate) if certificate else (None, None)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(
            ca_certs=str(ca), cert_file=cert_file, key_file=key_file, retries=False, maxsize=8
        )

    def get(self, path: str, **query: Any) -> Object:
        """Read one object or one list."""
        return self._request("GET", path, query=query)

    def post(self, path: str, body: Object) -> Object:
        """Send an object to a path: a create, a TokenRequest, an eviction."""
        return self._request("POST", path, body=body)

    def put(self, path: str, body: Object) -> Object:
        """Replace an object."""
        return self._request("PUT", path, body=body)

    def patch(self, path: str, body: Any, *, kind: str = "merge") -> Object:
        """Change an object by a merge, strategic or JSON patch."""
        return self._request("PATCH", path, body=body, content_type=PATCHES[kind])

    def delete(
        self, path: str, *, grace_s: int | None = None, uid: str = "", dry_run: bool = False
    ) -> Object:
        """Delete an object; `uid` deletes only the one that has it."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if dry_run:
            options["dryRun"] = ["All"]
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid:
            options["preconditions"] = {"uid": uid}
        return self._request("DELETE", path, body=options)

    def create(self, *objects: Object) -> Object:
        """Create objects of any kind, in this order; returns the last as it was stored."""
        return [self.post(collection_path(item), item) for item in objects][-1]

    def items(self, path: str, **query: Any) -> list[Object]:
        """The items of a list."""
        items: list[Object] = self.get(path, **query)["items"]
        return items

    def find(self, path: str) -> Object | None:
        """One object, or None when it is not there."""
        try:
            return self.get(path)
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Object | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        fields = {key: str(value) for key, value in (query or {}).items()}
        query_string = f"?{urllib.parse.urlencode(fields)}" if fields else ""
        response = self._pool.request(
            method,
            f"{self.url}{path}{query_string}",
            body=None if body is None else json.dumps(body),
            headers={**self._headers, "Content-Type": content_type},
            timeout=REQUEST_S,
        )
        answer = _answer_of(response.data)
        if response.status >= 300:
            raise ApiError(response.status, answer)
        return answer


def _answer_of(data: bytes) -> Object:
    """The object that came; some refusals are plain text."""
    try:
        answer: Object = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")}
    return answer


def collection_path(item: Object) -> str:
    """Where objects of this kind and namespace are created."""
    group = "apis" if "/" in item["apiVersion"] else "api"
    kind = item["kind"].lower()
    namespace = item["metadata"].get("namespace")
    parts = [group, item["apiVersion"], *(["namespaces", namespace] if namespace else [])]
    return "/".join(["", *parts, IRREGULAR.get(kind, f"{kind}s")])


def path_of(item: Object) -> str:
    """Where this object lies."""
    return f"{collection_path(item)}/{item['metadata']['name']}"


def eventually(look: Callable[[], T | None], *, within_s: float = 60.0) -> T:
    """Ask until the answer is true, and return it; an assertion error carries the last answer."""
    give_up_at = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < give_up_at, f"did not come true in {within_s:.0f} s: {seen!r}"
        time.sleep(POLL_S)
    return seen
