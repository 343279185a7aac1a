"""Between machines a lease runs out: does its holder know when it has lost it?

Each replica judges the time by its own clock. A lease is a row with an expiry in the API;
whoever finds it expired takes it over, by a conditional write. A replica that stood still
between "I hold the lease" and the act does not notice that it was taken over. So the act
itself must be refused: it is a conditional write on the key of its slot.

Limits: one act for one slot. Time is counted in steps; a renewal is one conditional write.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.checker import Steps

NOBODY = -1


class At(enum.IntEnum):
    """How far a replica is."""

    IDLE = 0
    HOLDS = 1  # as far as it knows
    CHECKED = 2  # its own clock says that it still holds the lease
    ACTED = 3
    DEAD = 4


class Act(enum.Enum):
    """What the act asks of the store."""

    NOTHING = "nothing"  # the replica has checked its lease before
    LEASE = "lease"  # that the lease's row still names this replica, in the same transaction
    SLOT = "slot"  # that the slot has no result, in the same write


class Replica(NamedTuple):
    """An opsd on one machine."""

    at: At
    left: int  # time until its lease runs out, by its own clock


class World(NamedTuple):
    """Everything at one moment."""

    holder: int  # as the row says
    left: int  # true time until the expiry in the row; negative: since
    results: int
    is_done: bool  # on record: nobody begins it again
    replicas: tuple[Replica, ...]
    ahead: tuple[int, ...]  # by how much each replica's clock is ahead of the true time
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fencing:
    """The model, its bounds, and its rules."""

    replicas: int = 3
    apart: int = 1  # how far a clock may be from the true time, and step
    lasts: int = 3
    faults: int = 2
    act: Act = Act.SLOT
    #: The act and its record are one, as when both are rows of one store.
    records_at_once: bool = False

    def initial(self) -> World:
        return World(
            holder=NOBODY,
            left=0,
            results=0,
            is_done=False,
            replicas=(Replica(At.IDLE, 0),) * self.replicas,
            ahead=(0,) * self.replicas,
            faults=self.faults,
        )

    def steps(self, world: World) -> Steps[World]:
        if self._is_time_worth_it(world):
            yield "time passes", self._later(world)
        for number, replica in enumerate(world.replicas):
            for label, after in self._replica(world, number, replica):
                yield f"replica {number}: {label}", after

    def _replica(self, world: World, number: int, replica: Replica) -> Steps[World]:
        match replica.at:
            case At.IDLE if not world.is_done and self._is_free_for(world, number):
                yield "take the lease", self._leased(world._replace(holder=number), number)
            case At.HOLDS if not world.is_done:
                yield from self._held(world, number, replica)
            case At.HOLDS:
                yield "give up", _with(world, number, At.IDLE)
            case At.CHECKED:
                yield "act", self._acted(world, number)
            case At.ACTED:
                holder = NOBODY if world.holder == number else world.holder
                done = world._replace(is_done=True, holder=holder)
                yield "record", _with(done, number, At.IDLE)
            case At.DEAD:
                yield "restart", _with(world, number, At.IDLE)

    def _held(self, world: World, number: int, replica: Replica) -> Steps[World]:
        """What a replica does that has the lease, as far as it knows."""
        if world.holder == number:
            yield "renew", self._leased(world, number)
        if replica.left > 0:
            yield "check the lease", _with(world, number, At.CHECKED, left=replica.left)
        else:
            yield "give up", _with(world, number, At.IDLE)

    def _leased(self, world: World, number: int) -> World:
        """The row with a new expiry, by the replica's own clock."""
        row = world._replace(left=self.lasts + world.ahead[number])
        return _with(row, number, At.HOLDS, left=self.lasts)

    def _is_free_for(self, world: World, number: int) -> bool:
        return world.holder == NOBODY or world.left <= world.ahead[number]

    def _acted(self, world: World, number: int) -> World:
        refused = {
            Act.NOTHING: False,
            Act.LEASE: world.holder != number,
            Act.SLOT: world.results > 0,
        }[self.act]
        if refused:
            at = At.ACTED if self.act is Act.SLOT else At.IDLE
            return _with(world, number, at)
        acted = world._replace(results=world.results + 1, is_done=self.records_at_once)
        return _with(acted, number, At.ACTED)

    def _is_time_worth_it(self, world: World) -> bool:
        """Whether any clock can still see a change."""
        longest = world.left > -self.apart or any(one.left > 0 for one in world.replicas)
        return world.holder != NOBODY and longest

    def _later(self, world: World) -> World:
        replicas = tuple(Replica(one.at, max(one.left - 1, 0)) for one in world.replicas)
        return world._replace(left=max(world.left - 1, -self.apart), replicas=replicas)

    def events(self, world: World) -> Steps[World]:
        if world.faults:
            fewer = world._replace(faults=world.faults - 1)
            for number, replica in enumerate(world.replicas):
                if replica.at is not At.DEAD:
                    yield f"replica {number}: killed", _with(fewer, number, At.DEAD)
                yield from self._clock_steps(fewer, number)

    def _clock_steps(self, world: World, number: int) -> Steps[World]:
        for ahead in range(-self.apart, self.apart + 1):
            steps = (*world.ahead[:number], ahead, *world.ahead[number + 1 :])
            yield f"replica {number}: its clock is {ahead} ahead", world._replace(ahead=steps)

    def broken(self, world: World) -> str:
        return "a slot has two results" if world.results > 1 else ""

    def owed(self, world: World) -> str:
        return "" if world.results and world.is_done else "a slot has no result"


def _with(world: World, number: int, at: At, *, left: int = 0) -> World:
    replicas = (*world.replicas[:number], Replica(at, left), *world.replicas[number + 1 :])
    return world._replace(replicas=replicas)
