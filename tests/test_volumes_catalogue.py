"""A catalogue comes back as it was written, and what is taken from it can be applied."""

from __future__ import annotations

import gzip
import json
from typing import Any

import msgspec
import pytest

from opsd.cluster.volumes import catalogue as catalogues
from opsd.cluster.volumes.catalogue import Catalogue, Directory
from opsd.cluster.volumes.whole import WholeClaim, WholeClass, WholeVolume
from opsd.errors import PermanentError

VOLUME: dict[str, Any] = {
    "metadata": {
        "name": "pv-1",
        "uid": "u1",
        "resourceVersion": "7",
        "finalizers": ["kubernetes.io/pv-protection"],
        "annotations": {
            "pv.kubernetes.io/provisioned-by": "nfs",
            "pv.kubernetes.io/bound-by-controller": "yes",
            "kubectl.kubernetes.io/last-applied-configuration": "{}",
        },
    },
    "spec": {
        "capacity": {"storage": "1Gi"},
        "nfs": {"server": "nas", "path": "/export/a"},
        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "db", "name": "data"}
        | {"uid": "u2", "resourceVersion": "6"},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "nfs",
        "nodeAffinity": {"required": {"of": "a field that opsd does not use"}},
    },
}
CLAIM: dict[str, Any] = {
    "metadata": {
        "name": "data",
        "namespace": "db",
        "uid": "u2",
        "labels": {"app": "pg"},
        "annotations": {"pv.kubernetes.io/bind-completed": "yes", "kept": "yes"},
        "ownerReferences": [{"kind": "StatefulSet", "name": "pg", "uid": "u3"}],
    },
    "spec": {
        "volumeName": "pv-1",
        "storageClassName": "nfs",
        "dataSource": {"kind": "VolumeSnapshot", "name": "s"},
    },
}
CLASS: dict[str, Any] = {
    "metadata": {"name": "nfs", "uid": "u4"},
    "provisioner": "nfs",
    "parameters": {"archiveOnDelete": "false"},
    "reclaimPolicy": "Delete",
    "allowVolumeExpansion": True,
}


def made(*names: str) -> Catalogue:
    """A catalogue of one class and, for each name, a claim of it with its volume."""
    items = [msgspec.convert(CLASS, WholeClass).manifest()]
    for name in names or ("data",):
        volume = msgspec.convert(VOLUME, WholeVolume).manifest()
        claim = msgspec.convert(CLAIM, WholeClaim).manifest()
        volume["metadata"]["name"] = claim["spec"]["volumeName"] = f"pv-{name}"
        volume["spec"]["claimRef"]["name"] = claim["metadata"]["name"] = name
        items += [volume, claim]
    directory = Directory(share="nfs", path="a", inode=5, modified_at="2026-11-22T03:00:00+00:00")
    return catalogues.catalogue(items, [directory])


def names(found: dict[str, Any]) -> list[str]:
    return [f"{one['kind']} {one['metadata']['name']}" for one in found["items"]]


def test_a_volume_is_made_again_with_every_field_bound_by_name_and_retained() -> None:
    again = msgspec.convert(VOLUME, WholeVolume).manifest()

    assert (again["apiVersion"], again["kind"]) == ("v1", "PersistentVolume")
    assert again["metadata"] == {
        "name": "pv-1",
        "annotations": {
            "pv.kubernetes.io/provisioned-by": "nfs",
            "opsd.dev/reclaim-policy-before": "Delete",
        },
    }
    assert again["spec"]["claimRef"] == {"namespace": "db", "name": "data"}
    assert again["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert again["spec"]["nodeAffinity"] == VOLUME["spec"]["nodeAffinity"]


def test_a_claim_asks_for_the_volume_it_had_and_not_for_a_copy_of_a_snapshot() -> None:
    again = msgspec.convert(CLAIM, WholeClaim).manifest()

    assert again["metadata"] == {
        "namespace": "db",
        "name": "data",
        "labels": {"app": "pg"},
        "annotations": {"kept": "yes"},
    }
    assert again["spec"] == {"volumeName": "pv-1", "storageClassName": "nfs"}


def test_a_catalogue_comes_back_as_it_was_written() -> None:
    one = made("a", "b")

    again = catalogues.decode(catalogues.encode(one), name="x")

    assert again == one
    assert again.counts() == {
        "StorageClass": 1,
        "PersistentVolume": 2,
        "PersistentVolumeClaim": 2,
        "directories": 1,
    }


def test_equal_catalogues_are_equal_bytes() -> None:
    first, second = catalogues.encode(made()), catalogues.encode(made())

    assert first == second
    assert first[4:8] == bytes(4)  # gzip's time stamp


def test_it_is_a_list_that_other_programs_read() -> None:
    document = json.loads(gzip.decompress(catalogues.encode(made())))

    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    assert document["opsd"]["directories"][0]["inode"] == 5


@pytest.mark.parametrize("wanted", ["db/a", "pv-a"])
def test_one_claim_is_taken_with_its_volume_and_its_class(wanted: str) -> None:
    found = catalogues.only(made("a", "b"), wanted)

    assert names(found) == ["StorageClass nfs", "PersistentVolume pv-a", "PersistentVolumeClaim a"]


def test_without_a_name_everything_is_taken() -> None:
    assert len(catalogues.only(made("a", "b"), "")["items"]) == 5


def test_a_name_that_is_not_there_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(PermanentError, match=r"no claim or volume db/c \(has: db/a, db/b"):
        catalogues.only(made("a", "b"), "db/c")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing of this kind",
        catalogues.encode(made())[:-20],
        gzip.compress(b"{}"),
        gzip.compress(b"\xff"),
    ],
    ids=["empty", "text", "cut", "no catalogue", "no text"],
)
def test_what_is_damaged_is_named(content: bytes) -> None:
    with pytest.raises(PermanentError, match="main/today"):
        catalogues.decode(content, name="main/today")


def test_a_catalogue_of_a_newer_opsd_is_refused() -> None:
    document = json.loads(gzip.decompress(catalogues.encode(made())))
    document["opsd"]["format"] = catalogues.FORMAT + 1

    with pytest.raises(PermanentError, match="newer opsd"):
        catalogues.decode(gzip.compress(json.dumps(document).encode()), name="x")


def test_a_catalogue_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "LARGEST_BYTES", 100)

    with pytest.raises(PermanentError, match="larger than"):
        catalogues.decode(catalogues.encode(made()), name="x")
