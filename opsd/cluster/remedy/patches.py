"""Changes of a Node object that touch nothing of anybody else's. Pure.

JSON Patch with tests: the taint that is removed is ours to the last field, by its value, and
all other taints stay in their places. The caller has the API server refuse the patch when the
node was changed since it was read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opsd.clients.kube.objects import Node, Taint
from opsd.cluster.remedy.record import CONFIRMED, LIFT, PAST, PLAN, Past, Plan, written

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
OURS = "opsd"  # the taint's value: whose it is
EFFECT = "NoExecute"

Operation = Mapping[str, Any]


def is_ours(taint: Taint) -> bool:
    """Whether opsd set it."""
    return (taint.key, taint.value, taint.effect) == (OUT_OF_SERVICE, OURS, EFFECT)


def is_foreign(taint: Taint) -> bool:
    """Whether somebody else took the node out of service."""
    return taint.key == OUT_OF_SERVICE and not is_ours(taint)


def noted(node: Node, plan: Plan) -> tuple[Operation, ...]:
    """Write down how far it got."""
    return tuple(_annotated(node, {PLAN: written(plan)}))


def tainted(node: Node, plan: Plan) -> tuple[Operation, ...]:
    """Take the node out of service, and write that down, in one step."""
    return (*_with_taint(node), *noted(node, plan))


def finished(node: Node, past: Past) -> tuple[Operation, ...]:
    """Put the node back into service if we took it out, and keep only when that was."""
    gone = [key for key in (PLAN, LIFT, CONFIRMED) if key in node.annotations]
    return (
        *_without_taint(node),
        *({"op": "remove", "path": _at(key)} for key in gone),
        *_annotated(node, {PAST: written(past)}),
    )


def _with_taint(node: Node) -> Iterator[Operation]:
    taints = node.spec.taints
    if any(is_ours(taint) for taint in taints):
        return
    ours = {"key": OUT_OF_SERVICE, "value": OURS, "effect": EFFECT}
    if taints:
        yield {"op": "add", "path": "/spec/taints/-", "value": ours}
    else:
        yield {"op": "add", "path": "/spec/taints", "value": [ours]}


def _without_taint(node: Node) -> Iterator[Operation]:
    for index in _places(node.spec.taints):
        path = f"/spec/taints/{index}"
        yield {"op": "test", "path": f"{path}/key", "value": OUT_OF_SERVICE}
        yield {"op": "test", "path": f"{path}/value", "value": OURS}
        yield {"op": "test", "path": f"{path}/effect", "value": EFFECT}
        yield {"op": "remove", "path": path}


def _places(taints: Sequence[Taint]) -> list[int]:
    """Where ours stand, the last first, so that removing one moves none of the others."""
    return [index for index, taint in reversed(list(enumerate(taints))) if is_ours(taint)]


def _annotated(node: Node, values: Mapping[str, str]) -> Iterator[Operation]:
    if not node.annotations:
        yield {"op": "add", "path": "/metadata/annotations", "value": dict(values)}
        return
    for key, value in values.items():
        yield {"op": "add", "path": _at(key), "value": value}


def _at(key: str) -> str:
    return "/metadata/annotations/" + key.replace("~", "~0").replace("/", "~1")
