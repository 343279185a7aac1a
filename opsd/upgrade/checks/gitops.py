"""Does Flux work, and would it undo what kubeadm does?"""

from __future__ import annotations

from collections.abc import Iterator

from opsd.clients.kube.objects import HelmRelease, Kustomization
from opsd.upgrade.check import Check, Hop, Note, each, failed, passed, skipped, unknown, warned
from opsd.upgrade.components import SYSTEM
from opsd.upgrade.facts import Facts
from opsd.upgrade.support import support

_VERSION = "app.kubernetes.io/version"
_PART_OF = "app.kubernetes.io/part-of"
#: Objects in kube-system that kubeadm writes.
_OF_KUBEADM = ("coredns", "kube-proxy", "kubeadm-config", "kubelet-config")


def _ready(facts: Facts, _: Hop) -> Iterator[Note]:
    found: list[Kustomization | HelmRelease] = [*facts.kustomizations.value]
    found.extend(facts.flux_releases.value)
    if not found:
        yield skipped("Flux", "it is not here, or applies nothing")
        return

    def judge(one: Kustomization | HelmRelease) -> Iterator[Note]:
        state = next((c for c in one.status.conditions if c.type == "Ready"), None)
        if one.spec.suspend:
            yield passed(str(one), "suspended")
        elif state is None or state.status == "Unknown":
            yield unknown(str(one), "not reconciled yet")
        elif state.status != "True":
            yield failed(str(one), state.message or state.reason)
        else:
            yield passed(str(one), "Ready")

    yield from each(found, judge)


def _version(facts: Facts, _: Hop) -> Iterator[Note]:
    found = {
        one.labels[_VERSION]
        for one in facts.deployments.value
        if one.labels.get(_PART_OF) == "flux" and _VERSION in one.labels
    }
    for version in sorted(found):
        yield support("Flux", "flux", version, today=facts.at.date())
    if not found:
        yield skipped("Flux", "it is not here")


def _fights(facts: Facts, _: Hop) -> Iterator[Note]:
    found = facts.kustomizations.value
    if not found:
        yield skipped("Flux", "it is not here, or applies nothing")
        return

    def judge(one: Kustomization) -> Iterator[Note]:
        entries = one.status.inventory.entries if one.status.inventory else ()
        for entry in entries:
            namespace, _, rest = entry.id.partition("_")
            name = rest.partition("_")[0]
            if namespace == SYSTEM and name in _OF_KUBEADM:
                yield warned(str(one), f"applies {SYSTEM}/{name}, which kubeadm changes")

    yield from each(found, judge)
    yield passed("Flux", f"{len(found)} kustomizations looked at")


CHECKS = (
    Check(
        id="flux-ready",
        title="Everything that Flux applies is applied",
        row=23,
        judge=_ready,
        fix="flux get all -A --status-selector ready=false; mend or suspend it first",
        source="fluxcd.io, conditions of Kustomizations and HelmReleases",
    ),
    Check(
        id="flux-support",
        title="Flux gets fixes",
        row=23,
        judge=_version,
        fix="flux install of a newer release; it supports the newest three of Kubernetes",
        source="fluxcd.io, Supported versions",
    ),
    Check(
        id="flux-fights",
        title="Flux does not apply what kubeadm writes",
        row=49,
        judge=_fights,
        fix="flux suspend kustomization NAME for the time of the upgrade, then change Git",
        source="kubeadm, phases addon and upload-config",
    ),
)
