"""What is asked of the API server, to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opsd.clients.kube import calls
from opsd.clients.kube.calls import Request, Selection
from opsd.clients.kube.objects import (
    CnpgCluster,
    ConfigMap,
    Lease,
    Metadata,
    Node,
    Pod,
    PodOutline,
)

PG = Pod(metadata=Metadata(name="pg-0", namespace="db", uid="u1", resource_version="7"))


def body(request: Request) -> Any:
    return json.loads(request.body)


def test_a_list_is_asked_for_in_pages() -> None:
    first = calls.page(Pod, Selection(fields="spec.nodeName=rpi3", labels="a in (b,c)"), "")
    next_ = calls.page(Pod, Selection(namespace="db"), "t&=k")

    assert first.what == "list pods"
    assert first.path == (
        "/api/v1/pods?labelSelector=a+in+%28b%2Cc%29&fieldSelector=spec.nodeName%3Drpi3&limit=500"
    )
    assert next_.what == "list pods in db"
    assert next_.path == "/api/v1/namespaces/db/pods?limit=500&continue=t%26%3Dk"


def test_of_outlines_only_the_metadata_is_asked_for() -> None:
    outlines = calls.page(PodOutline, Selection(), "")
    pods = calls.page(Pod, Selection(), "")

    assert outlines.path == pods.path
    assert outlines.accept == ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
    assert pods.accept == "application/json"


def test_a_watch_asks_for_bookmarks() -> None:
    request = calls.watch(Node, Selection(), "42")

    assert request.what == "watch nodes"
    assert request.path == "/api/v1/nodes?watch=true&allowWatchBookmarks=true&resourceVersion=42"


@pytest.mark.parametrize("unchanged", [False, True])
@pytest.mark.parametrize("grace_s", [None, 0, 30])
def test_a_delete_is_of_the_very_object_that_was_seen(
    unchanged: bool,  # noqa: FBT001 - a parameter
    grace_s: int | None,
) -> None:
    request = calls.delete(PG, grace_s=grace_s, unchanged=unchanged, dry_run=False)

    same = {"uid": "u1"} | ({"resourceVersion": "7"} if unchanged else {})
    grace = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
    assert (request.method, request.what) == ("DELETE", "delete pod db/pg-0")
    assert request.path == "/api/v1/namespaces/db/pods/pg-0"
    assert body(request) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": same,
        **grace,
    }


def test_an_eviction_is_of_the_very_pod_that_was_seen() -> None:
    request = calls.evict(PG, grace_s=5, dry_run=True)

    assert (request.method, request.what) == ("POST", "evict pod db/pg-0")
    assert request.path == "/api/v1/namespaces/db/pods/pg-0/eviction"
    assert body(request)["deleteOptions"] == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": "u1"},
        "gracePeriodSeconds": 5,
        "dryRun": ["All"],
    }


def test_a_merge_is_of_the_very_object_that_was_seen_whatever_the_change_says() -> None:
    change = {"metadata": {"labels": {"a": None}, "uid": "other"}, "spec": {"x": 1}}

    loose = calls.merge(PG, change, subresource="", unchanged=False, dry_run=False)
    strict = calls.merge(PG, {}, subresource="status", unchanged=True, dry_run=True)

    assert body(loose) == {"metadata": {"labels": {"a": None}, "uid": "u1"}, "spec": {"x": 1}}
    assert loose.path == "/api/v1/namespaces/db/pods/pg-0?fieldManager=opsd"
    assert loose.content_type == "application/merge-patch+json"
    assert body(strict) == {"metadata": {"uid": "u1", "resourceVersion": "7"}}
    assert strict.path == "/api/v1/namespaces/db/pods/pg-0/status?fieldManager=opsd&dryRun=All"


def test_steps_of_a_patch_begin_with_who_is_meant() -> None:
    steps = [{"op": "remove", "path": "/spec/taints/0"}]

    loose = calls.amend(PG, steps, subresource="", unchanged=False, dry_run=False)
    strict = calls.amend(PG, steps, subresource="", unchanged=True, dry_run=False)

    uid = {"op": "replace", "path": "/metadata/uid", "value": "u1"}
    version = {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}
    assert body(loose) == [uid, *steps]
    assert body(strict) == [uid, version, *steps]


def test_what_is_made_says_what_it_is() -> None:
    named = calls.create(Lease, {"metadata": {"name": "x"}}, namespace="opsd", dry_run=True)
    unnamed = calls.create(
        Pod, {"metadata": {"generateName": "x-"}}, namespace="opsd", dry_run=False
    )

    assert (named.what, unnamed.what) == ("create lease opsd/x", "create pod in opsd")
    assert named.path == "/apis/coordination.k8s.io/v1/namespaces/opsd/leases?dryRun=All"
    assert body(named) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "x"},
    }


def test_what_is_applied_has_its_name_and_its_owner() -> None:
    request = calls.apply(
        ConfigMap,
        "state",
        {"metadata": {"labels": {"a": "b"}}, "data": {"x": "1"}},
        namespace="opsd",
        force=False,
        dry_run=False,
    )

    assert (request.method, request.content_type) == ("PATCH", "application/apply-patch+yaml")
    assert request.path == (
        "/api/v1/namespaces/opsd/configmaps/state?fieldManager=opsd&force=false"
    )
    assert body(request) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "state", "labels": {"a": "b"}},
        "data": {"x": "1"},
    }


def test_a_right_is_asked_for_by_group_and_place() -> None:
    request = calls.may("list", CnpgCluster, namespace="db", name="", subresource="status")

    assert request.what == "ask whether opsd may list clusters.postgresql.cnpg.io"
    assert body(request)["spec"]["resourceAttributes"] == {
        "verb": "list",
        "group": "postgresql.cnpg.io",
        "resource": "clusters",
        "subresource": "status",
        "namespace": "db",
        "name": "",
    }
