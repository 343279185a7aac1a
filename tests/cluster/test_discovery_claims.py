"""Claims of a real API server are held against the shares that are backed up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import nfs_backup
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.client import Kube
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline, SystemClock
from opsd.model import Finding, Outcome, Run
from opsd.runner import execute
from opsd.testing import MemoryRepository, context
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import eventually, path_of
from tests.rig.workloads import claim_on_nfs, service_account

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

SERVER = "192.0.2.7"


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A share on the file server itself."""
    folder = tmp_path / "srv"
    folder.mkdir()
    (folder / "file").write_text("x")
    return folder


@pytest.fixture
def claims(control_plane: ControlPlane, namespace: str, share: Path) -> Iterator[None]:
    """One claim on the share and one beside it."""
    inside = claim_on_nfs(namespace, "inside", server=SERVER, path=f"{share}/inside")
    outside = claim_on_nfs(namespace, "outside", server=SERVER, path="/elsewhere/outside")
    control_plane.api.create(*inside, *outside)
    paths = [path_of(claim) for _, claim in (inside, outside)]

    def all_bound() -> bool:
        return all(control_plane.api.get(one)["status"]["phase"] == "Bound" for one in paths)

    eventually(all_bound)
    yield
    for volume, claim in (inside, outside):
        control_plane.api.delete(path_of(claim))
        control_plane.api.delete(path_of(volume))


def backed_up(share: Path, kubeconfig: Path, scratch: Path, **changed: Any) -> Run:
    password = scratch / "password"
    password.write_text("correct horse")
    table = {
        "name": "nfs",
        "path": str(share),
        "mounted": False,
        "engine": "rsync",
        "repository": "memory",
        "destination": str(scratch / "copies"),
    }
    settings = nfs_backup.Settings.model_validate(
        {"shares": [table], "claims": True, "wanted_age": "0s", **changed}
    )
    transport = Transport(lambda: find_cluster(kubeconfig=kubeconfig))
    ctx = context(
        scratch=scratch / "scratch",
        repositories=[MemoryRepository()],
        kube=Kube(transport, deadline=Deadline.after(90, SystemClock())),
        clock=SystemClock(),
        timeout=timedelta(seconds=90),
    )
    return execute(nfs_backup.JOB, settings, ctx)


def about(run: Run, namespace: str) -> list[Finding]:
    return [one for one in run.findings if one.subject.startswith(f"claim/{namespace}/")]


@pytest.mark.usefixtures("claims")
def test_a_claim_beside_the_share_is_named_and_the_one_on_it_is_not(
    control_plane: ControlPlane, namespace: str, share: Path, tmp_path: Path
) -> None:
    run = backed_up(share, control_plane.kubeconfig(), tmp_path)

    assert run.outcome is Outcome.COMPLETED, run
    [finding] = about(run, namespace)
    assert finding.check == "backup.not_covered"
    assert finding.subject == f"claim/{namespace}/outside"
    assert finding.facts["directory"] == "192.0.2.7:/elsewhere/outside"
    assert f"claim/{namespace}/inside" in run.seen


def test_claims_that_may_not_be_read_are_unknown_and_the_share_is_backed_up(
    control_plane: ControlPlane, namespace: str, share: Path, tmp_path: Path
) -> None:
    control_plane.api.create(service_account(namespace, "stranger"))

    run = backed_up(share, control_plane.kubeconfig_of(namespace, "stranger"), tmp_path)

    assert run.outcome is Outcome.FAILED
    assert [one.subject for one in run.artifacts] == ["share/nfs"]
    [finding] = [one for one in run.findings if one.check == "cluster.unreadable"]
    assert "cannot list persistentvolumes" in str(finding.facts["error"])
    assert not run.may_pass
