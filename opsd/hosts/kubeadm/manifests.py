"""Which static pods does the kubelet of this node start, and with what?

Limits: the folder that kubeadm uses; the kubelet starts what every file of it says, whatever the
file is called, so a copy that was left there counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opsd.hosts import yamltext
from opsd.hosts.kubeadm.listing import by_file
from opsd.hosts.script import Probe

FOLDER = "/etc/kubernetes/manifests"
PROBE = Probe(name="static-manifests", command=f"$root grep -r . {FOLDER}")

_REFERENCES = ("secret", "configMap", "persistentVolumeClaim")
_ENVIRONMENT = ("secretKeyRef", "configMapKeyRef", "secretRef", "configMapRef")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticPod:
    """One file of the folder."""

    path: str
    name: str = ""  #: of the pod, without the node's name
    component: str = ""  #: kubeadm's label: ``etcd``, ``kube-apiserver``; empty: not kubeadm's
    image: str = ""  #: of its first container
    words: tuple[str, ...] = ()  #: the command line of its first container
    references: tuple[str, ...] = ()  #: to objects of the API, as ``secret NAME``
    problem: str = ""  #: why it cannot be read; the kubelet cannot either


def read(text: str) -> tuple[StaticPod, ...]:
    """The answer to `PROBE`, by path. Files whose names begin with a dot are passed over.

    Raises:
        ValueError: a file is no text.
    """
    files = sorted(by_file(text).items())
    return tuple(
        _pod(path, content)
        for path, content in files
        if not path.rpartition("/")[2].startswith(".")
    )


def _pod(path: str, content: str) -> StaticPod:
    try:
        manifest = yamltext.mapping(content)
    except ValueError as exc:
        return StaticPod(path=path, problem=str(exc))
    spec, metadata = yamltext.inner(manifest, "spec"), yamltext.inner(manifest, "metadata")
    container = next(_mappings(spec.get("containers")), {})
    words = (*_texts(container.get("command")), *_texts(container.get("args")))
    return StaticPod(
        path=path,
        name=str(metadata.get("name", "")),
        component=str(yamltext.inner(metadata, "labels").get("component", "")),
        image=str(container.get("image", "")),
        words=words,
        references=tuple(_references(spec)),
    )


def _references(spec: dict[str, Any]) -> Iterator[str]:
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        yield f"serviceAccount {account}"
    for volume in _mappings(spec.get("volumes")):
        for kind in _REFERENCES:
            if below := yamltext.inner(volume, kind):
                named = (below.get(key) for key in ("secretName", "claimName", "name"))
                yield f"{kind} {next(filter(None, named), '')}"
    for kind in ("containers", "initContainers"):
        for container in _mappings(spec.get(kind)):
            yield from _environment(container)


def _environment(container: dict[str, Any]) -> Iterator[str]:
    entries = [yamltext.inner(one, "valueFrom") for one in _mappings(container.get("env"))]
    for entry in (*entries, *_mappings(container.get("envFrom"))):
        for kind in _ENVIRONMENT:
            if below := yamltext.inner(entry, kind):
                yield f"{kind} {below.get('name', '')}"


def _mappings(value: object) -> Iterator[dict[str, Any]]:
    yield from (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else ()
