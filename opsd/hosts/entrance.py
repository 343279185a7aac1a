"""Log in to machines only to see that it works, as whom, and what opsd may read there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from opsd.errors import OpsdError
from opsd.hosts import rights
from opsd.hosts.fleet import Fleet, Visit
from opsd.hosts.machine import Machine
from opsd.hosts.rights import Right
from opsd.hosts.script import Probe, Script

WRONG_CLOCK_S = 5.0  # a clock that is off by more is told: certificates and logs depend on it

_WHO = Probe(name="who", command="id -un; id -u")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrance:
    """How one login went."""

    machine: Machine
    problem: OpsdError | None = None
    user: str = ""
    is_root: bool = False
    allowed: tuple[Right, ...] = ()
    missing: tuple[Right, ...] = ()
    login: timedelta = timedelta(0)
    clock_offset_s: float | None = None  #: as `Visit.clock_offset_s`

    @property
    def asked(self) -> int:
        """Rights of which something can be said: the programs are there."""
        return len(self.allowed) + len(self.missing)

    @property
    def is_clock_wrong(self) -> bool:
        """Whether its clock is off by more than a little."""
        return abs(self.clock_offset_s or 0.0) > WRONG_CLOCK_S


def entrances(fleet: Fleet, machines: Iterable[Machine]) -> Iterator[Entrance]:
    """Log in to each of them; in no order.

    Raises:
        ConfigError, DeadlineExceeded: as `Fleet.visit`.
    """
    every = tuple(dict.fromkeys(right for one in machines for right in rights.needed(one)))
    script = Script.of([_WHO, rights.probe(every)])
    for visit in fleet.visit(machines, script):
        yield _entrance(visit)


def _entrance(visit: Visit) -> Entrance:
    machine = visit.machine
    if visit.problem is not None:
        return Entrance(machine=machine, problem=visit.problem)
    user, uid = (*visit.sections[_WHO.name].stdout.split(), "", "")[:2]
    allowed, missing = rights.read(visit.sections[rights.NAME], rights.needed(machine))
    return Entrance(
        machine=machine,
        user=user,
        is_root=uid == "0",
        allowed=tuple(allowed),
        missing=tuple(missing),
        login=timedelta(seconds=visit.login_s or 0.0),
        clock_offset_s=visit.clock_offset_s,
    )
