"""The control plane as its mirror pods show it: which program, where, which version and flags.

Limits: only static pods that carry kubeadm's labels are seen; a control plane that runs as
services of the host, as with k3s, has none of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opsd.clients.kube.objects import Pod
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Version

SYSTEM = "kube-system"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
ETCD = "etcd"

Flags = Mapping[str, str]

_FLAG = re.compile(r"--?([A-Za-z0-9][\w.-]*)(?:=(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One program of the control plane on one node."""

    name: str  #: ``kube-apiserver``
    node: str
    image: str
    flags: Flags  #: without dashes; a flag without a value has an empty one
    pod: Pod

    @property
    def where(self) -> str:
        """As evidence names it."""
        return f"{self.name} on {self.node}"

    @property
    def version(self) -> Version:
        """By the tag of its image.

        Raises:
            Unreadable: the image has none that says it.
        """
        try:
            return Version.of_image(self.image)
        except ValueError as exc:
            raise Unreadable(self.where, str(exc)) from exc


def components(facts: Facts, name: str) -> tuple[Component, ...]:
    """The pods of one program, by node.

    Raises:
        Unreadable: pods could not be read, or there is none of it.
    """
    found = found_components(facts, name)
    if not found:
        why = f"no pod with the label component={name}: is this a cluster of kubeadm?"
        raise Unreadable(f"pods in {SYSTEM}", why)
    return found


def found_components(facts: Facts, name: str) -> tuple[Component, ...]:
    """The same, where there need not be one: etcd may be outside of the cluster.

    Raises:
        Unreadable: pods could not be read.
    """
    pods = (pod for pod in facts.pods.value if pod.namespace == SYSTEM)
    found = (_component(name, pod) for pod in pods if pod.labels.get("component") == name)
    return tuple(sorted(found, key=lambda one: one.node))


def flags_of(words: Iterable[str]) -> dict[str, str]:
    """What a command line says: ``--v=2`` and ``--v 2``; of a repeated flag the last."""
    flags: dict[str, str] = {}
    waiting = ""
    for word in words:
        match = _FLAG.fullmatch(word)
        if match:
            name, value = match[1], match[2]
            flags[name] = value or ""
            waiting = name if value is None else ""
        elif waiting:
            flags[waiting] = word
            waiting = ""
    return flags


def gates_of(value: str) -> dict[str, bool]:
    """Feature gates as a flag says them: ``A=true,B=false``."""
    pairs = (pair.partition("=") for pair in value.split(",") if pair.strip())
    return {name.strip(): state.strip().lower() in ("true", "1", "t") for name, _, state in pairs}


def _component(name: str, pod: Pod) -> Component:
    container = next(
        (one for one in pod.spec.containers if one.name == name),
        next(iter(pod.spec.containers), None),
    )
    return Component(
        name=name,
        node=pod.spec.node_name or pod.name,
        image=container.image if container else "",
        flags=flags_of((*container.command, *container.args)) if container else {},
        pod=pod,
    )
