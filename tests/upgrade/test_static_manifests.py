"""Static pods: what lies in the folder, what runs, and what kubeadm knows of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from opsd.clients.kube.objects import ConfigMap
from opsd.upgrade.check import Hop, Result, Status, judged
from opsd.upgrade.checks import static_manifests
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Reading
from opsd.upgrade.version import Minor
from tests.upgrade.made import part
from tests.upgrade.test_machine_checks import HOP, facts_of

FOLDER = "/etc/kubernetes/manifests"
LOCAL = "--etcd-servers=https://127.0.0.1:2379"
FLAGS = {
    "kube-apiserver": (LOCAL, "--allow-privileged=true"),
    "kube-controller-manager": ("--leader-elect=true",),
    "kube-scheduler": ("--leader-elect=true",),
    "etcd": ("--snapshot-count=10000",),
}
Files = dict[str, dict[str, Any]]


def manifest(name: str, *flags: str, image: str = "x:v1") -> dict[str, Any]:
    container = {"name": name, "image": image, "command": [name, *flags]}
    metadata = {"name": name, "labels": {"component": name}}
    return {"metadata": metadata, "spec": {"containers": [container]}}


def files(**changes: dict[str, Any] | None) -> Files:
    every: dict[str, dict[str, Any] | None] = {
        name: manifest(name, *flags) for name, flags in FLAGS.items()
    }
    every |= {name.replace("_", "-"): one for name, one in changes.items()}
    return {name: one for name, one in every.items() if one is not None}


def facts(there: Files, *, config: object = "", running: dict[str, str] | None = None) -> Facts:
    """One node with these files, on which the usual pods run, or others."""
    listing = "".join(f"{FOLDER}/{name}.yaml:{json.dumps(one)}\n" for name, one in there.items())
    pods = [
        part(name, *flags, image=(running or {}).get(name, "x:v1"), node="a")
        for name, flags in FLAGS.items()
        if (running or {}).get(name, "x") != "gone"
    ]
    text = json.dumps(config) if config else ""
    kubeadm = ConfigMap(data={"ClusterConfiguration": text})
    return dataclasses.replace(
        facts_of({"static-manifests": listing}),
        pods=Reading.of(tuple(pods)),
        config_maps=Reading.of({"kubeadm-config": kubeadm}),
    )


def manifests(**more: Any) -> Result:
    return judged(static_manifests.MANIFESTS, facts(more.pop("there", files()), **more), HOP)


def edits(**more: Any) -> Result:
    return judged(static_manifests.EDITS, facts(more.pop("there", files()), **more), HOP)


def test_the_usual_four_are_fine() -> None:
    assert manifests().status is edits().status is Status.PASS


@pytest.mark.parametrize("name", FLAGS)
def test_each_of_them_must_be_there(name: str) -> None:
    found = manifests(there=files(**{name: None}))

    assert found.status is Status.FAIL
    assert [note.where for note in found.worst] == [f"a: {FOLDER}/{name}.yaml"]


def test_etcd_need_not_be_there_where_the_api_server_asks_another() -> None:
    elsewhere = ("--etcd-servers=https://10.0.0.9:2379", "--allow-privileged=true")
    there = files(etcd=None, kube_apiserver=manifest("kube-apiserver", *elsewhere))

    assert "missing" not in {note.value for note in manifests(there=there).notes}


def test_two_files_for_one_pod_are_told_both() -> None:
    found = manifests(there=files(copy=manifest("etcd", *FLAGS["etcd"])))

    wheres = [note.where for note in found.worst]
    assert wheres == [f"a: {FOLDER}/{name}.yaml" for name in ("copy", "etcd")]


def test_a_pod_of_somebody_else_is_not_looked_for_in_the_cluster() -> None:
    own = {"metadata": {"name": "own"}, "spec": {"containers": [{"image": "y:1"}]}}

    assert manifests(there=files(own=own)).status is Status.PASS


@pytest.mark.parametrize(
    ("running", "value"),
    [
        ({"etcd": "gone"}, "the cluster has no such pod on a"),
        ({"etcd": "x:v0"}, "the file says x:v1, and x:v0 runs"),
    ],
)
def test_what_runs_is_what_the_files_say(running: dict[str, str], value: str) -> None:
    found = manifests(running=running)

    assert found.status is Status.FAIL
    assert [note.value for note in found.worst] == [value]


def test_other_flags_than_in_the_file_are_named() -> None:
    there = files(kube_scheduler=manifest("kube-scheduler", "--leader-elect=false", "--v=2"))

    found = manifests(there=there)

    assert found.worst[0].value == "the pod that runs has other flags: leader-elect, v"


PROFILING = ("--leader-elect=true", "--profiling=false")


@pytest.mark.parametrize(
    ("extra", "flags", "says"),
    [
        ([], PROFILING, "--profiling=false"),
        ([{"name": "profiling", "value": "false"}], PROFILING, ""),
        ({"profiling": "false"}, PROFILING, ""),
        ([{"name": "profiling", "value": "true"}], PROFILING, "--profiling=false"),
        ([{"name": "v", "value": "4"}], ("--leader-elect=true",), "no --v"),
        ([], ("--leader-elect=false",), "--leader-elect=false"),
        ([{"name": "v", "value": "1"}, {"name": "v", "value": "2"}], ("--v=1", "--v=2"), ""),
        ("junk", ("--leader-elect=true",), ""),
        ([1, None], ("--leader-elect=true",), ""),
    ],
)
def test_a_flag_that_kubeadm_does_not_know_of_would_be_lost(
    extra: object, flags: tuple[str, ...], says: str
) -> None:
    config = {"scheduler": {"extraArgs": extra}}

    found = edits(there=files(kube_scheduler=manifest("kube-scheduler", *flags)), config=config)

    if says:
        assert found.status is Status.WARN
        assert found.worst[0].value.endswith(f"undoes it: {says}")
        assert "scheduler.extraArgs" in found.fix
    else:
        assert found.status is Status.PASS, found.worst


def test_extra_arguments_of_etcd_stand_deeper() -> None:
    config = {"etcd": {"local": {"extraArgs": [{"name": "quota-backend-bytes", "value": "8"}]}}}
    there = files(etcd=manifest("etcd", *FLAGS["etcd"], "--quota-backend-bytes=8"))

    assert edits(there=there, config=config).status is Status.PASS
    assert edits(there=there).status is Status.WARN


def test_without_kubeadms_configuration_nobody_knows() -> None:
    missing = dataclasses.replace(facts(files()), config_maps=Reading.of({"kubeadm-config": None}))
    broken = facts(files(), config="- a")

    results = [judged(static_manifests.EDITS, one, HOP) for one in (missing, broken)]

    assert [result.status for result in results] == [Status.UNKNOWN, Status.UNKNOWN]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Minor(1, 33), Status.SKIPPED),
        (Minor(1, 34), Status.FAIL),
        (Minor(1, 37), Status.FAIL),
    ],
)
def test_a_static_pod_with_an_object_of_the_api_is_refused_from_its_release_on(
    target: Minor, expected: Status
) -> None:
    own = {"metadata": {"name": "own"}, "spec": {"serviceAccountName": "x"}}
    hop = Hop(start=target.previous, target=target)

    found = judged(static_manifests.REFERENCES, facts(files(own=own)), hop)

    assert found.status is expected


def test_a_file_that_is_no_manifest_is_in_the_way_and_no_edit() -> None:
    good = facts(files())
    (machine,) = good.machines.value
    section = machine.sections["static-manifests"]
    broken = dataclasses.replace(section, stdout=f"{section.stdout}{FOLDER}/own.yaml:{{\n")
    read = dataclasses.replace(machine, sections={"static-manifests": broken})
    damaged = dataclasses.replace(good, machines=Reading.of((read,)))

    found = judged(static_manifests.MANIFESTS, damaged, HOP)

    assert found.status is Status.FAIL
    assert found.worst[0].where == f"a: {FOLDER}/own.yaml"
    assert judged(static_manifests.EDITS, damaged, HOP).status is Status.PASS


def test_a_worker_without_static_pods_is_fine_and_a_control_plane_is_not() -> None:
    answers = {"static-manifests": ""}
    found = [
        judged(static_manifests.REFERENCES, facts_of(answers, control_plane=is_one), HOP).status
        for is_one in (False, True)
    ]

    assert found == [Status.PASS, Status.UNKNOWN]
