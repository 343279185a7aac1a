"""A lost node is fenced, emptied and given back on a real control plane; nothing else is done."""

from __future__ import annotations

import enum
from pathlib import Path

import pytest

from jobs.node_remedy import Settings
from opsd.clients.kube.calls import Request
from opsd.clients.kube.transport import Transport
from opsd.clock import Deadline
from opsd.model import Outcome, Severity
from tests.cluster.remedier import (
    OUT_OF_SERVICE,
    PAST,
    PLAN,
    USER,
    Plug,
    Remedier,
    finding,
    phase,
    refusal,
    taints,
)
from tests.cluster.watcher import s
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import KubeApi, Object, eventually, path_of
from tests.rig.kubelet import FakeNode
from tests.rig.kubestate import is_gone, node_is, running_pod, uid_of
from tests.rig.workloads import pod, pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

OURS = (OUT_OF_SERVICE, "opsd", "NoExecute")
FOREIGN = {"key": "example.org/mine", "value": "keep", "effect": "NoSchedule"}


@pytest.fixture
def plug(tmp_path: Path) -> Plug:
    return Plug(tmp_path)


@pytest.fixture
def opsd(control_plane: ControlPlane, tmp_path: Path, namespace: str, plug: Plug) -> Remedier:
    """opsd that may move what is in the namespace, and has a plug for every node."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = Settings(
        allow=(namespace,),
        fences=(plug.table(),),
        patience=s(7),
        healthy_for=s(2),
        cool_down=s(1),
        max_lost_percent=50,
    )
    opsd = Remedier(control_plane=control_plane, scratch=scratch, settings=settings)
    opsd.until(lambda run: run.outcome is Outcome.COMPLETED)
    return opsd


def change(opsd: Remedier, **values: object) -> None:
    opsd.settings = opsd.settings.model_copy(update=values)


def node_of(api: KubeApi, node: FakeNode) -> Object:
    return api.get(f"/api/v1/nodes/{node.name}")


def database(
    api: KubeApi, namespace: str, nodes: list[FakeNode], *, name: str = "db"
) -> tuple[Object, FakeNode]:
    """A StatefulSet's running pod, and the node that it is on."""
    api.create(stateful_set(namespace, name, pod_spec(nodes[0].pool, grace_s=1)))
    db = running_pod(api, namespace, f"{name}-0")
    return db, next(one for one in nodes if one.name == db["spec"]["nodeName"])


def moved(api: KubeApi, db: Object) -> Object:
    """Wait until the successor of a pod runs."""
    eventually(lambda: is_gone(api, db))
    found = running_pod(api, db["metadata"]["namespace"], db["metadata"]["name"])
    assert uid_of(found) != uid_of(db)
    return found


def in_phase(opsd: Remedier, node: FakeNode, *phases: str) -> Object:
    """Run opsd until the node's record is in one of these phases; empty: there is none."""
    opsd.until(lambda _run: phase(node_of(opsd.control_plane.api, node)) in phases)
    return node_of(opsd.control_plane.api, node)


def lose(opsd: Remedier, node: FakeNode) -> None:
    node.lose_power()
    node_is(opsd.control_plane.api, node, "Unknown")


