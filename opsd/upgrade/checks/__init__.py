"""The checks, in the order in which they are shown. To add one: a `Check`, and a name here."""

from __future__ import annotations

from opsd.upgrade.check import Check
from opsd.upgrade.checks import (
    addons,
    apis,
    certificates,
    configuration,
    draining,
    etcd_health,
    etcd_version,
    gitops,
    itself,
    kubelet_files,
    nodes,
    nodes_ready,
    packages,
    runtime,
    served_certificates,
    serving,
    static_manifests,
    versions,
    workloads,
)

CHECKS: tuple[Check, ...] = (
    # What the API says.
    *versions.CHECKS,
    *etcd_version.CHECKS,
    *configuration.CHECKS,
    *runtime.CHECKS,
    *addons.CHECKS,
    *apis.CHECKS,
    *gitops.CHECKS,
    *nodes.CHECKS,
    *draining.CHECKS,
    *serving.CHECKS,
    *workloads.CHECKS,
    *itself.CHECKS,
    # What lies on the machines.
    kubelet_files.KUBELET_GATES,
    kubelet_files.KUBELET_FLAGS,
    kubelet_files.CGROUP,
    kubelet_files.SWAP,
    certificates.CERTIFICATES,
    certificates.KUBELET_CERTIFICATE,
    served_certificates.SERVED,
    etcd_health.HEALTH,
    etcd_health.SNAPSHOT,
    static_manifests.MANIFESTS,
    static_manifests.EDITS,
    static_manifests.REFERENCES,
    nodes_ready.SPACE,
    nodes_ready.CLOCK,
    nodes_ready.IMAGES,
    packages.REPOSITORY,
    packages.PACKAGES,
)
