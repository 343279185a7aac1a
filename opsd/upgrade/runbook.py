"""The steps of an upgrade of this very cluster, with the names of its nodes. Pure.

Made of what the API says of the nodes. The commands are those of kubeadm's own guide, for nodes
with apt; on others nothing is said of how packages are installed. Nodes that are alike are told
once.

Limits: network plug-ins, storage and what stands outside of the cluster are named, not upgraded.

Source: kubernetes.io, Upgrading kubeadm clusters; kubeadm issues 3297, 1311, 2035.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    on: str = ""  #: where the commands run: a node, or empty for any place with kubectl
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
        *_others(masters[1:], hop),
        *_others(workers, hop),
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
    yield _tool(node.name, hop, with_apt=_has_apt(node))
    yield Step(
        title=f"{node.name}: look at kubeadm's own plan",
        on=node.name,
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
        on=node.name,
        commands=('kubeadm upgrade apply --yes "$(kubeadm version -o short)"',),
        gate=f"it says SUCCESS; kubectl get --raw /readyz says ok; "
        f"kubectl -n kube-system get pods shows {hop.target} for every part of the control plane",
        is_point_of_no_return=True,
    )
    is_cordoned = node.spec.unschedulable
    yield from _kubelet(node.name, hop, with_apt=_has_apt(node), is_cordoned=is_cordoned)


def _others(nodes: Sequence[Node], hop: Hop) -> Iterator[Step]:
    """The same for several nodes, told once for those that are alike."""
    kinds = sorted({_kind(node) for node in nodes})
    for kind in kinds:
        with_apt, is_cordoned = kind
        alike = [node.name for node in nodes if _kind(node) == kind]
        name = alike[0]
        if len(alike) > 1:
            name = "$NODE"
            yield Step(
                title=f"Then these, one after another, each wholly before the next: "
                f"{', '.join(alike)}",
                commands=(f"NODE={alike[0]}",),
            )
        yield _tool(name, hop, with_apt=with_apt)
        yield Step(title=f"{name}: its settings", on=name, commands=("kubeadm upgrade node",))
        yield from _kubelet(name, hop, with_apt=with_apt, is_cordoned=is_cordoned)


def _kind(node: Node) -> tuple[bool, bool]:
    return _has_apt(node), node.spec.unschedulable


def _has_apt(node: Node) -> bool:
    image = node.status.node_info.os_image.lower()
    return any(name in image for name in _APT)


def _tool(name: str, hop: Hop, *, with_apt: bool) -> Step:
    change = f"s|/core:/stable:/v[0-9.]*/|/core:/stable:/v{hop.target}/|"
    return Step(
        title=f"{name}: install kubeadm {hop.target}, and nothing else",
        on=name,
        commands=(
            f"sed -i '{change}' /etc/apt/sources.list.d/kubernetes.list",
            "apt-get update",
            _installed(hop, "kubeadm"),
        )
        if with_apt
        else (),
        gate=f"kubeadm version -o short begins with v{hop.target}",
    )


def _kubelet(name: str, hop: Hop, *, with_apt: bool, is_cordoned: bool) -> Iterator[Step]:
    drain = f"kubectl drain {name} --ignore-daemonsets --delete-emptydir-data --timeout=10m"
    yield Step(title=f"{name}: move its pods away", commands=(drain,))
    restart = "systemctl daemon-reload && systemctl restart kubelet"
    yield Step(
        title=f"{name}: install kubelet and kubectl {hop.target}, and restart the kubelet",
        on=name,
        commands=(*((_installed(hop, "kubelet", "kubectl"),) if with_apt else ()), restart),
        gate=f"kubectl get node {name} is Ready at v{hop.target}",
    )
    uncordon = f"kubectl uncordon {name}"
    yield Step(
        title=f"{name}: it was cordoned before, leave it so"
        if is_cordoned
        else f"{name}: take pods again",
        commands=() if is_cordoned else (uncordon,),
        gate="" if is_cordoned else "its pods run, and have for two minutes",
    )


def _installed(hop: Hop, *names: str) -> str:
    together = " ".join(names)
    wanted = " ".join(f"'{name}={hop.target}.*'" for name in names)
    install = f"apt-get install -y {wanted}"
    return f"apt-mark unhold {together} && {install} && apt-mark hold {together}"


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
