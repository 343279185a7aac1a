"""Are the nodes in a state from which an upgrade can start?"""

from __future__ import annotations

from collections.abc import Iterator

from opsd.clients.kube.objects import Node
from opsd.upgrade.check import Check, Hop, Note, Scope, each, failed, passed, skipped, warned
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.runbook import is_control_plane
from opsd.upgrade.version import Minor

SELINUX_MOUNT = Minor(1, 37)  # on by default from here on; RN-1.37
_SELINUX_LABEL = "feature.node.kubernetes.io/kernel-selinux.enabled"
_SELINUX_SYSTEMS = ("red hat", "rocky", "almalinux", "centos", "fedora", "oracle linux")
_BAD = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")


def _conditions(facts: Facts, _: Hop) -> Iterator[Note]:
    def judge(node: Node) -> Iterator[Note]:
        states = {one.type: one for one in node.status.conditions}
        ready = states.get("Ready")
        tell = failed if is_control_plane(node) else warned
        if ready is None or ready.status != "True":
            reason = ready.reason or ready.status if ready else "nobody says"
            yield tell(str(node), f"not Ready: {reason}")
        for kind in _BAD:
            if kind in states and states[kind].status == "True":
                yield tell(str(node), f"{kind}: {states[kind].message or states[kind].reason}")
        yield passed(str(node), "looked at")

    yield from each(facts.nodes.value, judge)


def _cordoned(facts: Facts, _: Hop) -> Iterator[Note]:
    nodes = facts.nodes.value
    for node in nodes:
        if node.spec.unschedulable:
            yield warned(str(node), "somebody cordoned it; leave it so after the upgrade")
    yield passed("nodes", f"{len(nodes)} looked at")


def _health_job(facts: Facts, _: Hop) -> Iterator[Note]:
    masters = [node for node in facts.nodes.value if is_control_plane(node)]
    if not masters:
        raise Unreadable("nodes", "none is labelled as control plane")
    if all(node.spec.unschedulable for node in masters):
        names = ", ".join(node.name for node in masters)
        yield warned(names, "all cordoned: kubeadm cannot run its health check and skips it")
    else:
        yield passed("upgrade-health-check", "can be scheduled on the control plane")


def _selinux(facts: Facts, hop: Hop) -> Iterator[Note]:
    if hop.target < SELINUX_MOUNT or hop.start >= SELINUX_MOUNT:
        yield skipped("SELinuxMount", f"does not change in {hop.target}")
        return
    found = [node for node in facts.nodes.value if _has_selinux(node)]
    for node in found:
        yield warned(str(node), f"{node.status.node_info.os_image}: volumes get a label on mount")
    if not found:
        yield passed("nodes", "none with SELinux by its system")


def _has_selinux(node: Node) -> bool:
    image = node.status.node_info.os_image.lower()
    is_likely = any(name in image for name in _SELINUX_SYSTEMS)
    return is_likely or node.labels.get(_SELINUX_LABEL) == "true"


CHECKS = (
    Check(
        id="node-conditions",
        title="Every node is Ready and under no pressure",
        row=30,
        judge=_conditions,
        fix="mend the node first: opsd run-job node-health, kubectl describe node",
        source="kubeadm upgrade/health.go: ControlPlaneNodesReady",
        unknown_blocks=True,
    ),
    Check(
        id="cordoned",
        title="No node is cordoned",
        row=30,
        judge=_cordoned,
        fix="find out why; kubectl uncordon NODE if it is not wanted any more",
        source="kubectl drain: a node is uncordoned only by who cordoned it",
    ),
    Check(
        id="health-job",
        title="kubeadm can run the pod of its health check",
        row=31,
        judge=_health_job,
        fix="uncordon one node of the control plane for the time of kubeadm upgrade apply",
        source="kubeadm upgrade/health.go; kubernetes/kubernetes PR 136273",
    ),
    Check(
        id="selinux-mount",
        title="No volume is shared by pods with different SELinux labels",
        row=48,
        judge=_selinux,
        fix="see metric selinux_warning_controller_selinux_volume_conflict, or set "
        "seLinuxChangePolicy: Recursive in those pods",
        source="release notes of 1.37; KEP-1710",
        scope=Scope.HOP,
    ),
)