def test_a_lost_node_is_fenced_emptied_and_given_back_after_its_reboot(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(3)
    db, node = database(api, namespace, nodes)
    spec = {"spec": {"taints": [FOREIGN]}}
    api.patch(f"/api/v1/nodes/{node.name}", spec, kind="strategic")
    opsd.run()
    since = control_plane.audit.mark()

    lose(opsd, node)
    in_phase(opsd, node, "moving", "moved")
    successor = moved(api, db)
    fenced = in_phase(opsd, node, "moved")
    told = finding(opsd.run(), "remedy.under_way", node.name)
    plug.turn("on")
    node.boot()
    given_back = in_phase(opsd, node, "")

    assert successor["spec"]["nodeName"] != node.name
    assert OURS in set(taints(fenced))
    assert told is not None
    assert told.facts["proof"] == "without power by plug, read back"
    assert (FOREIGN["key"], "keep", "NoSchedule") in set(taints(given_back))
    assert OUT_OF_SERVICE not in {key for key, _, _ in taints(given_back)}
    assert PAST in given_back["metadata"]["annotations"]
    assert plug.calls == ["status", "off", "status", "status"]
    # begun, claimed, fenced, tainted, moved, rebooted, finished: nothing else was written
    assert opsd.writes(since) == [f"patch nodes {node.name}: 200"] * 7
    assert finding(opsd.run(), "remedy.under_way", node.name) is None


def test_a_node_that_comes_back_without_a_reboot_stays_fenced(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    change(opsd, fences=(plug.table(cuts="network"),))
    node.cut_off()
    node_is(api, node, "Unknown")
    in_phase(opsd, node, "moved")
    moved(api, db)

    node.come_back()
    node_is(api, node, "True")
    run = opsd.until(lambda run: finding(run, "remedy.not_rebooted", node.name))
    for _ in range(3):
        opsd.run()
    kept = node_of(api, node)
    was_on = plug.is_on
    node.boot()
    given_back = in_phase(opsd, node, "")

    told = finding(run, "remedy.not_rebooted", node.name)
    assert told is not None
    assert told.severity is Severity.CRITICAL
    assert f"opsd fence lift {node.name}" in told.remedy
    assert OURS in set(taints(kept))
    assert not was_on
    assert OURS not in set(taints(given_back))
    assert plug.is_on
    assert plug.calls[-3:] == ["status", "on", "status"]


def test_a_cluster_that_is_well_costs_four_small_requests(
    control_plane: ControlPlane, workers: Workers, opsd: Remedier
) -> None:
    workers(2)
    opsd.run()
    since = control_plane.audit.mark()

    run = opsd.run()

    calls = control_plane.audit.calls(user=USER, since=since)
    assert [f"{call.verb} {call.resource}" for call in calls] == [
        "list leases",
        "get leases",
        "list nodes",
        "list nodes",
    ]
    assert run.findings == ()


def test_without_a_working_fence_nothing_is_moved(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    plug.fail()

    lose(opsd, node)
    run = opsd.until(lambda run: finding(run, "remedy.fence_failed", node.name))
    for _ in range(2):
        opsd.run()
    still = node_of(api, node)
    was_there = not is_gone(api, db)
    plug.fail(fails=False)
    in_phase(opsd, node, "moving", "moved")

    told = finding(run, "remedy.fence_failed", node.name)
    assert told is not None
    assert "no route to plug" in str(told.facts["said"])
    assert phase(still) == "fencing"
    assert OURS not in set(taints(still))
    assert was_there
    moved(api, db)


def test_a_node_that_returns_between_fence_and_taint_is_not_tainted(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    opsd.leads = lambda: "off" not in plug.calls or phase(node_of(api, node)) == "fencing"
    lose(opsd, node)
    opsd.until(lambda run: refusal(run, node.name) == {"not_leader"})
    fenced = node_of(api, node)

    opsd.leads = lambda: True
    plug.turn("on")
    node.boot()
    node_is(api, node, "True")
    given_back = in_phase(opsd, node, "")

    assert phase(fenced) == "fenced"
    assert OURS not in set(taints(fenced))
    assert OURS not in set(taints(given_back))
    assert api.find(path_of(db))


def test_a_pod_that_was_replaced_before_its_deletion_stays_and_alarms_nobody(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    # A bare pod that nobody allowed to be moved: so there is no taint.
    api.create(pod(namespace, "bare", pod_spec(nodeName=node.name)))
    running_pod(api, namespace, "bare")
    opsd.run()
    since = control_plane.audit.mark()

    def replaced_right_before() -> bool:
        if phase(node_of(api, node)) == "moving" and not is_gone(api, db):
            api.delete(path_of(db), grace_s=0)
            eventually(lambda: api.find(path_of(db)) and is_gone(api, db))
        return True

    opsd.leads = replaced_right_before
    lose(opsd, node)
    in_phase(opsd, node, "moved")
    successor = running_pod(api, namespace, "db-0")
    for _ in range(2):
        run = opsd.run()

    deletions = [one for one in opsd.writes(since) if one.startswith("delete")]
    assert deletions == [f"delete pods {namespace}/db-0: 409"]
    assert not is_gone(api, successor)
    assert OURS not in set(taints(node_of(api, node)))
    assert {one.check for one in run.findings} == {"remedy.under_way"}
    assert run.outcome is Outcome.COMPLETED


def test_only_allowed_pods_are_deleted_where_others_would_suffer_from_the_taint(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    api.create(pod(namespace, "bare", pod_spec(nodeName=node.name)))
    bare = running_pod(api, namespace, "bare")
    opsd.run()
    since = control_plane.audit.mark()

    lose(opsd, node)
    in_phase(opsd, node, "moved")
    successor = moved(api, db)

    deletions = [one for one in opsd.writes(since) if one.startswith("delete")]
    assert deletions == [f"delete pods {namespace}/db-0: 200"]
    assert successor["spec"]["nodeName"] != node.name
    assert not is_gone(api, bare)


def test_who_does_not_lead_does_nothing_outside_of_the_cluster(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    _, node = database(api, namespace, nodes)
    asked: list[str] = []

    def leads() -> bool:
        """It is another's turn from the moment in which the fence is announced."""
        asked.append(phase(node_of(api, node)))
        return asked[-1] != "fencing"

    opsd.leads = leads
    lose(opsd, node)
    opsd.until(lambda run: refusal(run, node.name) == {"not_leader"})
    for _ in range(3):
        opsd.run()

    assert "fencing" in asked
    assert plug.calls == []


def test_more_lost_workers_than_allowed_stop_everything(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(3)
    _, node = database(api, namespace, nodes)
    other = next(one for one in nodes if one is not node)
    change(opsd, max_lost_percent=100)
    since = control_plane.audit.mark()

    node.lose_power()
    other.lose_power()
    node_is(api, other, "Unknown")
    run = opsd.until(lambda run: refusal(run, node.name) == {"too_many_lost"})
    for _ in range(3):
        opsd.run()

    told = finding(run, "remedy.refused", node.name)
    assert told is not None
    assert told.cause == f"node/{node.name}"
    assert opsd.writes(since) == []
    assert plug.calls == []


def test_a_node_of_the_control_plane_is_never_touched(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    _, node = database(api, namespace, nodes)
    label = {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}
    api.patch(f"/api/v1/nodes/{node.name}", label)
    since = control_plane.audit.mark()

    lose(opsd, node)
    opsd.until(lambda run: refusal(run, node.name) == {"control_plane_node"})

    assert opsd.writes(since) == []
    assert plug.calls == []


def test_nothing_is_done_where_nobody_allowed_it(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    change(opsd, allow=())
    since = control_plane.audit.mark()

    lose(opsd, node)
    opsd.until(lambda run: refusal(run, node.name) == {"nobody_allowed"})
    writes, calls = opsd.writes(since), plug.calls
    mark = {"metadata": {"labels": {"opsd.dev/remedy": "allowed"}}}
    api.patch(f"/apis/apps/v1/namespaces/{namespace}/statefulsets/db", mark)
    in_phase(opsd, node, "moving", "moved")

    assert (writes, calls) == ([], [])
    moved(api, db)


def test_a_dry_run_prints_every_call_and_makes_none(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    _, node = database(api, namespace, nodes)
    opsd.dry_run = True
    since = control_plane.audit.mark()

    lose(opsd, node)
    run = opsd.until(lambda run: finding(run, "dry_run.remedy", node.name))

    told = finding(run, "dry_run.remedy", node.name)
    assert told is not None
    calls = [str(call) for call in told.facts.values()]
    assert [call.partition(" ")[0].rpartition("/")[2] for call in calls] == [
        "PATCH",
        "plug",
        "plug",
        "plug",
        "PATCH",
    ]
    assert "action=off" in calls[2]
    assert OUT_OF_SERVICE in calls[-1]
    assert opsd.writes(since) == []
    assert set(plug.calls) == {"status"}  # which of its fences would work


def test_a_node_that_is_lost_while_it_is_emptied_is_left_to_who_empties_it(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    api.patch(f"/api/v1/nodes/{node.name}", {"spec": {"unschedulable": True}})
    api.delete(path_of(db))  # as a drain does
    node.stop_s = 60.0

    lose(opsd, node)
    run = opsd.until(lambda run: refusal(run, node.name) == {"maintenance"})
    for _ in range(2):
        opsd.run()

    told = finding(run, "remedy.refused", node.name)
    assert told is not None
    assert f"{node.name} is being emptied on purpose" in str(told.facts["maintenance"])
    assert plug.calls == []
    assert phase(node_of(api, node)) == ""
    assert OURS not in set(taints(node_of(api, node)))


def test_the_same_node_is_not_acted_on_twice_in_six_hours(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    lose(opsd, node)
    in_phase(opsd, node, "moved")
    plug.turn("on")
    node.boot()
    in_phase(opsd, node, "")
    other = next(one for one in nodes if one is not node)
    api.patch(f"/api/v1/nodes/{other.name}", {"spec": {"unschedulable": True}})
    api.delete(path_of(moved(api, db)))
    eventually(lambda: running_pod(api, namespace, "db-0")["spec"]["nodeName"] == node.name)
    api.patch(f"/api/v1/nodes/{other.name}", {"spec": {"unschedulable": False}})
    calls = plug.calls

    lose(opsd, node)
    opsd.until(lambda run: refusal(run, node.name) == {"done_lately"})

    assert plug.calls == calls
    assert PLAN not in node_of(api, node)["metadata"]["annotations"]


def test_killed_before_and_after_every_write_it_goes_on_where_it_was(
    control_plane: ControlPlane, workers: Workers, namespace: str, opsd: Remedier, plug: Plug
) -> None:
    api, nodes = control_plane.api, workers(2)
    db, node = database(api, namespace, nodes)
    change(opsd, fences=(plug.table(turn_on=True),))
    mortal = Mortal(opsd, node)

    lose(opsd, node)
    mortal.run_until("lifted")
    moved(api, db)
    node.boot()
    node_is(api, node, "True")
    mortal.run_until("")

    assert mortal.died_in == [
        ("", Died.BEFORE),
        ("fencing", Died.AFTER),
        ("fencing", Died.BEFORE),  # the plug was turned off, and nobody wrote that down
        ("fenced", Died.AFTER),
        ("fenced", Died.BEFORE),
        ("moving", Died.AFTER),
        ("lifting", Died.BEFORE),  # it was turned on again, likewise
        ("lifting", Died.AFTER),
        ("lifted", Died.AFTER),
        ("lifted", Died.BEFORE),
        ("", Died.AFTER),
    ]
    assert plug.calls.count("off") == 1
    assert plug.is_on
    assert OURS not in set(taints(node_of(api, node)))


class Killed(BaseException):
    """opsd is gone in this instant."""


class Died(enum.Enum):
    """When: before or after the API server carried out a write."""

    BEFORE = 0
    AFTER = 1


#: The write of a run at which it dies, and when; the next run that writes so much dies so.
DEATHS = (
    (1, Died.BEFORE),
    (1, Died.AFTER),
    (2, Died.BEFORE),
    (2, Died.AFTER),
    (1, Died.BEFORE),
    (1, Died.AFTER),
    (3, Died.BEFORE),
    (1, Died.AFTER),
    (2, Died.AFTER),
    (1, Died.BEFORE),
    (1, Died.AFTER),
)
NO_DEATH = (0, Died.AFTER)


class Mortal:
    """opsd that dies again and again, and is started again."""

    def __init__(self, opsd: Remedier, node: FakeNode) -> None:
        self._opsd, self._node = opsd, node
        self.died_in: list[tuple[str, Died]] = []  #: phase then, and when

    def run_until(self, phase_: str) -> None:
        """Let it live and die until the record on the node says so."""
        eventually(lambda: self.run_and_die() == phase_ and self.died_in, within_s=120)

    def run_and_die(self) -> str:
        """Let it live once, and perhaps die."""
        write, when = [*DEATHS, NO_DEATH][len(self.died_in)]
        try:
            with pytest.MonkeyPatch.context() as patched:
                die_at(patched, write=write, when=when)
                self._opsd.run()
        except Killed:
            self.died_in.append((self._phase(), when))
        return self._phase()

    def _phase(self) -> str:
        return phase(node_of(self._opsd.control_plane.api, self._node))


def die_at(patched: pytest.MonkeyPatch, *, write: int, when: Died) -> None:
    """Have opsd die at this write, before or after the API server carried it out."""
    send, count = Transport.send, [0]

    def mortal_send(self: Transport, request: Request, deadline: Deadline) -> bytes:
        is_read = request.method == "GET"
        count[0] += not is_read
        if is_read or count[0] != write:
            return send(self, request, deadline)
        if when is Died.AFTER:
            send(self, request, deadline)
        raise Killed

    patched.setattr(Transport, "send", mortal_send)
