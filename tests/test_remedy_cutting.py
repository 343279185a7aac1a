"""What a pod can still write to when its node is kept from one file server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opsd.clients.kube.objects import PersistentVolume, Pod
from opsd.cluster.remedy.cutting import by_claim, uncut

SERVERS = frozenset({"10.0.0.5", "nas.lan"})
CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}
NFS = {"nfs": {"server": "10.0.0.5", "path": "/export/db"}}
CSI = {
    "csi": {
        "driver": "nfs.csi.k8s.io",
        "volumeHandle": "h",
        "volumeAttributes": {"server": "nas.lan", "share": "/export"},
    }
}


def pod(volume: dict[str, Any], *mounts: bool) -> Pod:
    """A pod with one volume; `mounts` are its mounts: whether for reading only."""
    own = [{"name": "v", "mountPath": "/v", "readOnly": one} for one in mounts or (False,)]
    containers = [{"name": "c", "volumeMounts": own}]
    value = {
        "metadata": {"namespace": "db", "name": "pg-0"},
        "spec": {"containers": containers, "volumes": [{"name": "v", **volume}]},
    }
    return msgspec.convert(value, Pod)


def bound(spec: dict[str, Any], claim: str = "data", namespace: str = "db") -> PersistentVolume:
    reference = {"namespace": namespace, "name": claim}
    value = {"metadata": {"name": "pv-1"}, "spec": {"claimRef": reference, **spec}}
    return msgspec.convert(value, PersistentVolume)


def places(pod: Pod, *volumes: PersistentVolume) -> list[str]:
    return list(uncut(pod, by_claim(volumes), SERVERS))


@pytest.mark.parametrize(
    "spec", [NFS, CSI, NFS | {"mountOptions": ["hard,port=2049", "vers=4.2"]}]
)
def test_a_volume_of_this_server_is_cut(spec: dict[str, Any]) -> None:
    assert places(pod(CLAIM), bound(spec)) == []


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"nfs": {"server": "10.0.0.6", "path": "/e"}}, "data on nfs 10.0.0.6:/e"),
        ({"local": {"path": "/srv"}}, "data on /srv of the node"),
        ({"hostPath": {"path": "/srv"}}, "data on /srv of the node"),
        (
            {"csi": {"driver": "driver.longhorn.io", "volumeHandle": "pv-1"}},
            "data on driver.longhorn.io pv-1",
        ),
        (
            {
                "csi": {
                    "driver": "x",
                    "volumeHandle": "h",
                    "volumeAttributes": {"server": "nas.lan"},
                }
            },
            "data on x h",
        ),
        ({"iscsi": {"targetPortal": "10.0.0.5"}}, "data on pv-1"),
        (NFS | {"mountOptions": ["hard", "port=2050"]}, "data, mounted with port=2050"),
        (NFS | {"mountOptions": ["proto=rdma"]}, "data, mounted with RDMA"),
        (NFS | {"mountOptions": ["vers=3,rdma"]}, "data, mounted with RDMA"),
    ],
)
def test_a_volume_that_lies_elsewhere_is_not(spec: dict[str, Any], place: str) -> None:
    assert places(pod(CLAIM), bound(spec)) == [place]


def test_a_claim_whose_volume_is_not_known_is_not_cut() -> None:
    unknown = ["data, whose volume is not known"]

    assert places(pod(CLAIM)) == unknown
    assert places(pod(CLAIM), bound(NFS, namespace="web")) == unknown
    assert places(pod(CLAIM), bound(NFS, claim="other")) == unknown
    assert places(pod({"ephemeral": {}}), bound(NFS, claim="pg-0-v")) == []
    assert places(pod({"ephemeral": {}})) == ["pg-0-v, whose volume is not known"]


@pytest.mark.parametrize(
    "volume",
    [
        {"emptyDir": {}},
        {"configMap": {"name": "x"}},
        {"secret": {"secretName": "x"}},
        {"projected": {"sources": []}},
        {"downwardAPI": {"items": []}},
        {"nfs": {"server": "nas.lan", "path": "/e"}},
        {"nfs": {"server": "10.0.0.6", "path": "/e", "readOnly": True}},
        {"persistentVolumeClaim": {"claimName": "x", "readOnly": True}},
    ],
)
def test_what_is_nobody_elses_or_only_read_is_no_matter(volume: dict[str, Any]) -> None:
    assert places(pod(volume)) == []


@pytest.mark.parametrize(
    ("volume", "place"),
    [
        ({"hostPath": {"path": "/mnt/nfs"}}, "/mnt/nfs of the node"),
        ({"nfs": {"server": "10.0.0.6", "path": "/e"}}, "nfs 10.0.0.6:/e"),
        ({"cephfs": {"monitors": []}}, "v"),
    ],
)
def test_other_volumes_of_a_pod_are_not_cut(volume: dict[str, Any], place: str) -> None:
    assert places(pod(volume)) == [place]


@pytest.mark.parametrize(
    ("mounts", "is_written"), [((True,), False), ((True, True), False), ((True, False), True)]
)
def test_a_volume_is_written_to_unless_every_mount_is_for_reading(
    mounts: tuple[bool, ...],
    is_written: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert bool(places(pod({"hostPath": {"path": "/etc/localtime"}}, *mounts))) is is_written


def test_what_nothing_mounts_may_be_used_as_a_device() -> None:
    value = {
        "metadata": {"namespace": "db", "name": "pg-0"},
        "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", **CLAIM}]},
    }

    device = bound({"iscsi": {"targetPortal": "10.0.0.6"}})

    assert places(msgspec.convert(value, Pod), device) == ["data on pv-1"]


@pytest.mark.parametrize("source", ["nfs", "csi"])
def test_a_volume_that_is_read_only_itself_is_no_matter(source: str) -> None:
    spec = {"nfs": {"server": "x", "path": "/"}, "csi": {"driver": "x"}}[source] | {
        "readOnly": True
    }

    assert places(pod(CLAIM), bound({source: spec})) == []
