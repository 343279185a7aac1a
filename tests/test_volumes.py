"""What becomes of data when its claim goes, and what about the volumes is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from opsd.clients.kube.objects import (
    Deployment,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    StorageClass,
)
from opsd.cluster.volumes.fate import Kind, class_kind, fate
from opsd.cluster.volumes.leaving import WAITS_AFTER, leaving
from opsd.cluster.volumes.retaining import wanted
from opsd.cluster.volumes.risks import risks
from opsd.cluster.volumes.storage import (
    Provisioner,
    Storage,
    User,
    image_name,
    place_of,
    provisioners_among,
    size_bytes,
    users_among,
)
from opsd.cluster.volumes.whole import POLICY_BEFORE
from opsd.model import Finding, Severity

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
SUBDIR = "cluster.local/nfs-subdir-external-provisioner"
IMAGE = "registry.test/sig-storage/nfs-subdir-external-provisioner:v4.0.2"


def volume(
    name: str = "pv-1",
    *,
    path: str = "/export/db-data",
    claim: str = "db/data",
    policy: str = "Delete",
    provisioner: str = SUBDIR,
    phase: str = "Bound",
    **more: Any,
) -> PersistentVolume:
    namespace, _, claim_name = claim.partition("/")
    spec = {
        "capacity": {"storage": more.pop("size", "1Gi")},
        "claimRef": {"namespace": namespace, "name": claim_name} if claim else None,
        "persistentVolumeReclaimPolicy": policy,
        "storageClassName": more.pop("storage_class", "nfs"),
        "mountOptions": more.pop("options", []),
        **({"csi": more.pop("csi")} if "csi" in more else {"nfs": nfs(path)}),
    }
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "annotations": {"pv.kubernetes.io/provisioned-by": provisioner} if provisioner else {},
        **more.pop("metadata", {}),
    }
    status = {"phase": phase, **more}
    return msgspec.convert(
        {"metadata": metadata, "spec": spec, "status": status}, PersistentVolume
    )


def nfs(path: str) -> dict[str, str]:
    return {"server": "nas", "path": path}


def storage_class(name: str = "nfs", policy: str = "Delete", **parameters: str) -> StorageClass:
    told = {
        "metadata": {"name": name},
        "provisioner": SUBDIR,
        "parameters": parameters,
        "reclaimPolicy": policy,
    }
    return msgspec.convert(told, StorageClass)


def claim(name: str = "data", namespace: str = "db", **metadata: Any) -> PersistentVolumeClaim:
    told = {
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"volumeName": "pv-1"},
    }
    return msgspec.convert(told, PersistentVolumeClaim)


def storage(*volumes: PersistentVolume, **fields: Any) -> Storage:
    given = {"classes": {"nfs": storage_class(archiveOnDelete="false")}, **fields}
    return Storage(now=NOW, volumes=volumes, **given)


def acting(image: str = IMAGE) -> Provisioner:
    return Provisioner(name=SUBDIR, image=image, server="nas", path="/export")


def told(one: Storage) -> list[Finding]:
    fates = {each.name: fate(each, one) for each in one.volumes}
    return [*risks(one, fates), *leaving(one, fates)]


def only(one: Storage, check: str) -> Finding:
    found = [finding for finding in told(one) if finding.check == f"volumes.{check}"]
    assert len(found) == 1, told(one)
    return found[0]


def checks(one: Storage) -> set[str]:
    return {finding.check.removeprefix("volumes.") for finding in told(one)}


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [
        ({}, Kind.ARCHIVED),
        ({"archiveOnDelete": "true"}, Kind.ARCHIVED),
        ({"archiveOnDelete": "false"}, Kind.DESTROYED),
        ({"archiveOnDelete": "F"}, Kind.DESTROYED),
        ({"archiveOnDelete": "no"}, Kind.FAILS),
        ({"onDelete": "delete", "archiveOnDelete": "true"}, Kind.DESTROYED),
        ({"onDelete": "retain", "archiveOnDelete": "false"}, Kind.LEFT),
        ({"onDelete": "Retain"}, Kind.ARCHIVED),
    ],
)
def test_the_class_decides_what_the_subdir_provisioner_does(
    parameters: dict[str, str], kind: Kind
) -> None:
    made = storage_class(**parameters)
    seen = storage(volume(), classes={"nfs": made})

    assert fate(volume(), seen).kind is kind
    assert class_kind(made, seen) is kind


@pytest.mark.parametrize(
    ("policy", "kind"),
    [("Retain", Kind.KEPT), ("Delete", Kind.DESTROYED), ("Recycle", Kind.DESTROYED)],
)
def test_the_volumes_own_policy_comes_first(policy: str, kind: Kind) -> None:
    assert fate(volume(policy=policy), storage()).kind is kind


def test_without_its_class_the_provisioner_fails() -> None:
    assert fate(volume(), storage(classes={})).kind is Kind.FAILS


def test_nothing_deletes_a_volume_that_a_person_made() -> None:
    assert fate(volume(provisioner=""), storage()).kind is Kind.FAILS


def test_of_an_unknown_driver_the_worst_is_said() -> None:
    other = volume(provisioner="nfs.ganesha.test", storage_class="other")
    block = volume(provisioner="csi.test", csi={"driver": "csi.test", "volumeHandle": "a"})

    assert fate(other, storage()).kind is Kind.DESTROYED
    assert fate(block, storage()).kind is Kind.DESTROYED


@pytest.mark.parametrize(
    ("handle", "kind"),
    [
        ("nas#export#a##", Kind.DESTROYED),
        ("nas#export#a#", Kind.DESTROYED),
        ("nas/export/a", Kind.DESTROYED),
        ("nas#export#a##delete", Kind.DESTROYED),
        ("nas#export#a##retain", Kind.LEFT),
        ("nas#export#a#pv-1#Archive", Kind.ARCHIVED),
    ],
)
def test_a_volume_of_csi_driver_nfs_carries_its_fate(handle: str, kind: Kind) -> None:
    csi = {"driver": "nfs.csi.k8s.io", "volumeHandle": handle}

    assert fate(volume(provisioner="nfs.csi.k8s.io", csi=csi), storage()).kind is kind


def test_a_volume_of_csi_driver_nfs_has_a_place() -> None:
    attributes = {"server": "nas", "share": "/export/", "subDir": "a/b"}
    csi = {"driver": "nfs.csi.k8s.io", "volumeHandle": "h", "volumeAttributes": attributes}

    assert str(place_of(volume(csi=csi))) == "nas:/export/a/b"


@pytest.mark.parametrize(
    ("image", "path", "kind"),
    [
        (IMAGE, "/export/db/data", Kind.MISDIRECTED),
        (IMAGE, "/export/db-data", Kind.DESTROYED),
        (IMAGE.replace("4.0.2", "4.0.3"), "/export/db/data", Kind.DESTROYED),
        (IMAGE.replace("4.0.2", "4.0.0"), "/export/db/data", Kind.MISDIRECTED),
        (IMAGE.replace("v4.0.2", "latest"), "/export/db/data", Kind.DESTROYED),
    ],
)
def test_release_4_0_2_misses_directories_below_the_first_level(
    image: str, path: str, kind: Kind
) -> None:
    seen = storage(provisioners=(acting(image),))

    assert fate(volume(path=path), seen).kind is kind


def test_a_destroying_class_is_one_finding_that_names_the_database_and_the_effect() -> None:
    volumes = [volume(f"pv-{n}", path=f"/export/{n}", claim=f"app/c{n}") for n in range(20)]
    users = (User(namespace="app", name="pg-0", claims=("c7",), is_database=True),)

    found = only(storage(*volumes, users=users), "deletion_destroys")

    assert (found.subject, found.severity) == ("storageclass/nfs", Severity.WARNING)
    assert "app/c7 and 19 more" in found.summary
    assert found.facts["effect"] == "deleting claim app/c7 removes nas:/export/7 for good"
    assert found.facts["capacity_bytes"] == 20 << 30
    assert "kubectl patch pv pv-7" in found.remedy


def test_without_a_database_the_largest_is_named() -> None:
    small, large = volume("a", claim="x/a"), volume("b", claim="x/b", size="2Ti", path="/e/b")

    assert "x/b and 1 more" in only(storage(large, small), "deletion_destroys").summary


def test_kept_and_archived_data_is_no_finding() -> None:
    archiving = {"nfs": storage_class()}

    assert checks(storage(volume(), classes=archiving)) == set()
    assert checks(storage(volume(policy="Retain"), classes=archiving)) == set()


def test_a_destroying_class_that_nobody_uses_is_for_the_report_only() -> None:
    assert only(storage(), "deletion_destroys").severity is Severity.INFO
    assert checks(storage(classes={"nfs": storage_class(policy="Retain")})) == set()


@pytest.mark.parametrize(
    ("label", "guarded", "is_told"),
    [("true", True, False), ("true", False, True), ("false", True, True)],
)
def test_a_claim_whose_deletion_is_refused_is_no_risk(
    label: str, *, guarded: bool, is_told: bool
) -> None:
    protected = claim(labels={"opsd.dev/protect": label})
    seen = storage(volume(), claims=(protected,), guarded=guarded)

    assert ("deletion_destroys" in checks(seen)) is is_told


def test_a_misdirected_deletion_that_hits_another_volume_is_critical() -> None:
    below = volume("pv-1", path="/export/team/data", claim="team/data")
    hit = volume("pv-2", path="/export/data", claim="db/data", policy="Retain")
    seen = storage(below, hit, provisioners=(acting(),))

    found = only(seen, "provisioner_misdirected")
    alone = only(replace(seen, volumes=(below,)), "provisioner_misdirected")

    assert (found.severity, alone.severity) == (Severity.CRITICAL, Severity.WARNING)
    assert found.summary == "deleting claim team/data hits the data of db/data"
    assert found.facts["effect"] == (
        "deleting claim team/data removes nas:/export/data for good, if it exists"
    )


@pytest.mark.parametrize(
    ("pattern", "policy", "is_told"),
    [
        ("${.PVC.namespace}/${.PVC.name}", "Delete", True),
        ("${.PVC.name}", "Delete", False),
        ("a/b", "Retain", False),
    ],
)
def test_a_class_that_would_misdirect_is_for_the_report(
    pattern: str, policy: str, *, is_told: bool
) -> None:
    nested = {"nfs": storage_class(policy=policy, pathPattern=pattern)}
    seen = storage(classes=nested, provisioners=(acting(),))
    newer = replace(seen, provisioners=(acting(IMAGE.replace("4.0.2", "4.0.3")),))

    assert ("provisioner_misdirected" in checks(seen)) is is_told
    assert checks(newer) == set()
    if is_told:
        assert only(seen, "provisioner_misdirected").severity is Severity.INFO


@pytest.mark.parametrize("phase", ["Released", "Failed"])
def test_a_volume_whose_claim_is_gone_already_is_no_risk(phase: str) -> None:
    found = only(storage(volume(phase=phase)), "deletion_destroys")

    assert found.facts["volumes"] == 0


def test_volumes_in_one_directory_are_told_once() -> None:
    outer = volume("a", path="/export/media", claim="x/a")
    same = volume("b", path="/export/media/", claim="x/b", policy="Retain")
    inner = volume("c", path="/export/media/tv", claim="x/c", policy="Retain")
    beside = volume("d", path="/export/media-2", claim="x/d")

    found = only(storage(beside, inner, same, outer), "directory_shared")
    harmless = only(storage(inner, same), "directory_shared")

    assert found.subject == "directory/nas:/export/media"
    assert (found.facts["volumes"], found.severity) == (3, Severity.WARNING)
    assert harmless.severity is Severity.INFO


def test_directories_beside_each_other_are_not_shared() -> None:
    two = storage(volume("a", path="/export/a"), volume("b", path="/export/ab"))

    assert "directory_shared" not in checks(two)


@pytest.mark.parametrize(
    ("options", "is_soft"),
    [
        (["soft"], True),
        (["vers=4.1,soft"], True),
        (["softerr"], True),
        (["softreval"], False),
        (["soft", "hard"], False),
        (["hard", "soft"], True),
        ([], False),
    ],
)
def test_a_database_on_a_soft_mount_is_told(options: list[str], *, is_soft: bool) -> None:
    pg = User(namespace="db", name="pg-0", claims=("data",), is_database=True)
    web = replace(pg, is_database=False)
    one = volume(options=options)

    assert ("soft_mount" in checks(storage(one, users=(pg,)))) is is_soft
    assert "soft_mount" not in checks(storage(one, users=(web,)))


@pytest.mark.parametrize(
    ("waited", "is_told"), [(WAITS_AFTER, True), (WAITS_AFTER - timedelta(seconds=1), False)]
)
def test_a_deleted_claim_that_a_pod_holds_is_told_after_a_while(
    waited: timedelta, *, is_told: bool
) -> None:
    leaving_ = claim(deletionTimestamp=NOW - waited, finalizers=["kubernetes.io/pvc-protection"])

    assert ("claim_waits" in checks(storage(volume(), claims=(leaving_,)))) is is_told


def test_a_deleted_claim_whose_data_will_go_is_critical_and_names_the_pod() -> None:
    gone = claim(deletionTimestamp=NOW - WAITS_AFTER, finalizers=["kubernetes.io/pvc-protection"])
    pg = User(namespace="db", name="pg-0", claims=("data",), is_database=True)

    doomed = only(storage(volume(), claims=(gone,), users=(pg,)), "claim_waits")
    kept = only(storage(volume(policy="Retain"), claims=(gone,), users=(pg,)), "claim_waits")

    assert doomed.severity is Severity.CRITICAL
    assert doomed.summary == (
        "claim data was deleted and is gone with its data as soon as pod pg-0 ends"
    )
    assert "kubectl patch pv pv-1" in doomed.remedy
    assert kept.severity is Severity.WARNING
    assert kept.summary == "claim data was deleted and goes as soon as pod pg-0 ends"


def test_a_deleted_claim_that_a_controller_holds_names_the_finalizer() -> None:
    held = claim(deletionTimestamp=NOW - WAITS_AFTER, finalizers=["snapshot.test/source"])

    found = only(storage(claims=(held,)), "claim_waits")

    assert found.summary == "claim data was deleted and is held by snapshot.test/source"


def test_a_deleted_volume_names_the_claim_that_still_holds_it() -> None:
    going = volume(policy="Retain", metadata={"deletionTimestamp": NOW - WAITS_AFTER})

    assert only(storage(going), "volume_waits").summary == (
        "volume pv-1 was deleted and goes with claim db/data"
    )


def test_released_and_failed_volumes_are_told_with_their_age() -> None:
    since = {"lastPhaseTransitionTime": (NOW - timedelta(days=93)).isoformat()}
    old = volume("old", policy="Retain", phase="Released", path="/e/1", **since)
    young = volume("young", policy="Retain", phase="Released", path="/e/2")
    failed = volume("bad", policy="Retain", phase="Failed", path="/e/3", message="rename: busy")

    seen = storage(young, old, failed)

    released = only(seen, "released")
    assert released.summary == "volume old of db/data is Released and 1 more"
    assert (released.facts["oldest_days"], released.severity) == (93, Severity.INFO)
    assert only(seen, "failed").summary == "volume bad of db/data is Failed: rename: busy"
    assert only(seen, "failed").severity is Severity.WARNING


def test_only_what_the_owner_named_is_retained_and_nothing_twice() -> None:
    named = volume("a", claim="db/a")
    kept = volume("b", claim="db/b", policy="Retain")
    other = volume("c", claim="web/c")
    undone = volume("d", claim="db/d", metadata={"annotations": {POLICY_BEFORE: "Delete"}})
    released = volume("e", claim="db/e", phase="Released")

    found = {
        one.volume.name: one.refused
        for one in wanted(storage(named, kept, other, undone, released), ["db/*"])
    }

    assert found == {
        "a": "",
        "d": f"somebody set it back: its annotation {POLICY_BEFORE} is there",
        "e": "it is Released",
    }


@pytest.mark.parametrize(
    ("image", "is_database"),
    [
        ("postgres:17", True),
        ("registry.test:5000/bitnami/postgresql@sha256:00", True),
        ("ghcr.test/cloudnative-pg/postgresql:17", True),
        ("mariadb", True),
        ("quay.test/prometheuscommunity/postgres-exporter:v1", False),
        ("nginx:1", False),
        ("postgres.test/app:1", False),
    ],
)
def test_a_database_is_known_by_its_image(image: str, *, is_database: bool) -> None:
    (found,) = users_among([pod(image)])

    assert found.is_database is is_database


def pod(image: str = "app", phase: str = "Running") -> Pod:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "tmp", "ephemeral": {}},
        {"name": "none", "emptyDir": {}},
    ]
    told_ = {
        "metadata": {"name": "pg-0", "namespace": "db"},
        "spec": {"containers": [{"name": "c", "image": image}], "volumes": volumes},
        "status": {"phase": phase},
    }
    return msgspec.convert(told_, Pod)


def test_pods_that_ended_use_nothing() -> None:
    assert [one.claims for one in users_among([pod()])] == [("data", "pg-0-tmp")]
    assert list(users_among([pod(phase="Succeeded"), pod(phase="Failed")])) == []


def test_a_provisioner_is_known_by_its_variables() -> None:
    variables = {"PROVISIONER_NAME": SUBDIR, "NFS_SERVER": "nas", "NFS_PATH": "/export/"}
    container = {
        "image": IMAGE,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
    }
    deployment = {"spec": {"template": {"spec": {"containers": [container, {"image": "x"}]}}}}

    assert list(provisioners_among([msgspec.convert(deployment, Deployment)])) == [acting()]


@pytest.mark.parametrize(
    ("text", "number"),
    [("8Gi", 8 << 30), ("1.5k", 1500), ("10", 10), ("", 0), ("lots", 0), ("1Ei", 1 << 60)],
)
def test_quantities_are_numbers(text: str, number: int) -> None:
    assert size_bytes(text) == number


@pytest.mark.parametrize("end", ["", ":1", "@sha256:00", ":1@sha256:00"])
def test_image_names_lose_registry_tag_and_digest(end: str) -> None:
    assert image_name(f"registry.test:5000/team/app{end}") == "app"
