"""Facts and results as tests make them: only what a test is about is written down."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

from opsd.clients.kube.objects import Node, Pod
from opsd.clients.kube.objects.base import Metadata
from opsd.clients.kube.objects.nodes import NodeInfo, NodeSpec, NodeStatus
from opsd.clients.kube.objects.pods import Container, PodSpec
from opsd.upgrade.assessment import Assessment
from opsd.upgrade.check import Check, Hop, Note, Result, Scope, judged
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Reading
from opsd.upgrade.version import Minor, Version

NOW = datetime(2026, 11, 22, 6, 17, tzinfo=UTC)
FIRST = Hop(start=Minor(1, 35), target=Minor(1, 36))
SECOND = Hop(start=Minor(1, 36), target=Minor(1, 37), is_first=False)
NOTHING = Facts(at=NOW, server=Version(1, 35, 4))


def check(
    name: str,
    *notes: Note,
    scope: Scope = Scope.NOW,
    unknown_blocks: bool = False,
) -> Check:
    """A check that always says the same."""

    def judge(_facts: Facts, _hop: Hop) -> Iterator[Note]:
        yield from notes

    return Check(
        id=name,
        title=f"The {name} is fine",
        row=1,
        judge=judge,
        fix=f"mend the {name}",
        source="a book",
        scope=scope,
        unknown_blocks=unknown_blocks,
    )


def result(name: str, *notes: Note, hop: Hop | None = None) -> Result:
    """What came of such a check."""
    scope = Scope.HOP if hop else Scope.NOW
    return judged(check(name, *notes, scope=scope), NOTHING, hop or FIRST)


def assessment(*results: Result, hops: tuple[Hop, ...] = (FIRST,)) -> Assessment:
    """These results together."""
    return Assessment(
        at=NOW,
        server=Version(1, 35, 4),
        hops=hops,
        results=results,
        known_as_of=date(2026, 11, 1),
    )


def node(
    name: str,
    *,
    master: bool = False,
    cordoned: bool = False,
    kubelet: str = "v1.35.4",
    system: str = "Debian GNU/Linux 13 (trixie)",
    runtime: str = "containerd://2.3.1",
) -> Node:
    """A node."""
    labels = {"node-role.kubernetes.io/control-plane": ""} if master else {}
    return Node(
        metadata=Metadata(name=name, uid=name, labels=labels),
        spec=NodeSpec(unschedulable=cordoned),
        status=NodeStatus(
            node_info=NodeInfo(
                kubelet_version=kubelet, os_image=system, container_runtime_version=runtime
            )
        ),
    )


def part(name: str, *flags: str, image: str = "", node: str = "rpi1") -> Pod:
    """A mirror pod of the control plane."""
    return Pod(
        metadata=Metadata(
            name=f"{name}-{node}", namespace="kube-system", labels={"component": name}
        ),
        spec=PodSpec(
            node_name=node,
            containers=(Container(name=name, image=image, command=(name, *flags)),),
        ),
    )


def read(*pods: Pod, nodes: tuple[Node, ...] = (), server: str = "1.35.4") -> Facts:
    """A cluster of which just this was read."""
    return Facts(
        at=NOW,
        server=Version.parse(server),
        pods=Reading.of(pods),
        nodes=Reading.of(nodes),
    )
