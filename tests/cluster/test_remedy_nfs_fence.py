"""A node that is only cut off from the cluster goes on writing: its file server keeps it out."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.node_remedy import Settings
from opsd.clock import Deadline, SystemClock
from opsd.cluster.nodeloss.vantage import Lately, Machines
from opsd.cluster.remedy.settings import FenceTable
from opsd.hosts.fleet import Fleet, Roster, Visit, Way
from opsd.hosts.machine import Machine, Role
from opsd.hosts.roster import Entry
from opsd.hosts.script import Script
from opsd.model import Outcome, Run, Severity
from tests.cluster.remedier import Remedier, finding, phase, refusal
from tests.cluster.watcher import QUICK, s
from tests.conftest import Workers
from tests.rig.controlplane import ControlPlane
from tests.rig.fileserver import Service, serving
from tests.rig.fleets import access_to, fleet_with
from tests.rig.kubeapi import Object, eventually
from tests.rig.kubestate import is_gone, node_is, running_pod, uid_of
from tests.rig.machines import Network, RealMachine
from tests.rig.realnodes import RealNode, real_node
from tests.rig.workloads import pod_spec, stateful_set

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture
def files(network: Network) -> Iterator[Service]:
    with serving(network.machine("nas")) as service:
        yield service


@pytest.fixture
def opsd(control_plane: ControlPlane, tmp_path: Path, namespace: str, files: Service) -> Remedier:
    """opsd that may move what is in the namespace, and has the file server for a fence."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    table = FenceTable(
        name="files", type="nfs", nodes=("w*",), server="nas", serves=(files.machine.address,)
    )
    settings = Settings(
        allow=(namespace,),
        fences=(table,),
        patience=s(7),
        healthy_for=s(2),
        cool_down=s(1),
        max_lost_percent=50,
    )
    # A look at machines takes longer than the quick clock's hold.
    thresholds = replace(QUICK, hold=s(15))
    return Remedier(
        control_plane=control_plane, scratch=scratch, settings=settings, thresholds=thresholds
    )


@dataclass
class Story:
    """A database on a real machine that opsd can log in to."""

    opsd: Remedier
    files: Service
    real: RealNode
    db: Object

    def seen(self) -> Object:
        return self.opsd.control_plane.api.get(f"/api/v1/nodes/{self.real.name}")

    def until(self, *phases: str) -> None:
        """Run opsd until the node's record is in one of these phases; empty: there is none."""
        self.opsd.until(lambda _run: phase(self.seen()) in phases, within_s=120)

    def found(self, check: str) -> Callable[[Run], object]:
        return lambda run: finding(run, check, self.real.name)


def logs_in_to(opsd: Remedier, machines: Iterable[RealMachine]) -> Callable[[Deadline], Fleet]:
    roles = {"nas": frozenset({Role.NFS_SERVER})}
    known = tuple(machines)
    entries = tuple(
        Entry(
            name=one.name, address=one.address, roles=roles.get(one.name, frozenset({Role.NODE}))
        )
        for one in known
    )
    access = replace(access_to(known), machines=entries)
    opsd.open_fleet = lambda deadline: fleet_with(access).until(deadline)
    there = Machines(open_fleet=opsd.open_fleet, clock=SystemClock(), ports=(22,))
    opsd.vantages = (Lately(there, clock=SystemClock(), for_s=3),)
    return opsd.open_fleet


@pytest.fixture
def begin(
    opsd: Remedier, files: Service, workers: Workers, network: Network, namespace: str
) -> Callable[..., Story]:
    """Start a database, whose data is on the file server or on another volume."""

    def begin(volume: Object | None = None) -> Story:
        api, nodes = opsd.control_plane.api, workers(3)
        own = volume or {"nfs": {"server": files.machine.address, "path": "/srv"}}
        spec = pod_spec(nodes[0].pool, grace_s=1, volumes=[{"name": "data", **own}])
        api.create(stateful_set(namespace, "db", spec))
        db = running_pod(api, namespace, "db-0")
        node = next(one for one in nodes if one.name == db["spec"]["nodeName"])
        real = real_node(network, node)
        story = Story(opsd, files, real, db)
        eventually(lambda: real.machine.boot_id in str(story.seen()))
        logs_in_to(opsd, [real.machine, files.machine])
        opsd.until(lambda run: run.outcome is Outcome.COMPLETED)
        return story

    return begin


def test_a_node_that_goes_on_writing_is_kept_from_the_files_until_it_was_rebooted(
    opsd: Remedier, files: Service, namespace: str, begin: Callable[..., Story]
) -> None:
    story = begin()
    api, node, machine = opsd.control_plane.api, story.real.node, story.real.machine
    client = files.client(machine)
    client.write("before")

    node.cut_off()
    story.until("moving", "moved")
    client.write("late")
    eventually(lambda: is_gone(api, story.db))
    successor = running_pod(api, namespace, "db-0")
    arrived = files.gets("late", within_s=2)
    moved = opsd.until(story.found("remedy.under_way"))
    node.come_back()
    stays = opsd.until(story.found("remedy.not_rebooted"), within_s=120)
    while_back = files.connects(machine)
    node.lose_power()
    machine.kill()
    machine.start()
    node.boot()
    story.until("")

    assert uid_of(successor) != uid_of(story.db)
    assert successor["spec"]["nodeName"] != node.name
    assert files.received.startswith("before")
    assert not arrived
    told = finding(moved, "remedy.under_way", node.name)
    assert told is not None
    assert told.facts["proof"] == "cut off by files, read back"
    kept = finding(stays, "remedy.not_rebooted", node.name)
    assert kept is not None
    assert kept.severity is Severity.CRITICAL
    assert while_back == "silence"
    assert files.connects(machine) == "open"
    assert "late" not in files.received  # what was queued died with the machine


