"""The steps of an upgrade of this very cluster, with the names of its nodes. Pure.

Made of what the API says of the nodes. The commands are those of kubeadm's own guide, for nodes
with apt; on others the line about packages is replaced by words.

Limits: network plug-ins, storage and what stands outside of the cluster are named, not upgraded.

Source: kubernetes.io, Upgrading kubeadm clusters; kubeadm issues 3297, 1311, 2035.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from opsd.clients.kube.objects import Node
from opsd.upgrade.check import Hop
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_APT = ("debian", "ubuntu", "raspbian", "raspberry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do, and how to see that it worked."""

    title: str
    commands: tuple[str, ...] = ()
    gate: str = ""  #: go on only when this is so
    is_point_of_no_return: bool = False  #: once it is done there is no way back but the snapshot


def is_control_plane(node: Node) -> bool:
    """Whether the API server runs there."""
    return CONTROL_PLANE in node.labels


def runbook(facts: Facts, hop: Hop) -> tuple[Step, ...]:
    """What to do for one hop.

    Raises:
        Unreadable: the nodes could not be read.
    """
    nodes = sorted(facts.nodes.value, key=lambda node: node.name)
    masters = [node for node in nodes if is_control_plane(node)]
    # The node of opsd comes last, so that it sees most of it.
    workers = sorted(
        (node for node in nodes if not is_control_plane(node)),
        key=lambda node: (node.name == facts.own_node, node.name),
    )
    if not masters:
        raise Unreadable("nodes", f"none has the label {CONTROL_PLANE}: where does it begin?")
    return (
        *_before(facts, hop),
        *_first(masters[0], hop, is_only=len(masters) == 1),
        *(step for node in masters[1:] for step in _another(node, hop)),
        *(step for node in workers for step in _another(node, hop)),
        *_after(hop),
    )


def _before(facts: Facts, hop: Hop) -> Iterator[Step]:
    yield Step(
        title="See that nothing is in the way, and that a way back exists",
        commands=("opsd run-job etcd-backup", f"opsd run-job upgrade-readiness --to {hop.target}"),
        gate="the report says ready, and the snapshot of etcd is not older than an hour",
    )
    behind = sorted(
        {
            node.status.node_info.kubelet_version
            for node in facts.nodes.value
            if node.status.node_info.kubelet_version.lstrip("v") != str(facts.server)
        }
    )
    if hop.is_first and behind:
        yield Step(
            title=f"Bring every node to {facts.server} first: some kubelets are at "
            f"{', '.join(behind)}",
            gate="kubectl get nodes shows one version",
        )


def _first(node: Node, hop: Hop, *, is_only: bool) -> Iterator[Step]:
    yield _packages(node, hop, ("kubeadm",))
    yield Step(
        title=f"{node.name}: look at kubeadm's own plan",
        commands=('kubeadm upgrade plan "$(kubeadm version -o short)"',),
        gate="it names no component that needs a manual upgrade",
    )
    again = (
        " With one control plane node the API is away meanwhile, and kubeadm may give up after "
        "five minutes and roll back: run it again."
        if is_only
        else ""
    )
    yield Step(
        title=f"{node.name}: upgrade the control plane to {hop.target}.{again}",
        commands=('kubeadm upgrade apply --yes "$(kubeadm version -o short)"',),
        gate=f"it says SUCCESS; kubectl get --raw /readyz says ok; "
        f"kubectl -n kube-system get pods shows {hop.target} for every part of the control plane",
        is_point_of_no_return=True,
    )
    yield from _kubelet(node, hop)


def _another(node: Node, hop: Hop) -> Iterator[Step]:
    yield _packages(node, hop, ("kubeadm",))
    yield Step(title=f"{node.name}: its settings", commands=("kubeadm upgrade node",))
    yield from _kubelet(node, hop)


def _kubelet(node: Node, hop: Hop) -> Iterator[Step]:
    drain = f"kubectl drain {node.name} --ignore-daemonsets --delete-emptydir-data --timeout=10m"
    yield Step(title=f"{node.name}: move its pods away", commands=(drain,))
    yield _packages(node, hop, ("kubelet", "kubectl"))
    was_cordoned = node.spec.unschedulable
    uncordon = () if was_cordoned else (f"kubectl uncordon {node.name}",)
    yield Step(
        title=f"{node.name}: restart the kubelet"
        + ("; it was cordoned before, leave it so" if was_cordoned else ""),
        commands=("systemctl daemon-reload && systemctl restart kubelet", *uncordon),
        gate=f"kubectl get node {node.name} is Ready at {hop.target}, and its pods run",
    )


def _packages(node: Node, hop: Hop, names: tuple[str, ...]) -> Step:
    title = f"{node.name}: install {' and '.join(names)} {hop.target}"
    image = node.status.node_info.os_image.lower()
    if not any(name in image for name in _APT):
        return Step(title=f"{title} with its package manager, and nothing else")
    together = " ".join(names)
    wanted = " ".join(f"'{name}={hop.target}.*'" for name in names)
    repository: tuple[str, ...] = ()
    if "kubeadm" in names:
        place = "/etc/apt/sources.list.d/kubernetes.list"
        change = f"s|/core:/stable:/v[0-9.]*/|/core:/stable:/v{hop.target}/|"
        repository = (f"sed -i '{change}' {place}", "apt-get update")
    install = f"apt-get install -y {wanted}"
    return Step(
        title=title,
        commands=(
            *repository,
            f"apt-mark unhold {together} && {install} && apt-mark hold {together}",
        ),
        gate="" if "kubelet" in names else f"kubeadm version -o short begins with v{hop.target}",
    )


def _after(hop: Hop) -> Iterator[Step]:
    yield Step(
        title="The network plug-in and other add-ons: kubeadm does not touch them",
        gate=f"each of them supports {hop.target}",
    )
    yield Step(
        title="Look again",
        commands=("opsd run-job upgrade-readiness", "opsd run-job stuck-pods"),
        gate="every node has one version, and nothing new is reported",
    )
