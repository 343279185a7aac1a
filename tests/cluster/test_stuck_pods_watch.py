"""How one run watches: cheaply, until there is news or somebody ends it."""

from __future__ import annotations

import dataclasses
import hashlib
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.stuck_pods import Settings
from opsd.backup.catalog import publish
from opsd.backup.manifest import Manifest, Verification, data_key
from opsd.backup.repository import StoredObject
from opsd.cluster.nodeloss.survey import Pace
from opsd.model import Outcome
from opsd.testing import RUN_ID, MemoryRepository
from tests.cluster.watcher import QUICK, USER, Watcher, ended, found, until
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.kubelet import Kubelets
from tests.rig.kubestate import node_is, running_pod
from tests.rig.workloads import pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

FOREVER = Settings(watch=timedelta(minutes=10), ports=())


@pytest.fixture
def watcher(control_plane: ControlPlane, kubelets: Kubelets, tmp_path: Path) -> Watcher:
    """opsd on a cluster with at least one healthy node, which it has watched for long enough."""
    assert kubelets is not None
    watcher = Watcher(control_plane=control_plane, scratch=tmp_path)
    assert ended(watcher.look())
    return watcher


@pytest.fixture
def ctrl_c() -> Iterator[threading.Timer]:
    """Ends the test's run in two seconds, as the daemon does that is stopped."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker ignores it
    yield threading.Timer(2.0, lambda: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, before)


def test_a_healthy_cluster_is_asked_less_than_ten_times_a_minute(
    control_plane: ControlPlane, workers: Workers, watcher: Watcher
) -> None:
    for node in workers(2):
        node_is(control_plane.api, node, "True")
    patient = dataclasses.replace(QUICK, hold=timedelta(seconds=15))
    assert ended(watcher.look(thresholds=patient))
    watcher.pace, watcher.settings = Pace(), Settings(ports=())
    since = control_plane.audit.mark()

    run = watcher.look(thresholds=patient)

    calls = [str(call) for call in control_plane.audit.calls(user=USER, since=since)]
    assert ended(run)
    assert 5 < len(calls) < 9, calls  # once in five minutes all pods are listed: that is one more
    assert sum("nodes" in call for call in calls) == 1
    assert not any("pods" in call for call in calls)


def test_a_run_ends_as_soon_as_a_node_is_lost(
    control_plane: ControlPlane, workers: Workers, watcher: Watcher
) -> None:
    [node] = workers(1)
    node_is(control_plane.api, node, "True")
    watcher.look()
    watcher.settings = FOREVER

    node.lose_power()
    run = watcher.look()

    assert found(run, f"node/{node.name}")


def test_a_run_ends_as_soon_as_a_node_is_back(
    control_plane: ControlPlane, workers: Workers, watcher: Watcher
) -> None:
    [node] = workers(1)
    node_is(control_plane.api, node, "True")
    node.cut_off()
    until(watcher, lambda run: found(run, f"node/{node.name}"))
    watcher.settings = FOREVER

    node.come_back()
    run = watcher.look()

    assert ended(run)
    assert not found(run, f"node/{node.name}")


def test_a_watch_that_is_ended_has_said_what_it_saw(
    watcher: Watcher, ctrl_c: threading.Timer
) -> None:
    watcher.settings = FOREVER
    ctrl_c.start()

    run = watcher.look()

    assert ended(run)


def test_a_watch_that_is_ended_before_it_knows_anything_was_interrupted(
    watcher: Watcher, ctrl_c: threading.Timer
) -> None:
    ctrl_c.start()

    run = watcher.look(thresholds=dataclasses.replace(QUICK, hold=timedelta(hours=1)))

    assert run.outcome is Outcome.INTERRUPTED
    assert run.findings == ()


def test_the_newest_good_backup_of_what_is_down_is_told(
    control_plane: ControlPlane, workers: Workers, namespace: str, watcher: Watcher
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(stateful_set(namespace, "pg", pod_spec(node.pool, image="postgres:17")))
    running_pod(api, namespace, "pg-0")
    repository = MemoryRepository("usb")
    for server, age_h, is_good in (("pg", 30, True), ("pg", 5, True), ("pg", 1, False)):
        store(repository, f"database/{namespace}-{server}/app", age_h, is_good=is_good)
    store(repository, "database/other/app", 2, is_good=True)
    watcher.repositories = (repository,)
    watcher.settings = Settings(repositories=("usb",), watch=timedelta(0), ports=())

    node.lose_power()
    run = until(watcher, lambda run: found(run, f"node/{node.name}"))

    lost = found(run, f"node/{node.name}")
    assert lost
    assert lost.facts["newest_backup"] == f"database/{namespace}-pg/app 5 h ago in usb"
    assert f"newest_backup: database/{namespace}-pg/app 5 h ago in usb" in (
        watcher.messages[-1].body
    )


class Hanging(MemoryRepository):
    """As a directory on a dead file server."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        time.sleep(3600)
        return super().list(prefix)


def test_a_repository_that_hangs_does_not_keep_the_message_back(
    control_plane: ControlPlane,
    workers: Workers,
    namespace: str,
    watcher: Watcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api, [node] = control_plane.api, workers(1)
    api.create(stateful_set(namespace, "pg", pod_spec(node.pool, image="postgres:17")))
    running_pod(api, namespace, "pg-0")
    watcher.repositories = (Hanging("usb"),)
    watcher.settings = Settings(repositories=("usb",), watch=timedelta(0), ports=())
    monkeypatch.setattr("jobs.stuck_pods.RESEARCH_S", 0.5)

    node.lose_power()
    run = until(watcher, lambda run: found(run, f"node/{node.name}"))

    lost = found(run, f"node/{node.name}")
    assert lost
    assert "not done in 0.5 s" in str(lost.facts["newest_backup"])


def store(repository: MemoryRepository, subject: str, age_h: int, *, is_good: bool) -> None:
    """A backup of some hours ago."""
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=age_h)
    key, content = data_key(subject, at, RUN_ID, ".dump"), b"archive"
    repository.create(key, content)
    manifest = Manifest(
        kind="pg_dump",
        subject=subject,
        slot=at,
        run_id=RUN_ID,
        created_at=at,
        key=key,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        verified=(Verification(level="read_back", at=at, ok=is_good),),
    )
    publish(repository, manifest)
