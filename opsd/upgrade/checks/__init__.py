"""The checks, in the order in which they are shown. To add one: a `Check`, and a name here."""

from __future__ import annotations

from opsd.upgrade.check import Check
from opsd.upgrade.checks import (
    certificates,
    etcd_health,
    kubelet_files,
    nodes_ready,
    packages,
    served_certificates,
    static_manifests,
)

CHECKS: tuple[Check, ...] = (
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
