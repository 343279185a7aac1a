"""`opsd init` on a real API server: what it sees, what it may not see, and what it never reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import JOBS, postgres_backup
from opsd.cli import main
from opsd.configfile import load
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import path_of
from tests.rig.workloads import deployment, service_account, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "OPSD_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("kubelets")
def test_a_cluster_is_written_down_as_it_is_and_no_secret_is_read(
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = [{"name": "NFS_SERVER", "value": "192.0.2.7"}, {"name": "NFS_PATH", "value": "/srv/k8s"}]
    provisioner = {"containers": [{"name": "p", "image": "nfs-subdir:4", "env": env}]}
    server = {"containers": [{"name": "pg", "image": "postgres:18", "ports": []}]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{namespace}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "nfs": {"server": "192.0.2.7", "path": "/srv/k8s/db-data"},
        },
    }
    reachable = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": "pg"},
        "spec": {"selector": {"app": "pg"}, "ports": [{"port": 5432}]},
    }
    control_plane.api.create(
        deployment(namespace, "nfs", provisioner),
        stateful_set(namespace, "pg", server),
        reachable,
        volume,
    )
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig("init")))
    since = control_plane.audit.mark()

    status = main(["init"])

    control_plane.api.delete(path_of(volume))
    assert status == 0
    text = (tmp_path / "config.toml").read_text()
    config = load(tmp_path / "config.toml", JOBS)
    settings = config.jobs["postgres-backup"].settings
    assert isinstance(settings, postgres_backup.Settings)
    assert settings.discover is True
    assert f"# Found now: {namespace}.pg: statefulset {namespace}/pg at pg.{namespace}.svc" in text
    assert f"# 192.0.2.7:/srv/k8s, from deployment {namespace}/nfs; 1 volumes lie on it." in text
    assert "always-healthy" in text
    assert config.document.kubernetes.kubeconfig == str(control_plane.kubeconfig("init"))
    calls = control_plane.audit.calls(user="init", since=since)
    assert {call.verb for call in calls} <= {"list", "get"}
    assert not [call for call in calls if "secret" in call.resource]


def test_what_may_not_be_seen_is_told_in_the_file_and_by_the_exit_status(
    control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    control_plane.api.create(service_account(namespace, "stranger"))
    kubeconfig = control_plane.kubeconfig_of(namespace, "stranger")

    status = main(["init", "--kubeconfig", str(kubeconfig)])

    assert status == 1
    load(tmp_path / "config.toml", JOBS)
    assert "# NOT COMPLETE: list statefulsets: 403" in (tmp_path / "config.toml").read_text()
    assert "cannot list nodes" in capsys.readouterr().err
