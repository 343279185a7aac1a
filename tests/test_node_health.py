"""Passes of node-health: who is asked for what, what is kept, and which machines are forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs import node_health
from jobs.node_health import MEMORY, Settings
from opsd.errors import DeadlineExceeded, OpsdError, TransientError
from opsd.hosts.fleet import Visit
from opsd.hosts.health import boots, disks, memory, record
from opsd.hosts.health.checkup import NAMES
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Script, Section
from opsd.model import Finding, Outcome, Run
from opsd.runner import execute
from opsd.testing import START, FakeClock, MemoryFleet, context

RPI3 = Machine(name="rpi3", address="10.0.0.3", roles=frozenset({Role.NODE}))
NAS = Machine(name="nas", address="10.0.0.5", roles=frozenset({Role.NFS_SERVER}))
WELL = {
    boots.PROBE: "boot-1\n1000.0 1.0\n0.1 0.1 0.1 1/1 1\n",
    memory.PROBE: "MemTotal: 4000000 kB\nMemAvailable: 900000 kB\n",
}
LOW = {**WELL, memory.PROBE: "MemTotal: 4000000 kB\nMemAvailable: 10 kB\n"}
ONLY_MEMORY = tuple(name for name in NAMES if name != "memory")
WITH_DISKS = tuple(name for name in ONLY_MEMORY if name != "disk")

Answers = Mapping[str, Mapping[str, Section | str] | OpsdError]


class Opsd:
    """Runs of the job, a quarter of an hour apart."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.clock = scratch, FakeClock(START)
        self.fleet = MemoryFleet((), {})

    def run(
        self,
        answers: Answers,
        *,
        machines: Iterable[Machine] = (RPI3, NAS),
        unknown: str = "",
        leave_out: tuple[str, ...] = ONLY_MEMORY,
        fleet: MemoryFleet | None = None,
        dry_run: bool = False,
    ) -> Run:
        self.fleet = fleet or MemoryFleet(tuple(machines), answers, unknown=unknown)
        ctx = context(
            scratch=self.scratch,
            fleet=self.fleet,
            clock=self.clock,
            job="node-health",
            dry_run=dry_run,
        )
        run = execute(node_health.JOB, Settings(leave_out=leave_out), ctx)
        self.clock.advance(timedelta(minutes=15))
        return run

    def known(self) -> set[str]:
        return set(record.read(self.scratch / MEMORY))


@pytest.fixture
def opsd(tmp_path: Path) -> Opsd:
    return Opsd(tmp_path)


def keys(run: Run) -> set[tuple[str, str]]:
    return {one.key for one in run.findings}


def test_every_machine_has_a_line_and_one_bad_one_spoils_no_other(opsd: Opsd) -> None:
    run = opsd.run({"rpi3": LOW, "nas": TransientError("log in to nas: no answer")})

    assert run.outcome is Outcome.COMPLETED
    assert keys(run) == {
        ("health.state", "machine/rpi3"),
        ("health.memory_low", "machine/rpi3/memory"),
        ("machine.unreachable", "machine/nas"),
    }
    assert run.unseen == ("machine/nas",)


def test_disks_are_asked_once_an_hour_each_machine_by_its_own_time(opsd: Opsd) -> None:
    well = {**WELL, disks.PROBE: ""}
    asked = []

    for number in range(6):
        nas = TransientError("away") if number == 0 else well
        opsd.run({"rpi3": well, "nas": nas}, leave_out=WITH_DISKS)
        asked.append([_has_disks(script) for script in opsd.fleet.scripts])

    # The file server was away at first, and is asked at its first chance.
    assert asked == [[True], [True, False], [False], [False], [True, False], [True, False]]


def _has_disks(script: Script) -> bool:
    return disks.PROBE in {probe.name for probe in script.probes}


def test_a_machine_that_left_the_fleet_is_forgotten(opsd: Opsd) -> None:
    opsd.run({"rpi3": WELL, "nas": WELL})

    run = opsd.run({"nas": WELL}, machines=[NAS])

    assert opsd.known() == {"nas"}
    assert run.unseen == ()


def test_while_the_cluster_is_silent_its_nodes_are_neither_forgotten_nor_healthy(
    opsd: Opsd,
) -> None:
    opsd.run({"rpi3": LOW, "nas": WELL})

    run = opsd.run({"nas": WELL}, machines=[NAS], unknown="list nodes: connection refused")

    assert opsd.known() == {"rpi3", "nas"}
    assert run.outcome is Outcome.COMPLETED
    assert run.unseen == ("machine/rpi3",)
    assert ("machine.roster_unknown", "machine") in keys(run)


def test_what_was_seen_before_the_time_was_over_is_kept(opsd: Opsd) -> None:
    class Slow(MemoryFleet):
        def visit(self, machines: Iterable[Machine], script: Script) -> Iterator[Visit]:
            yield from super().visit(list(machines)[:1], script)
            raise DeadlineExceeded("the run's deadline passed")

    slow = Slow((RPI3, NAS), {"rpi3": LOW, "nas": WELL})

    run = opsd.run({}, fleet=slow)

    assert run.outcome is Outcome.TIMED_OUT
    assert ("health.memory_low", "machine/rpi3/memory") in keys(run)
    assert opsd.known() == {"rpi3"}


def test_a_machine_that_was_not_reached_keeps_what_is_known_of_it(opsd: Opsd) -> None:
    opsd.run({"rpi3": LOW, "nas": WELL})
    before = record.read(opsd.scratch / MEMORY)["nas"]

    opsd.run({"rpi3": LOW, "nas": TransientError("away")})

    assert record.read(opsd.scratch / MEMORY)["nas"] == before


def test_when_all_machines_agree_it_is_opsd_whose_clock_is_wrong(opsd: Opsd) -> None:
    machines = [Machine(name=name, address="10.0.0.1") for name in ("a", "b", "c")]
    offsets_s = dict.fromkeys("abc", 600.0)
    fleet = MemoryFleet(machines, dict.fromkeys("abc", WELL), offsets_s=offsets_s)

    run = opsd.run({}, fleet=fleet)

    assert ("health.own_clock_off", "host/clock") in keys(run)


def test_without_a_way_to_log_in_the_run_fails_and_says_so(tmp_path: Path) -> None:
    run = execute(node_health.JOB, Settings(), context(scratch=tmp_path, job="node-health"))

    assert run.outcome is Outcome.FAILED
    assert "no machines" in run.error


def test_a_dry_run_leaves_everything_to_the_next_run(opsd: Opsd) -> None:
    opsd.run({"rpi3": WELL, "nas": WELL}, dry_run=True)

    assert opsd.known() == set()


def test_a_part_that_does_not_exist_cannot_be_left_out() -> None:
    with pytest.raises(ValidationError, match="expected some of power"):
        Settings(leave_out=("smart",))


def test_a_first_run_that_finds_a_memory_of_nonsense_begins_anew(opsd: Opsd) -> None:
    (opsd.scratch / MEMORY).write_text("{")

    run = opsd.run({"rpi3": WELL, "nas": WELL})

    assert run.outcome is Outcome.COMPLETED
    assert all(isinstance(one, Finding) for one in run.findings)
    assert opsd.known() == {"rpi3", "nas"}
