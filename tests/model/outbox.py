"""Does every message reach every service, and none twice without a good reason?

Runs put messages into the outbox; several processes try to deliver them, one at a time under
a lease of their own (`opsd.alerts.outbox.deliver`). A service may refuse, a process may die at
any point, and the state may refuse to remember that a service took a message.

Limits: when a message is tried again is left open (any time); the digest that stands for
messages that are given up is not modelled.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.checker import Steps


class At(enum.IntEnum):
    """How far a process is with the message that it is at."""

    IDLE = 0
    STARTED = 1
    LEASED = 2  # from here on it holds the lease
    CHOSEN = 3  # it has read a message, and who has it already
    HANDING = 4  # to its current target
    ACCEPTED = 5  # the target took it, which is not recorded
    ASKED = 6  # every target was asked


class Message(NamedTuple):
    """A row of the outbox, and what really happened to it."""

    accepted: frozenset[int] = frozenset()  # targets, as far as is recorded
    delivered: bool = False  # recorded
    sent: tuple[int, ...] = ()  # how often each target really took it
    excuses: int = 0  # deaths and refusals between an acceptance and its record


class Deliverer(NamedTuple):
    """An `opsd deliver`."""

    at: At = At.IDLE
    message: int = -1
    left: tuple[int, ...] = ()  # targets still to be asked
    refused: bool = False


class World(NamedTuple):
    """Everything at one moment."""

    messages: tuple[Message, ...]
    deliverers: tuple[Deliverer, ...]  # sorted: which is which does not matter
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """The model, its bounds, and its rules; each rule can be left out."""

    messages: int = 3
    targets: int = 2
    deliverers: int = 2
    faults: int = 2
    #: Only one process at a time delivers.
    has_lease: bool = True
    #: A target is marked only after it took the message.
    marks_after: bool = True
    #: What each target took is recorded by itself.
    marks_each: bool = True
    #: What a service refused is tried again.
    keeps_refused: bool = True

    def initial(self) -> World:
        return World(messages=(), deliverers=(Deliverer(),) * self.deliverers, faults=self.faults)

    def steps(self, world: World) -> Steps[World]:
        waiting = [n for n, message in enumerate(world.messages) if not message.delivered]
        for place, one in enumerate(world.deliverers):
            if one.at <= At.LEASED:
                yield from self._pass(world, place, one, waiting)
            else:
                yield self._deliver(world, place, one)

    def _pass(self, world: World, place: int, one: Deliverer, waiting: list[int]) -> Steps[World]:
        """What a process does between two messages."""
        match one.at:
            case At.IDLE if waiting:
                yield "start", _with(world, place, Deliverer(At.STARTED))
            case At.STARTED if self.has_lease and _is_leased(world):
                yield "lease denied", _with(world, place, Deliverer())
            case At.STARTED:
                yield "lease", _with(world, place, Deliverer(At.LEASED))
            case At.LEASED if waiting:
                yield f"choose {waiting[0]}", self._chosen(world, place, waiting[0])
            case At.LEASED:
                yield "end", _with(world, place, Deliverer())

    def _deliver(self, world: World, place: int, one: Deliverer) -> tuple[str, World]:
        """The next thing that it does with its message."""
        if one.at is At.ASKED:
            return self._concluded(world, place, one)
        if one.at is not At.CHOSEN:
            return self._finished(world, place, one)
        if one.left:
            return self._handed(world, place, one)
        return "all asked", _with(world, place, one._replace(at=At.ASKED))

    def _chosen(self, world: World, place: int, number: int) -> World:
        accepted = world.messages[number].accepted if self.marks_each else frozenset()
        left = tuple(target for target in range(self.targets) if target not in accepted)
        return _with(world, place, Deliverer(At.CHOSEN, number, left))

    def _handed(self, world: World, place: int, one: Deliverer) -> tuple[str, World]:
        """The first half of handing a message to a target."""
        target = one.left[0]
        if self.marks_after:
            after = _with(world, place, one._replace(at=At.ACCEPTED))
            return f"send {one.message} to {target}", _sent(after, one.message, target)
        after = _with(world, place, one._replace(at=At.HANDING))
        return f"mark {one.message} for {target}", _marked(after, one.message, target)

    def _finished(self, world: World, place: int, one: Deliverer) -> tuple[str, World]:
        """The second half."""
        target = one.left[0]
        after = _with(world, place, one._replace(at=At.CHOSEN, left=one.left[1:]))
        if self.marks_after:
            return f"mark {one.message} for {target}", _marked(after, one.message, target)
        return f"send {one.message} to {target}", _sent(after, one.message, target)

    def _concluded(self, world: World, place: int, one: Deliverer) -> tuple[str, World]:
        after = _with(world, place, Deliverer(At.LEASED))
        if one.refused and self.keeps_refused:
            return f"mark {one.message} failed", after
        message = world.messages[one.message]._replace(delivered=True)
        return f"mark {one.message} delivered", _put(after, one.message, message)

    def events(self, world: World) -> Steps[World]:
        if len(world.messages) < self.messages:
            fresh = Message(sent=(0,) * self.targets)
            yield "a run is recorded", world._replace(messages=(*world.messages, fresh))
        if world.faults:
            fewer = world._replace(faults=world.faults - 1)
            for place, one in enumerate(world.deliverers):
                if one.at is not At.IDLE:
                    yield from self._faults(fewer, place, one)

    def _faults(self, world: World, place: int, one: Deliverer) -> Steps[World]:
        excused = _excused(world, one.message) if one.at is At.ACCEPTED else world
        yield "killed", _with(excused, place, Deliverer())
        if one.at is At.ACCEPTED:
            yield f"the state refuses to mark {one.message}", _with(excused, place, Deliverer())
        if one.at is At.CHOSEN and one.left:
            target = one.left[0]
            refused = _with(world, place, one._replace(left=one.left[1:], refused=True))
            yield f"{target} refuses {one.message}", refused
            taken = _excused(_sent(refused, one.message, target), one.message)
            yield f"{target} takes {one.message} but does not say so", taken

    def broken(self, world: World) -> str:
        return next(filter(None, self._violations(world)), "")

    def _violations(self, world: World) -> Iterator[str]:
        for message in world.messages:
            if message.delivered and not all(message.sent):
                yield "a message is on record as delivered that a service never got"
            if sum(max(times - 1, 0) for times in message.sent) > message.excuses:
                yield "a message was sent once more without a reason"

    def owed(self, world: World) -> str:
        is_done = all(message.delivered for message in world.messages)
        return "" if is_done else "a message waits and nobody delivers it"


def _is_leased(world: World) -> bool:
    return any(one.at >= At.LEASED for one in world.deliverers)


def _with(world: World, place: int, one: Deliverer) -> World:
    others = (*world.deliverers[:place], *world.deliverers[place + 1 :])
    return world._replace(deliverers=tuple(sorted((*others, one))))


def _put(world: World, number: int, message: Message) -> World:
    messages = (*world.messages[:number], message, *world.messages[number + 1 :])
    return world._replace(messages=messages)


def _sent(world: World, number: int, target: int) -> World:
    message = world.messages[number]
    sent = tuple(times + (place == target) for place, times in enumerate(message.sent))
    return _put(world, number, message._replace(sent=sent))


def _marked(world: World, number: int, target: int) -> World:
    message = world.messages[number]
    return _put(world, number, message._replace(accepted=message.accepted | {target}))


def _excused(world: World, number: int) -> World:
    message = world.messages[number]
    return _put(world, number, message._replace(excuses=message.excuses + 1))
