"""The jobs that opsd can run, in the order in which they are shown."""

from __future__ import annotations

from jobs import (
    etcd_backup,
    nfs_backup,
    nfs_health,
    node_health,
    node_patches,
    node_remedy,
    postgres_backup,
    pv_guard,
    stuck_pods,
    upgrade_readiness,
)
from opsd.job import AnyJob

JOBS: tuple[AnyJob, ...] = (
    postgres_backup.JOB,
    nfs_backup.JOB,
    etcd_backup.JOB,
    pv_guard.JOB,
    stuck_pods.JOB,
    node_remedy.JOB,
    upgrade_readiness.JOB,
    node_health.JOB,
    node_patches.JOB,
    nfs_health.JOB,
)
