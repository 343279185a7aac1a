"""pv-guard on a real control plane: it reads, it tells, and what was deleted comes back."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import pv_guard
from jobs.pv_guard import Settings
from opsd.backup.catalog import read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.clients.kube.access import from_kubeconfig
from opsd.clients.kube.client import Kube
from opsd.clients.kube.objects import PersistentVolume
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.cluster.volumes import catalogue as catalogues
from opsd.cluster.volumes import whole
from opsd.cluster.volumes.retaining import retain, wanted
from opsd.cluster.volumes.whole import POLICY_BEFORE
from opsd.model import Finding, Outcome, Run, Severity
from opsd.runner import execute
from opsd.testing import context
from tests.integration.test_restore_by_hand import block
from tests.rig import controlplane
from tests.rig.controlplane import ControlPlane
from tests.rig.home import ROOT
from tests.rig.kubeapi import ApiError, KubeApi, Object, eventually, path_of
from tests.rig.kubestate import is_gone
from tests.rig.workloads import deployment, pod, pod_spec

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

POLICIES = ROOT / "deploy/policy"
SUBDIR = "cluster.local/nfs-subdir-external-provisioner"
USER = "system:serviceaccount:opsd:opsd-pv-guard"
ROLE, RETAIN, PROTECT = "pv-guard.yaml", "pv-guard-retain.yaml", "protect.yaml"
START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


def put(api: KubeApi, file: str) -> None:
    """What ``kubectl apply -f deploy/policy/FILE`` does on a cluster that has none of it."""
    for item in yaml.safe_load_all((POLICIES / file).read_text()):
        with contextlib.suppress(ApiError):
            api.create(item)


def take_away(api: KubeApi, file: str) -> None:
    for item in yaml.safe_load_all((POLICIES / file).read_text()):
        api.delete(path_of(item))


@pytest.fixture(scope="module")
def kube(control_plane: ControlPlane) -> Iterator[Kube]:
    """The cluster as pv-guard sees it with its own role."""
    if control_plane.api.find("/api/v1/namespaces/opsd") is None:
        control_plane.namespace("opsd")
    put(control_plane.api, ROLE)
    path = control_plane.kubeconfig_of("opsd", "opsd-pv-guard")
    yield Kube(
        Transport(lambda: from_kubeconfig(str(path))), deadline=Deadline.after(600, SystemClock())
    )
    take_away(control_plane.api, ROLE)


class Storage:
    """A class and claims with volumes, as the provisioner would have made them."""

    def __init__(self, api: KubeApi, namespace: str, share: Path) -> None:
        self.api, self.namespace, self.share = api, namespace, share
        self.server = f"{namespace}.nas"
        self.claims: dict[str, Object] = {}
        self.volumes: dict[str, Object] = {}

    def storage_class(self, **parameters: str) -> None:
        self.api.create(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": self.namespace},
                "provisioner": SUBDIR,
                "parameters": parameters,
                "reclaimPolicy": "Delete",
            }
        )

    def claim(self, name: str, *, path: str = "", labels: dict[str, str] | None = None) -> None:
        """A claim that is bound to a volume whose directory is on the share."""
        path = path or f"{self.namespace}-{name}"
        (self.share / path).mkdir(parents=True)
        shape: Object = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": self.namespace,
        }
        metadata = {"name": name, "namespace": self.namespace}
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": f"{self.namespace}-{name}",
                "annotations": {"pv.kubernetes.io/provisioned-by": SUBDIR},
            },
            "spec": shape
            | {
                "capacity": {"storage": "1Gi"},
                "claimRef": metadata,
                "persistentVolumeReclaimPolicy": "Delete",
                "nfs": {"server": self.server, "path": f"/export/{path}"},
            },
        }
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata | {"labels": labels or {}},
            "spec": shape | {"resources": {"requests": {"storage": "1Gi"}}},
        }
        self.volumes[name] = self.api.create(volume)
        self.claims[name] = self.api.create(claim)
        self.bound(name)

    def bound(self, name: str) -> Object:
        """Wait until claim and volume are bound to each other; returns the volume."""

        def look() -> Object | None:
            volume = self.api.find(path_of(self.volumes[name]))
            claim = self.api.find(path_of(self.claims[name]))
            bound = (
                volume
                and claim
                and volume["status"].get("phase") == claim["status"].get("phase") == "Bound"
            )
            return volume if bound else None

        return eventually(look)

    def remove(self) -> None:
        for volume in self.volumes.values():
            with contextlib.suppress(ApiError):
                self.api.delete(path_of(volume))
        self.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{self.namespace}")


@pytest.fixture
def made(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Storage]:
    (tmp_path / "share").mkdir()
    storage = Storage(control_plane.api, namespace, tmp_path / "share")
    yield storage
    storage.remove()


def run_job(kube: Kube, made: Storage, *, day: int = 0, dry_run: bool = False, **more: Any) -> Run:
    place = made.share.parent
    (place / "repository").mkdir(exist_ok=True)
    share = {
        "name": "nfs",
        "path": str(made.share),
        "mounted": False,
        "export": f"{made.server}:/export",
    }
    settings = {"repositories": ["disk"], "shares": [share], **more}
    ctx = context(
        scratch=place,
        repositories=(repository(made),),
        kube=kube,
        clock=SystemClock(),
        job="pv-guard",
        run_id=f"{day + 100:012x}",
        slot=START + timedelta(days=day),
        timeout=timedelta(minutes=5),
        dry_run=dry_run,
    )
    return execute(pv_guard.JOB, Settings.model_validate(settings), ctx)


def repository(made: Storage) -> DirectoryRepository:
    return DirectoryRepository("disk", made.share.parent / "repository")


def of_class(run: Run, made: Storage) -> dict[str, Finding]:
    """The findings about the class of this test, by check."""
    subject = f"storageclass/{made.namespace}"
    return {one.check: one for one in run.findings if one.subject == subject}


def stored(run: Run, made: Storage) -> catalogues.Catalogue:
    (artifact,) = run.artifacts
    (backup,) = [one for one in read_catalog(repository(made)).backups if one.key == artifact.key]
    content = b"".join(repository(made).read(backup.manifest.key))
    return catalogues.decode(content, name=artifact.key)


def test_what_can_be_lost_is_told_and_nothing_but_reading_is_done(
    control_plane: ControlPlane, kube: Kube, made: Storage
) -> None:
    made.storage_class(archiveOnDelete="false", pathPattern="${.PVC.namespace}/${.PVC.name}")
    made.claim("flat")
    made.claim("below", path=f"{made.namespace}/flat-twin")
    (made.share / "archived-old").mkdir()
    variables = {"PROVISIONER_NAME": SUBDIR, "NFS_SERVER": made.server, "NFS_PATH": "/export"}
    env = [{"name": key, "value": value} for key, value in variables.items()]
    image = "registry.test/nfs-subdir-external-provisioner:v4.0.2"
    spec = pod_spec() | {"containers": [{"name": "p", "image": image, "env": env}]}
    made.api.create(deployment(made.namespace, "provisioner", spec, replicas=0))
    since = control_plane.audit.mark()

    run = run_job(kube, made)

    assert run.outcome is Outcome.COMPLETED, run.error
    told = of_class(run, made)
    assert told["volumes.deletion_destroys"].facts["effect"] == (
        f"deleting claim {made.namespace}/flat removes "
        f"{made.server}:/export/{made.namespace}-flat for good"
    )
    assert told["volumes.provisioner_misdirected"].severity is Severity.WARNING
    share = {one.check for one in run.findings if one.subject == "share/nfs"}
    assert share == {"volumes.directories_archived"}
    calls = control_plane.audit.calls(user=USER, since=since)
    assert {(call.verb, call.resource, call.name) for call in calls if call.resource} == {
        ("list", "persistentvolumes", ""),
        ("list", "persistentvolumeclaims", ""),
        ("list", "storageclasses", ""),
        ("list", "pods", ""),
        ("list", "deployments", ""),
        ("get", "validatingadmissionpolicybindings", "protect.opsd.dev"),
    }
    assert len(calls) <= 8  # one page of each


def test_a_deleted_claim_that_a_pod_still_uses_is_told_while_its_data_is_there(
    kube: Kube, made: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("opsd.cluster.volumes.leaving.WAITS_AFTER", timedelta(0))
    made.storage_class(archiveOnDelete="false")
    made.claim("data")
    mounted = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    spec = pod_spec(nodeName="elsewhere", volumes=mounted, image="registry.test/postgres:17")
    made.api.create(pod(made.namespace, "pg-0", spec))

    made.api.delete(path_of(made.claims["data"]))
    run = run_job(kube, made)

    (found,) = [one for one in run.findings if one.check == "volumes.claim_waits"]
    assert (found.subject, found.severity) == (f"namespace/{made.namespace}", Severity.CRITICAL)
    assert found.summary == (
        "claim data was deleted and is gone with its data as soon as pod pg-0 ends"
    )
    assert found.remedy.startswith(f"kubectl patch pv {made.namespace}-data ")


def test_without_its_role_the_run_fails_and_names_what_is_missing(
    control_plane: ControlPlane, made: Storage
) -> None:
    made.api.create({"apiVersion": "v1", "kind": "ServiceAccount"} | named(made, "nobody"))
    path = control_plane.kubeconfig_of(made.namespace, "nobody")
    nobody = Kube(
        Transport(lambda: from_kubeconfig(str(path))), deadline=Deadline.after(60, SystemClock())
    )
    made.storage_class()

    run = run_job(nobody, made)

    assert run.outcome is Outcome.FAILED
    assert "list storageclasses: 403 Forbidden" in run.error
    assert run.seen == ()


def named(made: Storage, name: str) -> Object:
    return {"metadata": {"name": name, "namespace": made.namespace}}


def test_a_deleted_volume_is_bound_again_to_its_directory_by_hand(
    control_plane: ControlPlane, kube: Kube, made: Storage
) -> None:
    made.storage_class(archiveOnDelete="false")
    made.claim("data", labels={"app": "pg"})
    made.claim("other")
    before = made.volumes["data"]
    run = run_job(kube, made)
    lose(made, "data")
    run_job(kube, made, day=1)  # a catalogue without it

    by_hand(
        control_plane,
        made,
        CLAIM="data",
        NAMESPACE=made.namespace,
        CLUSTER="main",
        REPO=str(made.share.parent / "repository"),
    )

    again = made.bound("data")
    assert again["metadata"]["uid"] != before["metadata"]["uid"]
    assert again["spec"]["nfs"] == before["spec"]["nfs"]
    assert again["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    claim = made.api.get(path_of(made.claims["data"]))
    assert claim["metadata"]["labels"] == {"app": "pg"}
    assert claim["spec"]["volumeName"] == again["metadata"]["name"]
    inodes = {one.path: one.inode for one in stored(run, made).directories}
    directory = again["spec"]["nfs"]["path"].removeprefix("/export/")
    assert inodes[directory] == (made.share / directory).stat().st_ino


def lose(made: Storage, name: str) -> None:
    """Delete claim, volume and class, as somebody did by mistake."""
    made.api.delete(path_of(made.claims[name]))
    eventually(lambda: is_gone(made.api, made.claims[name]))
    made.api.delete(path_of(made.volumes[name]))
    eventually(lambda: is_gone(made.api, made.volumes[name]))
    made.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{made.namespace}")


def by_hand(control_plane: ControlPlane, made: Storage, **variables: str) -> str:
    """Run the commands of docs/restore.md."""
    bin_dir = controlplane.bin_dir()
    if not (bin_dir / "kubectl").exists():
        pytest.skip("kubectl is not among the programs of KUBEBUILDER_ASSETS")
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + block("volume")],
        env={
            "PATH": f"{bin_dir}:/usr/bin:/bin",
            "HOME": str(made.share.parent),
            "KUBECONFIG": str(control_plane.kubeconfig()),
            **variables,
        },
        cwd=made.share.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_volumes_are_set_to_retain_only_where_the_owner_said_so(
    control_plane: ControlPlane, kube: Kube, made: Storage
) -> None:
    made.storage_class(archiveOnDelete="false")
    made.claim("data")
    made.claim("scratch")
    wanted = [f"{made.namespace}/da*"]
    since = control_plane.audit.mark()

    dry = run_job(kube, made, retain=wanted, dry_run=True)
    refused = run_job(kube, made, day=1, retain=wanted)
    put(control_plane.api, RETAIN)
    eventually(lambda: run_job(kube, made, day=2, retain=wanted).outcome is Outcome.COMPLETED)
    take_away(control_plane.api, RETAIN)

    assert [one.subject for one in dry.findings if one.check == "dry_run.retain"] == [
        f"persistentvolume/{made.namespace}-data"
    ]
    assert refused.outcome is Outcome.FAILED
    assert "cannot patch" in next(
        str(one.facts["error"]) for one in refused.findings if one.check == "volumes.not_retained"
    )
    kept, left = (made.api.get(path_of(made.volumes[name])) for name in ("data", "scratch"))
    assert kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert kept["metadata"]["annotations"][POLICY_BEFORE] == "Delete"
    assert left["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    changes = [
        call
        for call in control_plane.audit.calls(user=USER, since=since)
        if call.verb not in ("get", "list")
    ]
    assert {(call.verb, call.resource, call.name) for call in changes} == {
        ("patch", "persistentvolumes", f"{made.namespace}-data")
    }
    assert [call.code for call in changes].count(200) == 1


def test_a_volume_that_somebody_set_back_is_left_alone(
    control_plane: ControlPlane, kube: Kube, made: Storage
) -> None:
    made.storage_class(archiveOnDelete="false")
    made.claim("data")
    undone = {
        "metadata": {"annotations": {POLICY_BEFORE: "Delete"}},
        "spec": {"persistentVolumeReclaimPolicy": "Delete"},
    }
    made.api.patch(path_of(made.volumes["data"]), undone)
    since = control_plane.audit.mark()

    run = run_job(kube, made, retain=[f"{made.namespace}/*"])

    assert run.outcome is Outcome.COMPLETED
    verbs = {call.verb for call in control_plane.audit.calls(user=USER, since=since)}
    assert verbs == {"get", "list"}


def test_a_volume_that_changed_meanwhile_is_left_alone(kube: Kube, made: Storage) -> None:
    made.storage_class(archiveOnDelete="false")
    made.claim("data")
    seen, _ = whole.read(kube)
    made.api.patch(path_of(made.volumes["data"]), {"metadata": {"labels": {"changed": "yes"}}})
    put(made.api, RETAIN)

    (one,) = wanted(seen, [f"{made.namespace}/*"])
    eventually(lambda: kube.can("patch", PersistentVolume))
    done = retain(kube, one)
    take_away(made.api, RETAIN)

    assert done is None
    after = made.api.get(path_of(made.volumes["data"]))
    assert after["spec"]["persistentVolumeReclaimPolicy"] == "Delete"


def test_a_share_that_is_gone_costs_neither_catalogue_nor_findings(
    kube: Kube, made: Storage
) -> None:
    made.storage_class(archiveOnDelete="false")
    made.claim("data")
    made.share.rename(made.share.with_name("elsewhere"))

    run = run_job(kube, made)

    assert run.outcome is Outcome.FAILED
    assert "volumes.deletion_destroys" in of_class(run, made)
    (unread,) = [one for one in run.findings if one.check == "volumes.share_unreadable"]
    assert "No such file or directory" in str(unread.facts["error"])
    assert len(stored(run, made).items) >= 3
    assert f"storageclass/{made.namespace}" in run.seen
    assert "share/nfs" not in run.seen


@pytest.fixture
def protected(control_plane: ControlPlane, made: Storage) -> Iterator[Storage]:
    """The policy is in force, and a claim with its volume has the label."""
    put(control_plane.api, PROTECT)
    made.storage_class(archiveOnDelete="false")
    made.claim("data", labels={"opsd.dev/protect": "true"})
    eventually(lambda: refusal(made.api, made.claims["data"], dry_run=True))
    yield made
    with contextlib.suppress(ApiError):
        allow(made.api, made.claims["data"])
    take_away(control_plane.api, PROTECT)


def refusal(api: KubeApi, item: Object, *, dry_run: bool = False) -> str:
    """Why the API server does not delete it; empty when it does."""
    try:
        api.delete(path_of(item), dry_run=dry_run)
    except ApiError as exc:
        return str(exc)
    return ""


def allow(api: KubeApi, item: Object) -> None:
    api.patch(path_of(item), {"metadata": {"annotations": {"opsd.dev/allow-delete": "yes"}}})


def test_a_protected_claim_is_not_deleted_before_it_is_annotated(protected: Storage) -> None:
    claim = protected.claims["data"]

    refused = refusal(protected.api, claim)
    still_there = "deletionTimestamp" not in protected.api.get(path_of(claim))["metadata"]
    allow(protected.api, claim)
    allowed = refusal(protected.api, claim)

    assert refused.startswith("403 Forbidden")
    assert (
        f"kubectl annotate persistentvolumeclaims -n {protected.namespace} data "
        "opsd.dev/allow-delete=yes"
    ) in refused
    assert still_there
    assert allowed == ""
    eventually(lambda: is_gone(protected.api, claim))


def test_the_oldest_supported_release_refuses_and_allows_as_well(tmp_path: Path) -> None:
    with controlplane.running(controlplane.OLDEST) as oldest:
        made = Storage(oldest.api, oldest.namespace("db"), tmp_path)
        put(oldest.api, PROTECT)
        made.claim("data", labels={"opsd.dev/protect": "true"})
        claim = made.claims["data"]

        refused = eventually(lambda: refusal(oldest.api, claim, dry_run=True))
        allow(oldest.api, claim)

        assert "it is protected" in refused
        assert refusal(oldest.api, claim) == ""


def test_what_has_no_label_or_says_false_is_deleted_as_ever(protected: Storage) -> None:
    protected.claim("plain")
    protected.claim("unprotected", labels={"opsd.dev/protect": "false"})

    assert refusal(protected.api, protected.claims["plain"]) == ""
    assert refusal(protected.api, protected.claims["unprotected"]) == ""


def test_a_protected_volume_and_a_protected_namespace_are_not_deleted(
    protected: Storage,
) -> None:
    api, volume = protected.api, protected.volumes["data"]
    space: Object = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": protected.namespace},
    }
    label = {"metadata": {"labels": {"opsd.dev/protect": "true"}}}
    api.patch(path_of(volume), label)
    api.patch(path_of(space), label)

    refused = [refusal(api, volume), refusal(api, space)]
    for item in (volume, space):
        allow(api, item)
    allowed = refusal(api, volume, dry_run=True) + refusal(api, space, dry_run=True)

    assert f"kubectl annotate persistentvolumes {volume['metadata']['name']} " in refused[0]
    assert f"kubectl annotate namespaces {protected.namespace} " in refused[1]
    assert allowed == ""


def test_a_protected_claim_outlives_the_deletion_of_its_namespace(
    control_plane: ControlPlane, protected: Storage
) -> None:
    api = protected.api
    where = f"/api/v1/namespaces/{protected.namespace}"

    api.delete(where)
    said = eventually(lambda: deletion_failure(api, where))
    survivor = api.get(path_of(protected.claims["data"]))
    allow(api, protected.claims["data"])
    eventually(lambda: api.find(where) is None)
    control_plane.namespace(protected.namespace)  # the fixture deletes it once more

    assert "deletionTimestamp" not in survivor["metadata"]
    assert "it is protected" in said


def deletion_failure(api: KubeApi, where: str) -> str:
    """What the namespace controller says that it could not delete."""
    found = [
        one["message"]
        for one in api.get(where)["status"].get("conditions", [])
        if one["type"] == "NamespaceDeletionContentFailure" and one["status"] == "True"
    ]
    return json.dumps(found) if found else ""


def test_a_protected_claim_is_told_as_no_risk(kube: Kube, protected: Storage) -> None:
    before = of_class(run_job(kube, protected), protected)
    protected.claim("plain")
    after = of_class(run_job(kube, protected, day=1), protected)

    assert before == {}
    assert after["volumes.deletion_destroys"].facts["protected"] == 1
