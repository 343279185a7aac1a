"""Static pods as the kubelet sees them: every file of the folder counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opsd.hosts.kubeadm import images, manifests


def listing(**files: dict[str, Any]) -> str:
    """What grep prints of files (JSON is YAML)."""
    return "".join(
        f"/etc/kubernetes/manifests/{name}:{json.dumps(one)}\n" for name, one in files.items()
    )


def pod(spec: dict[str, Any]) -> str:
    return listing(own={"metadata": {"name": "own"}, "spec": spec})


def test_a_pod_is_told_with_its_command_line() -> None:
    container = {"image": "etcd:3.6.6-0", "command": ["etcd"], "args": ["--name=a", "--b=1"]}
    metadata = {"name": "etcd", "labels": {"component": "etcd"}}

    (read,) = manifests.read(
        listing(etcd={"metadata": metadata, "spec": {"containers": [container]}})
    )

    assert (read.name, read.component, read.image) == ("etcd", "etcd", "etcd:3.6.6-0")
    assert read.words == ("etcd", "--name=a", "--b=1")


def test_a_file_whose_name_begins_with_a_dot_is_none_of_the_kubelets() -> None:
    assert manifests.read("/etc/kubernetes/manifests/.etcd.yaml:kind: Pod\n") == ()


@pytest.mark.parametrize("text", ["{", "- a", "just text"])
def test_a_file_that_is_no_manifest_is_told_and_does_not_hide_the_others(text: str) -> None:
    good = listing(own={"metadata": {"name": "own"}})

    read = manifests.read(f"/etc/kubernetes/manifests/a:{text}\n{good}")

    assert [bool(one.problem) for one in read] == [True, False]


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        ({"serviceAccountName": "x"}, "serviceAccount x"),
        ({"volumes": [{"secret": {"secretName": "s"}}]}, "secret s"),
        ({"volumes": [{"configMap": {"name": "c"}}]}, "configMap c"),
        ({"volumes": [{"persistentVolumeClaim": {"claimName": "d"}}]}, "persistentVolumeClaim d"),
        (
            {"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "k"}}}]}]},
            "secretKeyRef k",
        ),
        ({"initContainers": [{"envFrom": [{"configMapRef": {"name": "e"}}]}]}, "configMapRef e"),
    ],
)
def test_every_way_to_name_an_object_of_the_api_is_found(
    spec: dict[str, Any], reference: str
) -> None:
    (read,) = manifests.read(pod(spec))

    assert read.references == (reference,)


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"hostPath": {"path": "/"}}]},
        {"containers": [{"env": [{"name": "A", "value": "b"}]}]},
        {"containers": "junk", "volumes": [1, None], "initContainers": [{"env": 5}]},
        {},
    ],
)
def test_what_names_no_object_has_no_reference(spec: dict[str, Any]) -> None:
    (read,) = manifests.read(pod(spec))

    assert read.references == ()


def test_images_are_told_by_their_tags() -> None:
    listed = {"images": [{"repoTags": ["a:1", "b:2"]}, {"repoTags": None}, {}]}

    assert images.read(json.dumps(listed)) == {"a:1", "b:2"}
    assert images.read('{"images": null}') == frozenset()


@pytest.mark.parametrize("text", ["", "[]", "{}", "IMAGE TAG", '{"images": [1]}'])
def test_another_answer_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="crictl"):
        images.read(text)
