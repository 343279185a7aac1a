"""A lost node on a control plane as kubeadm leaves it, and stuck-pods with its own defaults.

Limits: seven minutes, most of them waiting for Kubernetes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.stuck_pods import Settings
from opsd.cluster.nodeloss.facts import STANDARD
from opsd.cluster.nodeloss.survey import Pace
from tests.cluster.watcher import USER, Watcher, ended, forbidden, found, s, until
from tests.rig import controlplane, kubelet
from tests.rig.kubeapi import eventually
from tests.rig.kubestate import is_gone, running_pod
from tests.rig.workloads import pod_spec, stateful_set

pytestmark = [
    pytest.mark.real,
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.timeout(1200),
]
# Kubernetes waits 50 s for the node, 300 s for its pods, and then their grace period.
SILENT_S, EVICTED_S = 120.0, 480.0


def test_a_lost_node_is_told_once_and_then_its_stuck_pods_until_it_is_back(tmp_path: Path) -> None:
    with (
        controlplane.running(clock=controlplane.DEFAULTS) as plane,
        kubelet.running(plane) as kubelets,
    ):
        lost, *_others = kubelets.add_pool("w", 4)  # with fewer, one loss is most of the cluster
        namespace = plane.namespace("shop")
        plane.api.create(stateful_set(namespace, "db", pod_spec("w", nodeName=lost.name)))
        db = running_pod(plane.api, namespace, "db-0")
        watcher = Watcher(
            control_plane=plane,
            scratch=tmp_path,
            settings=Settings(watch=s(20), ports=()),
            thresholds=STANDARD,
            pace=Pace(),
        )
        watcher.kubeconfig  # noqa: B018 - makes the account
        since = plane.audit.mark()
        until(watcher, ended, within_s=200)

        lost.lose_power()
        until(watcher, lambda run: found(run, f"node/{lost.name}"), within_s=SILENT_S)
        until(watcher, lambda run: found(run, f"pod/{namespace}/db-0"), within_s=EVICTED_S)
        told_of_the_loss = len(watcher.messages)
        lost.boot()
        eventually(lambda: is_gone(plane.api, db), within_s=SILENT_S)
        until(watcher, lambda run: not run.findings, within_s=300)

        first, *more = watcher.messages
        assert first.title.startswith(f"Act now: {lost.name} is lost")
        assert told_of_the_loss == 1
        assert [one.title.startswith("Resolved: ") for one in more] == [True]
        assert forbidden(plane.audit.calls(user=USER, since=since)) == []
