"""Does anything here use what the target takes away from pods and services?"""

from __future__ import annotations

from collections.abc import Iterator

from opsd.clients.kube.objects import DaemonSet, Deployment, Object, StatefulSet
from opsd.clients.kube.objects.pods import PodSpec
from opsd.upgrade import releases
from opsd.upgrade.check import Check, Hop, Note, Scope, failed, passed, unknown, warned
from opsd.upgrade.facts import Facts
from opsd.upgrade.version import Minor

EXTERNAL_IPS_DEPRECATED = Minor(1, 36)  # PR 137293
GIT_REPO_GONE = Minor(1, 36)  # and never back


def _volumes(facts: Facts, hop: Hop) -> Iterator[Note]:
    target = releases.table().of(hop.target)
    if target is None:
        yield unknown("releases", f"opsd does not know {hop.target}")
        return
    seen = 0
    for owner, spec in _specs(facts):
        seen += 1
        for volume in spec.volumes:
            if volume.git_repo is not None and hop.target >= GIT_REPO_GONE:
                yield failed(str(owner), f"volume {volume.name}: kubelets refuse gitRepo")
            if volume.flex_volume is not None and hop.target >= GIT_REPO_GONE:
                driver = volume.flex_volume.driver
                yield failed(
                    str(owner),
                    f"volume {volume.name} of {driver}: kubeadm no longer mounts flex-volumes",
                    fix="move it to a CSI driver, or mount the plug-ins by extraVolumes yourself "
                    "(kubernetes/kubernetes PR 136423)",
                )
    yield passed("pods and their templates", f"{seen} looked at")


def _specs(facts: Facts) -> Iterator[tuple[Object, PodSpec]]:
    """What pods are to be: by their templates, and those without a controller."""
    sets: list[Deployment | StatefulSet | DaemonSet] = [*facts.deployments.value]
    sets.extend((*facts.stateful_sets.value, *facts.daemon_sets.value))
    for one in sets:
        yield one, one.spec.template.spec
    for pod in facts.pods.value:
        if pod.controller is None:
            yield pod, pod.spec


def _external_ips(facts: Facts, hop: Hop) -> Iterator[Note]:
    services = facts.services.value
    for service in services:
        if service.spec.external_ips and hop.target >= EXTERNAL_IPS_DEPRECATED:
            told = ", ".join(service.spec.external_ips)
            yield warned(str(service), f"externalIPs {told}: deprecated since 1.36")
    yield passed("services", f"{len(services)} looked at")


CHECKS = (
    Check(
        id="volume-types",
        title="No pod has a volume that the target refuses",
        row=47,
        judge=_volumes,
        fix="clone in an init container into an emptyDir instead",
        source="kubernetes/kubernetes PR 136400",
        scope=Scope.HOP,
    ),
    Check(
        id="external-ips",
        title="No Service has externalIPs",
        row=47,
        judge=_external_ips,
        fix="use a Service of type LoadBalancer with MetalLB",
        source="kubernetes/kubernetes PR 137293",
        scope=Scope.HOP,
    ),
)
