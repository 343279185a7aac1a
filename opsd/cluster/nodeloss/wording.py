"""What a case means and what to type, in the words of a message that is read at night. Pure.

Limits: commands are for kubectl and for ssh to a machine with systemd. What they need besides
(which network, which plug) the reader has to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opsd.cluster.nodeloss.facts import Node, Pod
from opsd.cluster.nodeloss.verdict import Advice, Kind, Verdict

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
PAGE = "docs/stuck-pods.md"
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Words:
    """What is the matter, as the end of a sentence, and what to do."""

    matter: str
    remedy: str


#: What is proven about a lost node, and so why its pods may or may not be deleted.
PROOF = {
    Kind.SILENT: "silent, not proven dead: what runs there may still write",
    Kind.PARTITIONED_RUNNING: "its containers run: deleting their pods makes second writers",
    Kind.PARTITIONED_UNKNOWN: "the machine lives: what runs there may still write",
    Kind.KUBELET_DEAD: "the machine lives, its kubelet and the containers do not",
    Kind.REBOOTED_NOT_BACK: "it was rebooted: the containers of before are dead",
}

_LOST = {
    Kind.SILENT: "power {node} on; or make sure that it is off, then: kubectl taint node {node} "
    f"{OUT_OF_SERVICE}=lost:NoExecute (take it away when the node is back)",
    Kind.PARTITIONED_RUNNING: "delete none of its pods; mend its network, or: "
    "ssh {ssh} sudo systemctl restart kubelet",
    Kind.PARTITIONED_UNKNOWN: "delete none of its pods; look at its network and at "
    "ssh {ssh} systemctl status kubelet",
    Kind.KUBELET_DEAD: "ssh {ssh} sudo systemctl restart kubelet; "
    "why it died: ssh {ssh} journalctl -u kubelet -n 50",
    Kind.REBOOTED_NOT_BACK: "ssh {ssh} systemctl status kubelet; it should come back by itself",
}

_NODE = {
    Kind.NODE_SICK: Words("is not ready: {message}", "ssh {ssh} journalctl -u kubelet -n 50"),
    Kind.NODE_UNCLEAR: Words(
        "is called {ready}, but its lease says otherwise",
        "ssh {ssh} timedatectl (a clock that was set back does this); then restart the kubelet",
    ),
}

_POD = {
    Kind.FINALIZER: Words(
        "its finalizer {finalizers} is not taken away",
        "find the controller that does: kubectl describe pod -n {namespace} {pod}; "
        "by hand only if you know what it cleans up",
    ),
    Kind.UNSCHEDULED: Words(
        "it has no node, and nothing collects it",
        "kubectl logs -n kube-system -l component=kube-controller-manager --tail 50",
    ),
    Kind.NODE_GONE: Words(
        "its node {node} was removed, and nothing collects it",
        "kubectl logs -n kube-system -l component=kube-controller-manager --tail 50",
    ),
    Kind.NODE_RECREATED: Words(
        "its node {node} is another one than it ran on",
        "if the machine does not run it any more (sudo crictl pods --name {pod}): "
        "kubectl delete pod -n {namespace} {pod} --grace-period=0 --force",
    ),
    Kind.KILL_HUNG: Words(
        "a container on {node} does not end when killed",
        "ssh {node} \"ps -eo pid,stat,wchan:30,args | grep ' D'\"; "
        f"mostly a dead NFS mount, which comes back with its server: {PAGE}#kill-hung",
    ),
    Kind.TEARDOWN_HUNG: Words(
        "its containers ended, but {node} does not let go of its volumes",
        f"ssh {{node}} grep {{uid}} /proc/mounts; then umount -f what hangs: {PAGE}#teardown-hung",
    ),
    Kind.MOUNT_HUNG: Words(
        "it never started on {node}",
        "kubectl describe pod -n {namespace} {pod}; mostly a volume that cannot be mounted",
    ),
}


def of_node(node: Node, verdict: Verdict) -> Words | None:
    """About a node that nobody has to ask about pods for; None when there is nothing to say."""
    words = _NODE.get(verdict.kind)
    if words is None or verdict.advice is not Advice.LOOK:
        return None
    fields = {
        "node": node.name,
        "ssh": node.address or node.name,
        "ready": node.ready or "nothing",
        "message": node.message or node.reason or "it does not say why",
    }
    return Words(words.matter.format(**fields), words.remedy.format(**fields))


def of_loss(node: Node, verdict: Verdict) -> str:
    """What to do about a lost node."""
    return _LOST[verdict.kind].format(node=node.name, ssh=node.address or node.name)


def of_pod(pod: Pod, verdict: Verdict) -> Words | None:
    """About a pod that hangs for a reason of its own; None when it only has to wait."""
    words = _POD.get(verdict.kind)
    if words is None or verdict.advice is not Advice.LOOK:
        return None
    fields = {
        "namespace": pod.namespace,
        "pod": pod.name,
        "uid": pod.uid,
        "node": pod.node,
        "finalizers": ", ".join(pod.finalizers),
    }
    return Words(words.matter.format(**fields), words.remedy.format(**fields))


def some(names: Iterable[str], *, most: int = MOST_NAMED) -> str:
    """The first few, and how many more there are; empty for none."""
    every: Sequence[str] = tuple(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return f"{', '.join(every[:most])}{more}"
