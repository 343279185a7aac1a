"""What is asked of the API server, as requests: pure, and each with the words for its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from opsd.clients.kube.objects.base import Object, Outline, Resource

Body = Mapping[str, Any]  #: JSON
Kind = type[Outline]

PAGE = 500  # objects
MANAGER = "opsd"  # the name by which the API server keeps who owns which field

_JSON = "application/json"
_OUTLINES = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request."""

    what: str  #: action and object, as errors name them: ``list pods in monitoring``
    method: str = "GET"
    path: str = "/"  #: with the query
    body: bytes = b""
    content_type: str = _JSON
    accept: str = _JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects of a kind."""

    namespace: str = ""  #: empty for all
    labels: str = ""  #: ``app=pg,tier!=test``
    fields: str = ""  #: ``spec.nodeName=rpi3``

    @property
    def query(self) -> dict[str, str]:
        """As the API takes it."""
        wanted = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in wanted.items() if value}


def get(kind: Kind, namespace: str, name: str) -> Request:
    """One object."""
    what = f"get {_name(kind.resource, namespace, name)}"
    return Request(what=what, path=kind.resource.path(namespace, name))


def page(kind: Kind, selection: Selection, token: str) -> Request:
    """The first part of a list, or the one to which `token` leads."""
    query = selection.query | {"limit": str(PAGE)} | ({"continue": token} if token else {})
    path = _with_query(kind.resource.path(selection.namespace), query)
    what = f"list {_collection(kind.resource, selection.namespace)}"
    # Of outlines the API server leaves out what they are: half of what there is to send and read.
    return Request(what=what, path=path, accept=_JSON if issubclass(kind, Object) else _OUTLINES)


def watch(kind: Kind, selection: Selection, since: str) -> Request:
    """What changes after a version."""
    query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": since}
    path = _with_query(kind.resource.path(selection.namespace), selection.query | query)
    return Request(what=f"watch {_collection(kind.resource, selection.namespace)}", path=path)


def create(kind: Kind, body: Body, *, namespace: str, dry_run: bool) -> Request:
    """A new object."""
    name = body.get("metadata", {}).get("name", "")
    return _change(
        f"create {_name(kind.resource, namespace, name)}",
        "POST",
        _with_query(kind.resource.path(namespace), _dry_run(dry_run)),
        _typed(kind) | dict(body),
    )


def apply(
    kind: Kind, name: str, body: Body, *, namespace: str, force: bool, dry_run: bool
) -> Request:
    """An object, new or not, with the fields of `body`."""
    metadata = {"name": name, **body.get("metadata", {})}
    query = {"fieldManager": MANAGER, "force": str(force).lower()} | _dry_run(dry_run)
    return _change(
        f"apply {_name(kind.resource, namespace, name)}",
        "PATCH",
        _with_query(kind.resource.path(namespace, name), query),
        _typed(kind) | dict(body) | {"metadata": metadata},
        _APPLY,
    )


def merge(
    item: Outline, change: Body, *, subresource: str, unchanged: bool, dry_run: bool
) -> Request:
    """Other values for fields of this very object."""
    metadata = dict(change.get("metadata", {})) | _identity(item, unchanged=unchanged)
    body = {**change, "metadata": metadata}
    return _change(
        f"patch {item}", "PATCH", _patched(item, subresource, dry_run=dry_run), body, _MERGE
    )


def amend(
    item: Outline,
    operations: Sequence[Body],
    *,
    subresource: str,
    unchanged: bool,
    dry_run: bool,
) -> Request:
    """Steps (RFC 6902) that change this very object."""
    # Set, not tested: that the identity would change is a conflict, a failed test is not.
    same = [
        {"op": "replace", "path": f"/metadata/{key}", "value": value}
        for key, value in _identity(item, unchanged=unchanged).items()
    ]
    path = _patched(item, subresource, dry_run=dry_run)
    return _change(f"patch {item}", "PATCH", path, [*same, *operations], _JSON_PATCH)


def delete(item: Outline, *, grace_s: int | None, unchanged: bool, dry_run: bool) -> Request:
    """The end of this very object."""
    options = _delete_options(item, grace_s=grace_s, unchanged=unchanged, dry_run=dry_run)
    path = item.resource.path(item.namespace, item.name)
    return _change(f"delete {item}", "DELETE", path, options)


def evict(pod: Outline, *, grace_s: int | None, dry_run: bool) -> Request:
    """The end of this very pod, if its disruption budget allows it."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": _delete_options(pod, grace_s=grace_s, unchanged=False, dry_run=dry_run),
    }
    path = pod.resource.path(pod.namespace, pod.name, "eviction")
    return _change(f"evict {pod}", "POST", path, body)


def may(verb: str, kind: Kind, *, namespace: str, name: str, subresource: str) -> Request:
    """Whether opsd may do something."""
    attributes = {
        "verb": verb,
        "group": kind.resource.group,
        "resource": kind.resource.plural,
        "subresource": subresource,
        "namespace": namespace,
        "name": name,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    what = f"ask whether opsd may {verb} {kind.resource.nouns}"
    return _change(what, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)


def _change(what: str, method: str, path: str, body: Any, content_type: str = _JSON) -> Request:
    return Request(
        what=what,
        method=method,
        path=path,
        body=msgspec.json.encode(body),
        content_type=content_type,
    )


def _typed(kind: Kind) -> dict[str, Any]:
    return {"apiVersion": kind.resource.group_version, "kind": kind.resource.kind}


def _identity(item: Outline, *, unchanged: bool) -> dict[str, str]:
    version = {"resourceVersion": item.metadata.resource_version} if unchanged else {}
    return {"uid": item.uid} | version


def _delete_options(
    item: Outline, *, grace_s: int | None, unchanged: bool, dry_run: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": _identity(item, unchanged=unchanged),
    }
    if grace_s is not None:
        options["gracePeriodSeconds"] = grace_s
    if dry_run:
        options["dryRun"] = ["All"]
    return options


def _patched(item: Outline, subresource: str, *, dry_run: bool) -> str:
    path = item.resource.path(item.namespace, item.name, subresource)
    return _with_query(path, {"fieldManager": MANAGER} | _dry_run(dry_run))


def _dry_run(wanted: bool) -> dict[str, str]:  # noqa: FBT001 - the only thing it is told
    return {"dryRun": "All"} if wanted else {}


def _name(resource: Resource, namespace: str, name: str) -> str:
    """``pod db/pg-0``; ``pod in db`` as long as it has no name."""
    if not name:
        return f"{resource.noun} in {namespace}" if namespace else resource.noun
    return f"{resource.noun} {namespace}/{name}" if namespace else f"{resource.noun} {name}"


def _collection(resource: Resource, namespace: str) -> str:
    return f"{resource.nouns} in {namespace}" if namespace else resource.nouns


def _with_query(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
