"""The client against a real API server: identities, preconditions, pages and rights."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from opsd.clients.kube import calls
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Blocked, Conflict, Forbidden, NotFound, Refused
from opsd.clients.kube.objects import (
    CnpgCluster,
    ConfigMap,
    Lease,
    Metadata,
    Namespace,
    Node,
    Pod,
    PodDisruptionBudget,
    Secret,
    ServiceAccount,
    StatefulSet,
)
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import eventually
from tests.rig.kubelet import FakeNode
from tests.rig.kubestate import running_pod
from tests.rig.workloads import pod, pod_spec, service_account, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


def kube_with(kubeconfig: Path) -> Kube:
    transport = Transport(lambda: find_cluster(kubeconfig=kubeconfig))
    return Kube(transport, deadline=Deadline.after(120, SystemClock()))


@pytest.fixture
def kube(control_plane: ControlPlane) -> Kube:
    return kube_with(control_plane.kubeconfig())


@pytest.fixture
def settings(kube: Kube, namespace: str) -> ConfigMap:
    return kube.create(
        ConfigMap, {"metadata": {"name": "x"}, "data": {"a": "1"}}, namespace=namespace
    )


def replaced(kube: Kube, old: ConfigMap) -> ConfigMap:
    """Another object under the same name."""
    kube.delete(old)
    body = {"metadata": {"name": old.name}, "data": {"a": "new"}}
    return kube.create(ConfigMap, body, namespace=old.namespace)


def test_the_server_says_its_release_and_its_time(kube: Kube) -> None:
    version, now = kube.version(), kube.server_time()

    assert version.startswith("v1.")
    assert abs((now - datetime.now(UTC)).total_seconds()) < 30


def test_objects_are_made_read_and_deleted(kube: Kube, namespace: str) -> None:
    made = kube.create(
        Secret, {"metadata": {"name": "s"}, "stringData": {"k": "v4lue"}}, namespace=namespace
    )

    read = kube.get(Secret, "s", namespace=namespace)
    kube.delete(read)

    assert (made.uid, read.uid, read.reveal("k")) == (read.uid, made.uid, "v4lue")
    assert kube.find(Secret, "s", namespace=namespace) is None
    with pytest.raises(NotFound, match=rf"^delete secret {namespace}/s: 404 NotFound"):
        kube.delete(read)


def test_every_page_of_a_list_is_read(
    kube: Kube, namespace: str, monkeypatch: pytest.MonkeyPatch, control_plane: ControlPlane
) -> None:
    monkeypatch.setattr(calls, "PAGE", 3)
    for number in range(8):
        body = {"metadata": {"name": f"l{number}", "labels": {"odd": str(number % 2)}}}
        kube.create(Lease, body, namespace=namespace)
    since = control_plane.audit.mark()

    names = [lease.name for lease in kube.list(Lease, namespace=namespace)]
    odd = [lease.name for lease in kube.list(Lease, namespace=namespace, labels="odd=1")]
    one = [lease.name for lease in kube.list(Lease, fields="metadata.name=l5")]

    assert names == [f"l{number}" for number in range(8)]
    assert (odd, one) == (["l1", "l3", "l5", "l7"], ["l5"])
    listed = control_plane.audit.calls(user="admin", since=since)
    assert len(listed) == 3 + 2 + 1
    assert all("limit=3" in call.query for call in listed)


@pytest.mark.parametrize("unchanged", [False, True])
def test_what_has_the_name_now_is_not_deleted_in_place_of_what_was_seen(
    kube: Kube,
    settings: ConfigMap,
    unchanged: bool,  # noqa: FBT001 - a parameter
) -> None:
    newer = replaced(kube, settings)

    with pytest.raises(Conflict, match=rf"^delete {settings}: 409 Conflict"):
        kube.delete(settings, unchanged=unchanged, grace_s=0)

    assert kube.get(ConfigMap, "x", namespace=settings.namespace) == newer


def test_what_has_the_name_now_is_not_patched_in_place_of_what_was_seen(
    kube: Kube, settings: ConfigMap
) -> None:
    newer = replaced(kube, settings)

    with pytest.raises(Conflict, match=rf"^patch {settings}: 422 Invalid: .*metadata\.uid"):
        kube.patch_merge(settings, {"data": {"a": "2"}})
    with pytest.raises(Conflict, match=rf"^patch {settings}: 422 Invalid: .*metadata\.uid"):
        kube.patch_json(settings, [{"op": "replace", "path": "/data/a", "value": "2"}])

    assert kube.get(ConfigMap, "x", namespace=settings.namespace) == newer


def test_a_change_in_between_matters_only_where_it_was_said(
    kube: Kube, settings: ConfigMap
) -> None:
    step = {"op": "add", "path": "/data/c", "value": "3"}
    merged = kube.patch_merge(settings, {"data": {"b": "2"}})

    for refused in (
        lambda: kube.patch_merge(settings, {"data": {"b": "9"}}, unchanged=True),
        lambda: kube.patch_json(settings, [step], unchanged=True),
        lambda: kube.delete(settings, unchanged=True),
    ):
        with pytest.raises(Conflict):
            refused()
    stepped = kube.patch_json(settings, [step])
    kube.delete(settings)

    assert (merged.data, stepped.data) == ({"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"})


def test_a_merge_removes_what_is_none(kube: Kube, settings: ConfigMap) -> None:
    assert kube.patch_merge(settings, {"data": {"a": None, "b": "2"}}).data == {"b": "2"}


def test_dry_runs_change_nothing_and_are_checked(
    kube: Kube, settings: ConfigMap, namespace: str
) -> None:
    made = kube.create(ConfigMap, {"metadata": {"name": "y"}}, namespace=namespace, dry_run=True)
    kube.patch_merge(settings, {"data": {"a": "2"}}, dry_run=True)
    kube.patch_json(settings, [{"op": "remove", "path": "/data/a"}], dry_run=True)
    kube.apply(ConfigMap, "z", {"data": {"q": "1"}}, namespace=namespace, dry_run=True)
    kube.delete(settings, dry_run=True)
    with pytest.raises(Refused, match=r"create pod .*: 422 Invalid: .*spec\.containers: Required"):
        kube.create(Pod, {"metadata": {"name": "p"}}, namespace=namespace, dry_run=True)

    names = {item.name for item in kube.list(ConfigMap, namespace=namespace)}
    assert made.uid
    assert names - {"kube-root-ca.crt"} == {"x"}
    assert kube.get(ConfigMap, "x", namespace=namespace) == settings


def test_what_is_applied_is_owned_and_what_others_own_is_not_taken(
    kube: Kube, settings: ConfigMap, control_plane: ControlPlane
) -> None:
    namespace = settings.namespace
    control_plane.api.patch(
        f"/api/v1/namespaces/{namespace}/configmaps/x", {"data": {"theirs": "1"}}
    )

    kube.apply(ConfigMap, "x", {"data": {"ours": "1", "old": "1"}}, namespace=namespace)
    again = kube.apply(ConfigMap, "x", {"data": {"ours": "2"}}, namespace=namespace)
    with pytest.raises(Conflict, match=r"apply configmap .*/x: 409 Conflict: .*conflict"):
        kube.apply(ConfigMap, "x", {"data": {"theirs": "2"}}, namespace=namespace)
    forced = kube.apply(ConfigMap, "x", {"data": {"theirs": "2"}}, namespace=namespace, force=True)

    assert again.data == {"a": "1", "theirs": "1", "ours": "2"}
    assert forced.data == {"a": "1", "theirs": "2"}


def test_a_step_that_tests_something_else_is_refused_and_not_a_conflict(
    kube: Kube, settings: ConfigMap
) -> None:
    with pytest.raises(Refused, match=rf"^patch {settings}: 422 Invalid"):
        kube.patch_json(settings, [{"op": "test", "path": "/data/a", "value": "other"}])


def test_a_status_is_patched_as_a_subresource(kube: Kube, namespace: str) -> None:
    spec = pod_spec()
    made = kube.create(Pod, {"metadata": {"name": "p"}, "spec": spec}, namespace=namespace)

    patched = kube.patch_merge(made, {"status": {"phase": "Failed"}}, subresource="status")
    kube.delete(patched, grace_s=0)

    assert patched.status.phase == "Failed"
    assert kube.find(Pod, "p", namespace=namespace) is None


def test_evictions_respect_a_disruption_budget_and_the_identity(
    kube: Kube,
    control_plane: ControlPlane,
    namespace: str,
    workers: Callable[[int], list[FakeNode]],
) -> None:
    [node] = workers(1)
    control_plane.api.create(pod(namespace, "pg", pod_spec(node.pool)))
    control_plane.api.patch(
        f"/api/v1/namespaces/{namespace}/pods/pg", {"metadata": {"labels": {"app": "pg"}}}
    )
    running_pod(control_plane.api, namespace, "pg")
    budget = kube.create(
        PodDisruptionBudget,
        {
            "metadata": {"name": "pg"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "pg"}}},
        },
        namespace=namespace,
    )
    eventually(
        lambda: kube.get(PodDisruptionBudget, "pg", namespace=namespace).status.expected_pods == 1
    )
    seen = kube.get(Pod, "pg", namespace=namespace)

    with pytest.raises(Blocked, match=rf"^evict {seen}: 429 TooManyRequests: .*disruption budget"):
        kube.evict(seen)
    kube.delete(budget)
    with pytest.raises(Conflict, match=rf"^evict {seen}: 409 Conflict"):
        kube.evict(Pod(metadata=other_identity(seen)))
    kube.evict(seen, grace_s=0)

    eventually(lambda: kube.find(Pod, "pg", namespace=namespace) is None)


def other_identity(seen: Pod) -> Metadata:
    return Metadata(
        name=seen.name, namespace=seen.namespace, uid="00000000-0000-0000-0000-000000000000"
    )


def test_what_opsd_may_not_do_is_said_in_one_line(
    control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.create(service_account(namespace, "opsd"))
    stranger = kube_with(control_plane.kubeconfig_of(namespace, "opsd"))

    with pytest.raises(Forbidden) as listed:
        list(stranger.list(Pod, namespace="monitoring"))
    with pytest.raises(Forbidden) as gotten:
        stranger.get(Node, "rpi3")

    who = f"serviceaccount {namespace}/opsd"
    assert str(listed.value) == f"list pods in monitoring: 403 Forbidden: {who} cannot list pods"
    assert str(gotten.value) == f"get node rpi3: 403 Forbidden: {who} cannot get nodes"


def test_rights_can_be_asked_for_before_they_are_needed(
    control_plane: ControlPlane, namespace: str, kube: Kube
) -> None:
    control_plane.api.create(service_account(namespace, "asker"))
    control_plane.api.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"namespace": namespace, "name": "view"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "view",
            },
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": "asker"}],
        }
    )
    asker = kube_with(control_plane.kubeconfig_of(namespace, "asker"))

    eventually(lambda: asker.can("list", Pod, namespace=namespace))
    answers = [
        asker.can("delete", Pod, namespace=namespace),
        asker.can("list", Pod),
        asker.can("get", Pod, namespace=namespace, subresource="log"),
        asker.can("get", Pod, namespace=namespace, subresource="exec"),
        kube.can("delete", Node, name="rpi3"),
    ]

    assert answers == [False, False, True, False, True]


def test_a_kind_that_is_not_installed_is_not_found(kube: Kube) -> None:
    with pytest.raises(NotFound, match=r"^list clusters\.postgresql\.cnpg\.io: 404"):
        list(kube.list(CnpgCluster))


def test_real_objects_are_read_as_they_are(
    kube: Kube, control_plane: ControlPlane, namespace: str
) -> None:
    control_plane.api.create(stateful_set(namespace, "pg", pod_spec(grace_s=7), replicas=0))

    found = kube.get(StatefulSet, "pg", namespace=namespace)
    home = kube.get(Namespace, namespace)

    assert (found.spec.replicas, found.spec.service_name) == (0, "pg")
    assert found.spec.template.spec.termination_grace_period_seconds == 7
    assert found.spec.template.spec.containers[0].image == "registry.test/app:1"
    assert home.status.phase == "Active"
    assert home.metadata.creation_timestamp


def test_an_authority_that_did_not_sign_the_server_is_not_trusted(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = mounted(tmp_path, "any", control_plane, monkeypatch)
    trustme.CA().cert_pem.write_to_path(mount / "ca.crt")
    kube = Kube(
        Transport(lambda: find_cluster(mount=mount)), deadline=Deadline.after(60, SystemClock())
    )

    with pytest.raises(Refused, match=r"certificate is not trusted: .*check the certificate auth"):
        kube.version()


def mounted(
    place: Path, token: str, control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """What a pod would find of its ServiceAccount."""
    host, _, port = control_plane.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    (place / "token").write_text(token)
    (place / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
    return place


def test_a_pod_gets_in_with_what_it_has_and_survives_the_end_of_its_token(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = kube_with(control_plane.kubeconfig())
    control_plane.api.create(service_account(namespace, "opsd"))
    first = control_plane.token(namespace, "opsd")
    mount = mounted(tmp_path, first, control_plane, monkeypatch)
    seen = (mount / "token").stat()
    kube = Kube(
        Transport(lambda: find_cluster(mount=mount)), deadline=Deadline.after(120, SystemClock())
    )
    kube.can("list", Pod)

    # The account is made anew: its old token is refused, and the file looks unchanged.
    admin.delete(admin.get(ServiceAccount, "opsd", namespace=namespace))
    control_plane.api.create(service_account(namespace, "opsd"))
    second = control_plane.token(namespace, "opsd")
    with pytest.raises(Forbidden, match=r": 401 Unauthorized"):
        eventually(lambda: kube.can("list", Pod) and None)
    (mount / "token").write_text(second)
    os.utime(mount / "token", ns=(seen.st_atime_ns, seen.st_mtime_ns))

    assert len(first) > 100
    assert kube.can("list", Pod) is False
