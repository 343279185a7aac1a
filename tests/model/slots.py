"""Does every due time end on record exactly once, whoever dies and however many try?

Daemons and a person share one state and one repository, for one job. The names of the steps
are those of the code: `Daemon._consider`, `Ledger.account`, `run_now` with its lease, its
`begin` and its `record`, and in between what a backup does: sweep, commit, publish.

Limits: a slot is a number, the clock shows the newest one that is due, and a run that
somebody asked for answers no slot (its own lies between two numbers). Messages are only
counted here; `outbox` delivers them, `retention` removes old results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.model.checker import Steps
from tests.model.machine import (
    DOWN,
    NO_RUN,
    RETRIED,
    STARTING,
    TOLD,
    WRONG,
    At,
    Daemon,
    End,
    Process,
    Run,
    World,
    changed,
    is_leased,
    joined,
    moved,
    name_of,
    processes,
    with_daemon,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """The model, its bounds, and its rules; each rule can be left out."""

    daemons: int = 2
    slots: int = 2
    faults: int = 2
    asks: int = 1
    attempts: int = 2
    #: Only one process at a time runs the job.
    has_lease: bool = True
    #: A result is created, never overwritten.
    first_writer_wins: bool = True
    #: A run is on record before it does anything.
    begins_first: bool = True
    #: The end of a run and its messages are one transaction.
    one_transaction: bool = True
    #: A run that is on record is not recorded again.
    known_by_id: bool = True
    #: What is due follows from the ledger alone.
    due_from_ledger: bool = True
    #: The slot of a run that somebody asked for is not a due time.
    asked_is_apart: bool = True
    #: A slot is begun, and ended without a run, only if the ledger lets it: in one transaction.
    ends_once: bool = True
    #: Open runs are recorded as interrupted only by whoever holds the lease.
    settles_under_lease: bool = True
    #: A daemon that gives up on a child records the run of that child and no other.
    gives_up_one: bool = True

    def initial(self) -> World:
        return World(
            now=1,
            runs=(),
            data=frozenset(),
            published=(),
            daemons=(STARTING,) * self.daemons,
            others=(),
            faults=self.faults,
            asks=self.asks,
        )

    # What the program does.

    def steps(self, world: World) -> Steps[World]:
        for place, daemon in enumerate(world.daemons):
            if daemon.up:
                yield from self._daemon(world, place, daemon)
            else:
                yield "daemon: started", with_daemon(world, place, STARTING)
        for place, process in processes(world):
            if process.at < At.ENDED:
                yield from self._process(world, place, process)

    def _daemon(self, world: World, place: int, daemon: Daemon) -> Steps[World]:
        if not self._is_settled(world):
            yield "daemon: settle", self._settled(world)
        elif daemon.child and daemon.child[0].at >= At.ENDED:
            slot = daemon.child[0].slot
            yield f"daemon: account {slot}", self._accounted(world, place, daemon.child[0])
        if daemon.wants:
            yield self._act(world, place, daemon)
        elif wanted := self._due(world, daemon):
            after = with_daemon(world, place, daemon._replace(wants=wanted))
            yield f"daemon: consider {wanted}", after

    def _act(self, world: World, place: int, daemon: Daemon) -> tuple[str, World]:
        slot = daemon.wants
        done = daemon._replace(wants=0, answered=0 if self.due_from_ledger else slot)
        if slot < world.now:
            world = with_daemon(world, place, done)
            return f"daemon: record missed {slot}", self._without_run(world, slot, End.MISSED)
        if daemon.child:
            world = with_daemon(world, place, done)
            return f"daemon: record skipped {slot}", self._without_run(world, slot, End.SKIPPED)
        child = Process(At.STARTED, slot, NO_RUN, hangs=False)
        return f"daemon: start {slot}", with_daemon(world, place, done._replace(child=(child,)))

    def _due(self, world: World, daemon: Daemon) -> int:
        """The oldest slot that this daemon has something to do for, or 0."""
        if not self.due_from_ledger and world.now <= daemon.answered:
            return 0
        last = 0 if self.asked_is_apart else max((run.slot for run in world.runs), default=0)
        for slot in range(int(last) + 1, world.now + 1):
            is_under_way = any(child.slot == slot for child in daemon.child)
            if not is_under_way and self._is_open_to(world, slot):
                return slot
        return 0

    def _is_open_to(self, world: World, slot: float) -> bool:
        """Whether the ledger lets a run begin for `slot`, or the slot end without one."""
        ends = [run.end for run in world.runs if run.slot == slot]
        if not ends:
            return True
        return slot >= world.now and ends[-1] in RETRIED and len(ends) < self.attempts

    def _is_settled(self, world: World) -> bool:
        """Whether there is no open run of which a free lease says that nobody runs it."""
        free = not self.settles_under_lease or not is_leased(world)
        return not (free and any(run.end is End.OPEN for run in world.runs))

    def _settled(self, world: World) -> World:
        """Every open run recorded as interrupted, with its message."""
        return world._replace(
            runs=tuple(
                Run(run.slot, End.INTERRUPTED, run.messages + 1) if run.end is End.OPEN else run
                for run in world.runs
            )
        )

    def _accounted(self, world: World, place: int, child: Process) -> World:
        world = changed(world, place, None)
        if any(run.slot == child.slot for run in world.runs):
            return world
        if child.at is not At.DENIED:
            return self._without_run(world, child.slot, End.FAILED)
        if self.ends_once:
            return world  # whoever held the lease: if the slot is still open, it is still due
        return self._without_run(world, child.slot, End.SKIPPED)

    def _without_run(self, world: World, slot: float, end: End) -> World:
        """Record a slot that no run answers."""
        if self.ends_once and any(run.slot == slot for run in world.runs):
            return world
        return world._replace(runs=(*world.runs, Run(slot, end, int(end in TOLD))))

    def _process(self, world: World, place: int, process: Process) -> Steps[World]:
        name = name_of(process)
        if process.hangs:
            after = self._record(world, process, End.TIMED_OUT)
            yield f"{name}: last words", moved(after, place, process, At.ENDED)
        match process.at:
            case At.STARTED:
                if self.has_lease and is_leased(world):
                    yield f"{name}: lease denied", moved(world, place, process, At.DENIED)
                else:
                    yield f"{name}: lease", moved(world, place, process, At.LEASED)
            case At.LEASED if any(run.end is End.OPEN for run in world.runs):
                yield f"{name}: record unfinished", self._settled(world)
            case At.LEASED:
                yield f"{name}: begin", self._begun(world, place, process)
            case At.BEGUN:
                yield f"{name}: sweep and commit", self._committed(world, place, process)
            case At.COMMITTED:
                yield f"{name}: publish", self._publish(world, place, process)
            case At.WORKED | At.FAILING:
                yield from self._recorded(world, place, process)

    def _begun(self, world: World, place: int, process: Process) -> World:
        if self.ends_once and not self._is_open_to(world, process.slot):
            return moved(world, place, process, At.ENDED)
        if not self.begins_first:
            return moved(world, place, process, At.BEGUN)
        run = len(world.runs)
        world = world._replace(runs=(*world.runs, Run(process.slot, End.OPEN, 0)))
        return moved(world, place, process, At.BEGUN, run=run)

    def _committed(self, world: World, place: int, process: Process) -> World:
        """Delete data of runs that are proven dead; store ours, unless the slot has a result."""
        dead = {number for number, run in enumerate(world.runs) if run.end in WRONG}
        data = world.data - (dead - {run for _, run in world.published})
        if any(slot == process.slot for slot, _ in world.published):
            return moved(world._replace(data=data), place, process, At.WORKED)
        return moved(world._replace(data=data | {process.run}), place, process, At.COMMITTED)

    def _publish(self, world: World, place: int, process: Process) -> World:
        """Create the manifest under the slot's key; take the data back if there is one."""
        is_first = all(slot != process.slot for slot, _ in world.published)
        if is_first or not self.first_writer_wins:
            published = (*world.published, (process.slot, process.run))
            return moved(world._replace(published=published), place, process, At.WORKED)
        return moved(world._replace(data=world.data - {process.run}), place, process, At.WORKED)

    def _recorded(self, world: World, place: int, process: Process) -> Steps[World]:
        end = End.COMPLETED if process.at is At.WORKED else End.FAILED
        after = self._record(world, process, end)
        at = At.RECORDED if process.hangs else At.ENDED
        yield f"{name_of(process)}: record {end}", moved(after, place, process, at)
        if not self.one_transaction:
            yield (
                f"{name_of(process)}: record {end}, its messages not yet",
                moved(self._record(world, process, end, tells=False), place, process, At.ENDED),
            )

    def _record(self, world: World, process: Process, end: End, *, tells: bool = True) -> World:
        messages = int(tells and end in TOLD)
        if process.run == NO_RUN:
            return world._replace(runs=(*world.runs, Run(process.slot, end, messages)))
        run = world.runs[process.run]
        if run.end is not End.OPEN and self.known_by_id:
            return world
        ended = Run(run.slot, end, run.messages + messages)
        runs = (*world.runs[: process.run], ended, *world.runs[process.run + 1 :])
        return world._replace(runs=runs)

    # What happens to it.

    def events(self, world: World) -> Steps[World]:
        if world.now < self.slots:
            yield "time passes", world._replace(now=world.now + 1)
        if world.asks:
            asked = Process(At.STARTED, world.now + 0.5, NO_RUN, hangs=False)
            yield "somebody asks for a run", joined(world, asked)._replace(asks=world.asks - 1)
        if world.faults:
            yield from self._faults(world._replace(faults=world.faults - 1))

    def _faults(self, world: World) -> Steps[World]:
        if world.now > 1:
            yield "the clock goes back", world._replace(now=world.now - 1)
        for place, daemon in enumerate(world.daemons):
            if daemon.up:
                yield from self._daemon_faults(world, place, daemon)
        for place, process in processes(world):
            if process.at < At.ENDED:
                yield from self._process_faults(world, place, process)

    def _daemon_faults(self, world: World, place: int, daemon: Daemon) -> Steps[World]:
        down = with_daemon(world, place, DOWN)
        yield "daemon: killed, and its child with it", down
        for child in daemon.child:
            if child.at is At.STARTED:  # the parent-death signal was not set yet
                yield "daemon: killed, and its child goes on", joined(down, child)
            if child.at < At.ENDED:
                after = self._given_up(world, place, child)
                yield f"daemon: gives up on its run of {child.slot}", after
            else:
                lost = changed(world, place, None)
                yield f"daemon: the state refuses account {child.slot}", lost
        if 0 < daemon.wants < world.now:
            refused = daemon._replace(wants=0)
            yield f"daemon: the state refuses {daemon.wants}", with_daemon(world, place, refused)

    def _given_up(self, world: World, place: int, child: Process) -> World:
        """The child cannot be killed; it ends some time, without doing anything more."""
        after = changed(world, place, None)
        lost = (child.run,) if self.gives_up_one else range(len(world.runs))
        for number in lost:
            if number != NO_RUN and world.runs[number].end is End.OPEN:
                after = self._record(after, child._replace(run=number), End.TIMED_OUT)
        if any(run.slot == child.slot for run in after.runs):
            return after
        return self._without_run(after, child.slot, End.TIMED_OUT)

    def _process_faults(self, world: World, place: int, process: Process) -> Steps[World]:
        name = name_of(process)
        yield f"{name}: killed", moved(world, place, process, At.ENDED)
        if process.at is At.LEASED:
            yield f"{name}: the state refuses begin", moved(world, place, process, At.ENDED)
        if process.at in (At.BEGUN, At.COMMITTED):
            yield f"{name}: the job fails", moved(world, place, process, At.FAILING)
        if At.BEGUN <= process.at < At.ENDED and not process.hangs:
            yield f"{name}: hangs", changed(world, place, process._replace(hangs=True))

    # What must hold.

    def broken(self, world: World) -> str:
        return next(filter(None, self._violations(world)), "")

    def _violations(self, world: World) -> Iterator[str]:
        slots = [slot for slot, _ in world.published]
        if len(set(slots)) < len(slots):
            yield "a slot has two results"
        if any(run not in world.data for _, run in world.published):
            yield "a result has lost its data"
        for _, process in processes(world):
            is_at_work = process.at < At.ENDED and not process.hangs and process.run != NO_RUN
            if is_at_work and world.runs[process.run].end is not End.OPEN:
                yield "a living run is on record as ended"
        if any(run.messages > 1 for run in world.runs):
            yield "a run is told twice"
        yield self._doubly_ended(world)

    def _doubly_ended(self, world: World) -> str:
        """Every record of a slot but its last must be of a try that allows another."""
        ended: dict[float, list[End]] = {}
        for run in world.runs:
            ended.setdefault(run.slot, []).append(run.end)
        for ends in ended.values():
            if len(ends) > self.attempts or not RETRIED.issuperset(ends[:-1]):
                return f"a slot has ended twice: {', '.join(ends)}"
        return ""

    def owed(self, world: World) -> str:
        for slot in range(1, world.now + 1):
            if all(run.slot != slot for run in world.runs):
                return "a slot has no end on record"
        if any(run.end is End.OPEN for run in world.runs):
            return "a run has no end on record"
        if any(run.messages < (run.end in TOLD) for run in world.runs):
            return "a run that went wrong is not told"
        if NO_RUN in world.data - {run for _, run in world.published}:
            return "data lies about and nobody can prove its run dead"
        return ""
