"""One machine at one moment, as far as slots go: daemons, runs, ledger and results.

Limits: a daemon has one child at most, since there is one job.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

NO_RUN = -1  # not on record


class At(enum.IntEnum):
    """How far a process is."""

    STARTED = 0
    LEASED = 1  # from here on it holds the lease
    BEGUN = 2
    COMMITTED = 3  # its data is stored
    WORKED = 4
    FAILING = 5
    RECORDED = 6  # its watchdog has still something to say
    ENDED = 7  # from here on it is over, until its daemon has noticed
    DENIED = 8


class End(enum.StrEnum):
    """How a run is on record."""

    OPEN = "open"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    MISSED = "missed"
    SKIPPED = "skipped"


RETRIED = frozenset({End.FAILED, End.INTERRUPTED})
WRONG = RETRIED | {End.TIMED_OUT}
TOLD = WRONG | {End.MISSED}


class Run(NamedTuple):
    """A row of the ledger."""

    slot: float
    end: End
    messages: int  # about it, in the outbox


class Process(NamedTuple):
    """An `opsd run-job`."""

    at: At
    slot: float
    run: int  # number of its row
    hangs: bool  # its watchdog is about to say so and to end it


class Daemon(NamedTuple):
    """An `opsd run`."""

    up: bool
    wants: float  # the slot that it is about to deal with; 0: none
    answered: float  # the latest slot dealt with in this life; only in memory
    child: tuple[Process, ...]  # none or one


STARTING = Daemon(up=True, wants=0, answered=0, child=())
DOWN = Daemon(up=False, wants=0, answered=0, child=())


class World(NamedTuple):
    """Everything at one moment."""

    now: int
    runs: tuple[Run, ...]
    data: frozenset[int]  # numbers of the runs whose data is stored
    published: tuple[tuple[float, int], ...]  # results: slot, and run that made it
    daemons: tuple[Daemon, ...]  # sorted: which is which does not matter
    others: tuple[Process, ...]  # sorted: started by people, or by a daemon that is dead
    faults: int  # that may still happen
    asks: int  # runs that somebody may still ask for


def name_of(process: Process) -> str:
    return f"run of {process.slot}"


def processes(world: World) -> Iterator[tuple[int, Process]]:
    """Every process with its place: first the daemons' children, then the others."""
    for place, daemon in enumerate(world.daemons):
        for child in daemon.child:
            yield place, child
    yield from enumerate(world.others, len(world.daemons))


def is_leased(world: World) -> bool:
    """Whether somebody holds the job's lease."""
    return any(At.LEASED <= process.at < At.ENDED for _, process in processes(world))


def with_daemon(world: World, place: int, daemon: Daemon) -> World:
    others = (*world.daemons[:place], *world.daemons[place + 1 :])
    return world._replace(daemons=tuple(sorted((*others, daemon))))


def joined(world: World, process: Process) -> World:
    return world._replace(others=tuple(sorted((*world.others, process))))


def changed(world: World, place: int, process: Process | None) -> World:
    """The process at this place is now this one, or nobody knows it any more."""
    now = () if process is None else (process,)
    if place < len(world.daemons):
        return with_daemon(world, place, world.daemons[place]._replace(child=now))
    number = place - len(world.daemons)
    others = (*world.others[:number], *now, *world.others[number + 1 :])
    return world._replace(others=tuple(sorted(others)))


def moved(world: World, place: int, process: Process, at: At, *, run: int | None = None) -> World:
    """The process one step further; when it is over, only a daemon remembers it."""
    if at >= At.ENDED and place >= len(world.daemons):
        return changed(world, place, None)
    number = process.run if run is None else run
    return changed(world, place, process._replace(at=at, run=number))
