"""Does opsd itself live through the upgrade?

Limits: where opsd runs is known by the name of its pod only. Outside of the cluster there is
nothing to judge.
"""

from __future__ import annotations

from collections.abc import Iterator

from opsd.clients.kube.objects import Pod
from opsd.upgrade.check import Check, Hop, Note, failed, passed, skipped, warned
from opsd.upgrade.facts import Facts


def _own_place(facts: Facts, _: Hop) -> Iterator[Note]:
    own = next((pod for pod in facts.pods.value if pod.uid == facts.own_pod), None)
    if own is None:
        yield skipped("opsd", "does not run in this cluster")
        return
    where = str(own)
    if own.controller is None:
        yield failed(where, "nobody makes it again when its node is drained")
    for name in _claims(own):
        claim = next(
            (
                one
                for one in facts.claims.value
                if (one.namespace, one.name) == (own.namespace, name)
            ),
            None,
        )
        volume = next(
            (one for one in facts.volumes.value if claim and one.name == claim.spec.volume_name),
            None,
        )
        if volume and (volume.spec.local or volume.spec.host_path):
            node = own.spec.node_name
            yield failed(where, f"its volume {name} lies on {node}: it is away while that is")
        elif volume and volume.spec.nfs:
            server = volume.spec.nfs.server
            yield warned(where, f"its volume {name} is on NFS server {server}: do not restart it")
    yield passed(where, f"on {own.spec.node_name}, which the runbook upgrades last")


def _claims(pod: Pod) -> list[str]:
    found = (one.persistent_volume_claim for one in pod.spec.volumes)
    return [one.claim_name for one in found if one]


CHECKS = (
    Check(
        id="opsd-itself",
        title="opsd can move to another node and keeps its state",
        row=50,
        judge=_own_place,
        fix="move opsd's state to a volume that moves with it, or run it outside of the cluster",
        source="docs/design.md",
    ),
)
