"""A control plane's root directory with small real files, and runs of etcd-backup against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage

from jobs import etcd_backup
from opsd.backup.catalog import Backup, read_catalog
from opsd.backup.directory import DirectoryRepository
from opsd.backup.etcd.settings import Settings
from opsd.backup.repository import Repository
from opsd.clock import SystemClock
from opsd.model import Finding, Run
from opsd.runner import execute
from opsd.testing import context
from tests.rig import etcds

SLOT = datetime(2026, 11, 22, 3, tzinfo=UTC)
SUBJECT = "etcd/main"
ETCD_MANIFEST = """\
spec:
  containers:
  - command:
    - etcd
    - --name=rpi1
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=https://10.0.0.11:2380
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: registry.k8s.io/etcd:3.6.6-0
"""
APISERVER_MANIFEST = """\
spec:
  containers:
  - command:
    - kube-apiserver
    - --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt
    - --etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt
    - --etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key
    - --etcd-servers=https://127.0.0.1:2379
    image: registry.k8s.io/kube-apiserver:v1.36.3
"""
FILES = {
    "etc/kubernetes/manifests/etcd.yaml": ETCD_MANIFEST,
    "etc/kubernetes/manifests/kube-apiserver.yaml": APISERVER_MANIFEST,
    "etc/kubernetes/manifests/kube-controller-manager.yaml": "spec: {}\n",
    "etc/kubernetes/manifests/kube-scheduler.yaml": "spec: {}\n",
    "var/lib/kubelet/config.yaml": "kind: KubeletConfiguration\n",
    "var/lib/kubelet/kubeadm-flags.env": "KUBELET_KUBEADM_ARGS=\n",
    **{
        f"etc/kubernetes/pki/{name}": f"canary-key {name}\n"
        for name in (
            *("ca.crt", "ca.key", "sa.pub", "sa.key"),
            *("front-proxy-ca.crt", "front-proxy-ca.key", "etcd/ca.crt", "etcd/ca.key"),
            *("apiserver-etcd-client.crt", "apiserver-etcd-client.key"),
        )
    },
}


def write_root(root: Path) -> Path:
    """A node's root with everything that a rebuild needs."""
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@dataclass
class Owner:
    """Somebody who backs up a control plane into a directory."""

    place: Path
    endpoints: Sequence[str]
    identity: pyrage.x25519.Identity = field(default_factory=pyrage.x25519.Identity.generate)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the directories."""
        for name in ("repository", "scratch"):
            (self.place / name).mkdir(exist_ok=True)
        (self.place / "identity").write_text(f"{self.identity}\n")
        write_root(self.place / "root")

    @property
    def root(self) -> Path:
        """The node's root."""
        return self.place / "root"

    @property
    def repository(self) -> DirectoryRepository:
        """Where it goes."""
        return DirectoryRepository("disk", self.place / "repository")

    @property
    def identity_file(self) -> Path:
        """What opens it."""
        return self.place / "identity"

    @property
    def scratch(self) -> Path:
        """The job's own directory."""
        return self.place / "scratch"

    def table(self, **changes: Any) -> Settings:
        """The job's settings."""
        made: dict[str, Any] = {
            "repositories": ["disk"],
            "recipients": [str(self.identity.to_public())],
            "endpoints": list(self.endpoints),
            "host_root": str(self.root),
            "programs": str(etcds.programs()),
        }
        return Settings.model_validate(made | self.settings | changes)

    def run(
        self,
        *,
        day: int = 0,
        dry_run: bool = False,
        within_s: float = 60.0,
        repositories: Sequence[Repository] = (),
        dead_runs: Sequence[str] = (),
        **changes: Any,
    ) -> Run:
        """One run of the job."""
        ctx = context(
            scratch=self.scratch,
            repositories=repositories or (self.repository,),
            clock=SystemClock(),
            job="etcd-backup",
            run_id=f"{day + 100:012x}",
            slot=SLOT + timedelta(days=day),
            timeout=timedelta(seconds=within_s),
            dry_run=dry_run,
            dead_runs=dead_runs,
        )
        return execute(etcd_backup.JOB, self.table(**changes), ctx)

    def backups(self) -> tuple[Backup, ...]:
        """What the repository has, the newest first."""
        return read_catalog(self.repository).series(SUBJECT)

    def files(self) -> list[str]:
        """What lies in the repository."""
        top = self.place / "repository"
        return sorted(str(one.relative_to(top)) for one in top.rglob("*") if one.is_file())

    def plain_copies(self) -> list[Path]:
        """What a drill left behind."""
        return [path for path in self.scratch.rglob("*") if path.is_file()]


def checks(run: Run) -> list[str]:
    """The checks that were found."""
    return [finding.check for finding in run.findings]


def the(run: Run, check: str) -> Finding:
    """The one finding of a check."""
    (found,) = [finding for finding in run.findings if finding.check == check]
    return found
