"""Claims on NFS that no share holds are named, and no others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsd.clients.kube.answers import decoder
from opsd.clients.kube.objects import PersistentVolume, PersistentVolumeClaim
from opsd.clients.mounts import nfs_mounts
from opsd.cluster.claims import BackedUp, uncovered
from opsd.cluster.volumes.storage import Storage
from opsd.errors import ConfigError
from opsd.model import Severity

MADE = datetime(2026, 11, 1, tzinfo=UTC)
NOW = MADE + timedelta(days=20)
OLDER_THAN = timedelta(hours=36)


def volume(name: str, path: str, *, server: str = "nas", phase: str = "Bound") -> PersistentVolume:
    item = {
        "metadata": {"name": f"pv-{name}", "uid": name},
        "spec": {
            "nfs": {"server": server, "path": path},
            "claimRef": {"namespace": "db", "name": name},
        },
        "status": {"phase": phase},
    }
    return decoder(PersistentVolume).decode(json.dumps(item).encode())


def claim(
    name: str, *, made: datetime = MADE, phase: str = "Bound", **annotations: str
) -> PersistentVolumeClaim:
    meta = {"name": name, "namespace": "db", "uid": f"c-{name}"}
    meta |= {"creationTimestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ")}
    notes = {f"opsd.dev/{key}": value for key, value in annotations.items()}
    item = {"metadata": {**meta, "annotations": notes}, "status": {"phase": phase}}
    return decoder(PersistentVolumeClaim).decode(json.dumps(item).encode())


def named(
    *shares: BackedUp,
    volumes: list[PersistentVolume],
    claims: list[PersistentVolumeClaim] | None = None,
) -> list[str]:
    known = claims or [
        claim(one.spec.claim_ref.name) for one in volumes if one.spec.claim_ref is not None
    ]
    storage = Storage(now=NOW, volumes=tuple(volumes), claims=tuple(known))
    return [one.subject for one in uncovered(storage, shares, older_than=OLDER_THAN)]


def share(**changed: object) -> BackedUp:
    known = {"name": "nfs", "path": Path("/mnt/nfs"), "source": "nas:/srv/k8s"}
    return BackedUp(**{**known, **changed})  # type: ignore[arg-type]


def test_a_claim_beside_the_share_is_named_with_its_directory() -> None:
    volumes = [volume("in", "/srv/k8s/a"), volume("out", "/srv/k8s-2/b")]
    storage = Storage(now=NOW, volumes=tuple(volumes), claims=(claim("in"), claim("out")))

    [finding] = uncovered(storage, [share()], older_than=OLDER_THAN)

    assert finding.check == "backup.not_covered"
    assert finding.subject == "claim/db/out"
    assert finding.severity is Severity.WARNING
    assert finding.facts["directory"] == "nas:/srv/k8s-2/b"


def test_without_any_share_every_claim_on_nfs_is_named() -> None:
    assert named(volumes=[volume("a", "/x/a"), volume("b", "/x/b")]) == [
        "claim/db/a",
        "claim/db/b",
    ]


def test_a_local_share_holds_no_claim() -> None:
    assert named(share(source=""), volumes=[volume("a", "/mnt/nfs/a")]) == ["claim/db/a"]


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("scratch", True),
        ("/scratch", True),
        ("/scratch/a", True),
        ("scratch/*", True),
        ("s*", True),
        ("/a", False),
        ("/scratch/b", False),
        ("scratch-2", False),
    ],
)
def test_a_claim_that_the_share_leaves_out_is_named(pattern: str, *, left_out: bool) -> None:
    found = named(share(exclude=(pattern,)), volumes=[volume("a", "/srv/k8s/scratch/a")])

    assert found == (["claim/db/a"] if left_out else [])


def test_what_the_owner_says_of_a_share_counts_over_its_mount() -> None:
    told = share(source="nas:/pseudo", export="nas:/srv/k8s")

    assert named(told, volumes=[volume("a", "/srv/k8s/a")]) == []


def test_a_server_that_has_another_name_here_is_the_same_when_there_is_only_one() -> None:
    here = share(source="192.0.2.7:/srv/k8s")

    assert named(here, volumes=[volume("a", "/srv/k8s/a")]) == []


def test_shares_that_cannot_be_told_apart_are_an_error_and_not_healthy() -> None:
    here = share(source="192.0.2.7:/srv/k8s")
    volumes = [volume("a", "/srv/k8s/a"), volume("b", "/srv/k8s/b", server="nas2")]

    with pytest.raises(ConfigError, match="several servers"):
        named(here, volumes=volumes)


def test_a_claim_may_be_declined_and_a_young_one_may_wait() -> None:
    volumes = [volume(name, f"/x/{name}") for name in ("declined", "insisted", "young", "old")]
    claims = [
        claim("declined", backup="false"),
        claim("insisted", backup="true"),
        claim("young", made=NOW - OLDER_THAN),
        claim("old", made=NOW - OLDER_THAN - timedelta(seconds=1)),
    ]

    assert named(volumes=volumes, claims=claims) == ["claim/db/insisted", "claim/db/old"]


def test_a_volume_whose_claim_is_gone_is_not_a_claim() -> None:
    volumes = [volume("gone", "/x/gone", phase="Released")]

    assert named(volumes=volumes, claims=[claim("other")]) == []


def test_mounts_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        "nas:/srv/k8s /mnt/a\\040b nfs4 rw 0 0\n"
        "[fd00::1]:/ /mnt/six nfs rw 0 0\n"
        "/dev/sda1 /mnt/disk ext4 rw 0 0\n"
        "nas:/covered /mnt/twice nfs rw 0 0\n"
        "/dev/sdb1 /mnt/twice ext4 rw 0 0\n"
        "garbage\n"
    )

    assert nfs_mounts(table) == {"/mnt/a b": "nas:/srv/k8s", "/mnt/six": "[fd00::1]:/"}
    assert nfs_mounts(tmp_path / "gone") == {}
