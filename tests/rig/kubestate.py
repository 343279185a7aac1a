"""Wait until the cluster is as a test needs it; each wait ends in a failure after a minute."""

from __future__ import annotations

from tests.rig.kubeapi import KubeApi, Object, eventually, path_of
from tests.rig.kubelet import FakeNode


def running_pod(api: KubeApi, namespace: str, name: str) -> Object:
    """Wait until the pod runs and is ready."""

    def look() -> Object | None:
        found = api.find(f"/api/v1/namespaces/{namespace}/pods/{name}")
        return found if found and condition(found, "Ready")["status"] == "True" else None

    return eventually(look)


def condition(item: Object, kind: str) -> Object:
    """A condition of a node or a pod; its status is ``absent`` when it has none."""
    found = [each for each in item["status"].get("conditions", []) if each["type"] == kind]
    return found[0] if found else {"status": "absent"}


def node_is(api: KubeApi, node: FakeNode, status: str) -> Object:
    """Wait until the condition Ready of the node has this status."""

    def look() -> Object | None:
        found = api.get(f"/api/v1/nodes/{node.name}")
        return found if condition(found, "Ready")["status"] == status else None

    return eventually(look)


def terminating(api: KubeApi, item: Object) -> Object:
    """Wait until the pod is to be deleted."""

    def look() -> Object | None:
        found = api.get(path_of(item))
        return found if "deletionTimestamp" in found["metadata"] else None

    return eventually(look)


def is_gone(api: KubeApi, item: Object) -> bool:
    """Whether this very object is there no more, whatever has its name now."""
    found = api.find(path_of(item))
    return found is None or found["metadata"]["uid"] != item["metadata"]["uid"]


def uid_of(item: Object) -> str:
    """The UID of an object."""
    uid: str = item["metadata"]["uid"]
    return uid