def test_a_fence_that_the_file_server_lost_is_set_again_and_told(
    opsd: Remedier, files: Service, namespace: str, begin: Callable[..., Story]
) -> None:
    story = begin()
    story.real.node.cut_off()
    story.until("moved")
    files.machine.run("nft flush ruleset", check=True)
    was_open = files.connects(story.real.machine)

    run, again = opsd.run(), opsd.run()

    told = finding(run, "remedy.fence_lost", story.real.name)
    assert was_open == "open"
    assert told is not None
    assert told.severity is Severity.CRITICAL
    assert f"{namespace}/db-0" in told.remedy
    assert files.connects(story.real.machine) == "silence"
    assert finding(again, "remedy.fence_lost", story.real.name) is None


def test_a_file_server_that_cannot_be_asked_any_more_is_told(
    opsd: Remedier, files: Service, begin: Callable[..., Story]
) -> None:
    story = begin()
    story.real.node.cut_off()
    story.until("moved")
    files.machine.drop_port(22)

    run = opsd.run()

    told = finding(run, "remedy.fence_failed", story.real.name)
    assert told is not None
    assert told.summary == f"nobody knows whether {story.real.name} is still cut off by files"
    assert phase(story.seen()) == "moved"


def test_a_database_that_also_writes_elsewhere_is_not_moved(
    opsd: Remedier, files: Service, namespace: str, begin: Callable[..., Story]
) -> None:
    elsewhere = {"nfs": {"server": "192.0.2.7", "path": "/other"}}
    story = begin(elsewhere)

    story.real.node.cut_off()
    node_is(opsd.control_plane.api, story.real.node, "Unknown")
    run = opsd.until(lambda run: refusal(run, story.real.name) == {"not_cut"})

    told = finding(run, "remedy.refused", story.real.name)
    assert told is not None
    assert f"{namespace}/db-0 to nfs 192.0.2.7:/other" in str(told.facts["not_cut"])
    assert files.machine.run("nft list ruleset").out == ""


def test_a_dry_run_says_which_fence_would_not_work_and_does_nothing(
    opsd: Remedier, files: Service, begin: Callable[..., Story]
) -> None:
    story = begin()
    opsd.settings = opsd.settings.model_copy(
        update={
            "fences": (opsd.settings.fences[0].model_copy(update={"nodes": (story.real.name,)}),)
        }
    )
    opsd.dry_run = True
    good = opsd.run()
    files.machine.run("systemctl disable opsd-fence.service", check=True)

    bad = opsd.run()

    assert good.findings == ()
    [told] = bad.findings
    assert (told.check, told.subject) == ("remedy.fence_unusable", "fence/files")
    assert told.summary == f"files could not cut off {story.real.name}"
    assert "a reboot of nas would let it in again: systemctl enable" in told.remedy
    assert files.machine.run("nft list ruleset").out == ""


class Killed(BaseException):
    """opsd is gone in this instant."""


@dataclass
class MortalFleet:
    """Kills opsd before its n-th visit to a machine, or (with a half more) after it."""

    inner: Fleet
    visits: Iterator[int]
    dies_at: float

    def roster(self) -> Roster:
        return self.inner.roster()

    def visit(self, machines: Iterable[Machine], script: Script) -> Iterator[Visit]:
        number = next(self.visits)
        if self.dies_at == number:
            raise Killed
        visits = list(self.inner.visit(machines, script))
        if self.dies_at == number + 0.5:
            raise Killed
        yield from visits

    def way(self, machine: Machine) -> contextlib.AbstractContextManager[Way]:
        return self.inner.way(machine)


def dies(opsd: Remedier, fleet: Callable[[Deadline], Fleet], at: float) -> None:
    """Run opsd until it dies, or once if it makes fewer visits."""
    visits = itertools.count(1)

    def opened(deadline: Deadline) -> Fleet:
        return MortalFleet(fleet(deadline), visits, at)

    opsd.open_fleet = opened
    with contextlib.suppress(Killed):
        opsd.run()
    opsd.open_fleet = fleet


def test_killed_before_and_after_every_visit_it_goes_on_where_it_was(
    opsd: Remedier, files: Service, begin: Callable[..., Story]
) -> None:
    story = begin()
    node, fleet = story.real.node, opsd.open_fleet
    opsd.vantages = ()  # so that all visits are the fence's
    node.cut_off()
    opsd.dry_run = True
    opsd.until(story.found("dry_run.remedy"))
    opsd.dry_run = False
    on_the_way, on_the_way_back = [], []

    for at in (1, 1.5, 2, 2.5, 1, 1.5, 2, 2.5):
        dies(opsd, fleet, at)
        on_the_way.append(phase(story.seen()))
    story.until("moved")
    was_cut = files.connects(story.real.machine)
    node.boot()
    node_is(opsd.control_plane.api, node, "True")
    for at in (1, 1.5, 2, 2.5, 1, 1.5):
        dies(opsd, fleet, at)
        on_the_way_back.append(phase(story.seen()))
    story.until("")

    # asked, cut (the fourth time it was, and nobody wrote that down), proven again
    assert on_the_way == ["fencing"] * 6 + ["fenced"] * 2
    assert was_cut == "silence"
    assert on_the_way_back[-4:] == ["lifting"] * 4
    assert files.connects(story.real.machine) == "open"
    assert files.machine.run("ls /var/lib/opsd-fence").out == ""
