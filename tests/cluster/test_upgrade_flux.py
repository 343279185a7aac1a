"""What Flux does, and would undo, is seen in the resources that it keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from opsd.upgrade.check import Result, Status
from tests.cluster.test_upgrade_plants import result_of, told
from tests.rig import controlplane
from tests.rig.controlplane import OLDEST, ControlPlane
from tests.rig.kubeadm import Kubeadm
from tests.rig.kubeapi import ApiError, Object, eventually

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

KINDS = {
    "Kustomization": ("kustomize.toolkit.fluxcd.io", "v1"),
    "HelmRelease": ("helm.toolkit.fluxcd.io", "v2"),
}


def crd(kind: str) -> Object:
    group, version = KINDS[kind]
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind}
    served = {"name": version, "served": True, "storage": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [
                served | {"schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}
            ],
        },
    }


def is_served(plane: ControlPlane, path: str) -> bool:
    try:
        return plane.api.find(path) is not None
    except ApiError as exc:
        if exc.status != 429:
            raise
        return False  # the API server is about to


@pytest.fixture(scope="module")
def cluster() -> Iterator[Kubeadm]:
    with controlplane.running(OLDEST) as plane:
        for kind, (group, version) in KINDS.items():
            plane.api.create(crd(kind))
            path = f"/apis/{group}/{version}/{kind.lower()}s"
            eventually(functools.partial(is_served, plane, path))
        yield Kubeadm(plane)


def flux(
    kind: str = "Kustomization",
    *,
    ready: str = "True",
    suspend: bool = False,
    inventory: tuple[tuple[str, str], ...] = (),
) -> Object:
    group, version = KINDS[kind]
    condition = {"type": "Ready", "status": ready, "message": "kustomize build failed"}
    status: Object = {"conditions": [condition] if ready else []}
    if inventory:
        status["inventory"] = {"entries": [{"id": name, "v": v} for name, v in inventory]}
    return {
        "apiVersion": f"{group}/{version}",
        "kind": kind,
        "metadata": {"name": "apps", "namespace": "web"},
        "spec": {"suspend": suspend},
        "status": status,
    }


def look(cluster: Kubeadm, item: Object, check: str, target: str = "") -> Result:
    with cluster.with_(item):
        return result_of(cluster, check, target)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("ready", "suspend", "status"),
    [
        ("True", False, Status.PASS),
        ("False", False, Status.FAIL),
        ("False", True, Status.PASS),
        ("Unknown", False, Status.UNKNOWN),
        ("", False, Status.UNKNOWN),
    ],
)
def test_what_is_not_applied_is_in_the_way_unless_it_is_suspended(
    cluster: Kubeadm, kind: str, ready: str, *, suspend: bool, status: Status
) -> None:
    found = look(cluster, flux(kind, ready=ready, suspend=suspend), "flux-ready")

    assert found.status is status, told(found.notes)
    assert status is not Status.FAIL or "kustomize build failed" in told(found.worst)


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        (("web_shop_policy_PodDisruptionBudget", "v1beta1"), Status.FAIL),
        (("web_shop_policy_PodDisruptionBudget", "v1"), Status.PASS),
        (("web_shop__Service", "v1"), Status.PASS),
    ],
)
def test_a_kind_that_flux_applies_and_the_target_lost_is_in_the_way(
    cluster: Kubeadm, entry: tuple[str, str], status: Status
) -> None:
    found = look(cluster, flux(inventory=(entry,)), "flux-inventory", "1.36")

    assert found.status is status, told(found.notes)


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        (("kube-system_coredns__ConfigMap", "v1"), Status.WARN),
        (("kube-system_sealed-secrets_apps_Deployment", "v1"), Status.PASS),
        (("web_coredns__ConfigMap", "v1"), Status.PASS),
    ],
)
def test_flux_that_applies_what_kubeadm_writes_is_told(
    cluster: Kubeadm, entry: tuple[str, str], status: Status
) -> None:
    found = look(cluster, flux(inventory=(entry,)), "flux-fights")

    assert found.status is status, told(found.notes)


def test_without_anything_of_flux_there_is_nothing_to_say(cluster: Kubeadm) -> None:
    assert result_of(cluster, "flux-ready", "").status is Status.SKIPPED
