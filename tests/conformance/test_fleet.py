"""What every fleet does: the one over SSH, and the one that tests of jobs write down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from opsd.errors import OpsdError, TransientError
from opsd.hosts.fleet import Fleet, Visit
from opsd.hosts.machine import Machine
from opsd.hosts.script import Probe, Script, Section
from opsd.testing import MemoryFleet
from tests.rig.fleets import fleet_with, loopback_access
from tests.rig.server import free_port
from tests.rig.sshd import SshServer

pytestmark = pytest.mark.real

WELL = Probe(name="well", command="echo well; echo but >&2")
BAD = Probe(name="bad", command="echo so; echo no >&2; exit 3")
SILENT = Probe(name="silent", command="true")
KILLER = Probe(name="killer", command="read _ _ _ shell _ </proc/$PPID/stat; kill -9 $shell")
ANSWERS: Mapping[str, Section | str] = {
    "well": Section(name="well", stdout="well\n", stderr="but\n", status=0),
    "bad": Section(name="bad", stdout="so\n", stderr="no\n", status=3),
    "silent": "",
}


def over_ssh(sshd: SshServer) -> Fleet:
    access = loopback_access(sshd, "here", "there", "gone", connect_timeout_s=2.0)
    *alive, gone = access.machines
    return fleet_with(replace(access, machines=(*alive, replace(gone, port=free_port()))))


def written_down(_: SshServer) -> Fleet:
    gone = TransientError("log in to gone (opsd@127.0.0.1): connection refused")
    machines = [Machine(name=name, address="127.0.0.1") for name in ("here", "there", "gone")]
    return MemoryFleet(machines, {"here": ANSWERS, "there": ANSWERS, "gone": gone})


@pytest.fixture(params=[over_ssh, written_down])
def fleet(request: pytest.FixtureRequest, sshd: SshServer) -> Fleet:
    make: Callable[[SshServer], Fleet] = request.param
    return make(sshd)


def visits(fleet: Fleet, *probes: Probe) -> dict[str, Visit]:
    found = list(fleet.visit(fleet.roster().machines, Script.of(probes)))
    assert len({visit.machine.name for visit in found}) == len(found)
    return {visit.machine.name: visit for visit in found}


def test_everybody_is_on_the_roster_and_is_visited_once(fleet: Fleet) -> None:
    roster = fleet.roster()

    found = visits(fleet, SILENT)

    assert [machine.name for machine in roster.machines] == ["here", "there", "gone"]
    assert roster.unknown == ""
    assert set(found) == {"here", "there", "gone"}


def test_answers_come_with_their_complaints_and_exit_statuses(fleet: Fleet) -> None:
    visit = visits(fleet, WELL, BAD, SILENT)["there"]

    assert visit.problem is None
    assert list(visit.sections.values()) == [
        ANSWERS["well"],
        ANSWERS["bad"],
        Section(name="silent", stdout="", stderr="", status=0),
    ]


def test_only_what_was_asked_is_answered(fleet: Fleet) -> None:
    visit = visits(fleet, BAD)["here"]

    assert list(visit.sections) == ["bad"]


def test_a_visit_knows_how_long_the_login_took_and_what_the_clock_shows(fleet: Fleet) -> None:
    visit = visits(fleet, WELL)["here"]

    assert visit.login_s is not None
    assert visit.clock_offset_s is not None


def test_a_machine_that_cannot_be_asked_is_a_visit_with_its_problem(fleet: Fleet) -> None:
    visit = visits(fleet, WELL)["gone"]

    assert isinstance(visit.problem, OpsdError)
    assert "gone" in str(visit.problem)
    assert visit.sections == {}
    assert visit.login_s is None
    assert visit.clock_offset_s is None


def test_what_was_cut_off_is_missing_and_told(fleet: Fleet) -> None:
    visit = visits(fleet, WELL, KILLER, SILENT)["here"]

    assert isinstance(visit.problem, OpsdError)
    assert visit.sections["well"] == ANSWERS["well"]
    assert "killer" not in visit.sections


def test_nobody_asked_is_nobody_visited(fleet: Fleet) -> None:
    assert list(fleet.visit((), Script.of([WELL]))) == []
