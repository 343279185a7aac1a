"""Is there always a good backup left, whoever dies while old ones are removed?

One series, one run after another (the lease sees to that: `slots`). A run ends the removals
that others began, publishes its backup, and only then plans and prunes, step by step as
`opsd.backup.prune` does it. Between any two steps it may die, or somebody verifies a backup
and finds it damaged. A run that fails ends like one that is killed before it publishes.

Limits: only the newest `minimum` good backups stay; that the other rules keep more can only
help. A backup is made in one step here; `slots` takes it apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.checker import Steps


class Backup(NamedTuple):
    """One backup, in order of age; what is left of it."""

    manifest: bool = True
    data: bool = True
    tombstone: bool = False
    damaged: bool = False


class Run(NamedTuple):
    """A run that has the lease."""

    has_published: bool = False
    has_planned: bool = False
    removing: tuple[int, ...] = ()  # what its plan still removes


class World(NamedTuple):
    """Everything at one moment."""

    backups: tuple[Backup, ...]  # oldest first
    run: Run | None  # the one that is under way
    excuses: int  # damages found after a decision that could not know of them
    slots: int  # still to come
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The model, its bounds, and its rules; each rule can be left out."""

    slots: int = 6
    minimum: int = 2
    faults: int = 4
    #: Only backups that are not known to be damaged count.
    counts_only_good: bool = True
    #: A removal is written down before it begins.
    buries: bool = True
    #: The manifest goes before the data.
    manifest_first: bool = True

    def initial(self) -> World:
        return World(
            backups=(),
            run=None,
            excuses=0,
            slots=self.slots,
            faults=self.faults,
        )

    def steps(self, world: World) -> Steps[World]:
        run = world.run
        if run is None:
            return
        buried = [n for n, backup in enumerate(world.backups) if backup.tombstone]
        if buried:
            yield self._finish(world, buried[0])
        elif not run.has_published:
            after = world._replace(backups=(*world.backups, Backup()), run=Run(has_published=True))
            yield "publish", self._recovered(after)
        elif not run.has_planned:
            yield self._plan(world)
        elif run.removing:
            yield self._remove(world, run.removing)
        else:
            yield "end", world._replace(run=None)

    def _plan(self, world: World) -> tuple[str, World]:
        there = [n for n, backup in enumerate(world.backups) if _is_there(backup)]
        counted = [n for n in there if not (self.counts_only_good and world.backups[n].damaged)]
        kept_from = counted[-self.minimum] if len(counted) >= self.minimum else 0
        going = tuple(n for n in there if n < kept_from)
        return f"plan: remove {going}", world._replace(run=Run(True, True, going))

    def _remove(self, world: World, removing: tuple[int, ...]) -> tuple[str, World]:
        number = removing[0]
        backup = world.backups[number]
        if self.buries and (backup.manifest or backup.data):
            return f"bury {number}", _put(world, number, backup._replace(tombstone=True))
        if backup.manifest or backup.data:
            return self._delete(world, number)
        return f"removed {number}", world._replace(run=Run(True, True, removing[1:]))

    def _finish(self, world: World, number: int) -> tuple[str, World]:
        """Do the next thing that a tombstone asks for."""
        backup = world.backups[number]
        if backup.manifest or backup.data:
            return self._delete(world, number)
        ended = _put(world, number, backup._replace(tombstone=False))
        return f"delete the tombstone of {number}", ended

    def _delete(self, world: World, number: int) -> tuple[str, World]:
        backup = world.backups[number]
        if backup.manifest and (self.manifest_first or not backup.data):
            left = backup._replace(manifest=False)
            return f"delete the manifest of {number}", _put(world, number, left)
        return f"delete the data of {number}", _put(world, number, backup._replace(data=False))

    def events(self, world: World) -> Steps[World]:
        if world.slots and world.run is None:
            yield "a run starts", world._replace(run=Run(), slots=world.slots - 1)
        if not world.faults:
            return
        fewer = world._replace(faults=world.faults - 1)
        if world.run is not None:
            yield "killed", fewer._replace(run=None)
        for number, backup in enumerate(world.backups):
            if _is_there(backup) and not backup.damaged:
                found = _put(fewer, number, backup._replace(damaged=True))
                yield f"{number} is found damaged", self._excused(found)

    def _excused(self, world: World) -> World:
        """Nobody can know of a damage that is found after the decision."""
        is_planned = world.run is not None and bool(world.run.removing)
        is_late = is_planned or any(not _is_there(one) for one in world.backups)
        return world._replace(excuses=world.excuses + is_late)

    def _recovered(self, world: World) -> World:
        return world._replace(excuses=0) if _good(world) >= self.minimum else world

    def broken(self, world: World) -> str:
        return next(filter(None, self._violations(world)), "")

    def _violations(self, world: World) -> Iterator[str]:
        undamaged = sum(not backup.damaged for backup in world.backups)
        if _good(world) + world.excuses < min(self.minimum, undamaged):
            yield "one of the newest good backups was removed"
        if any(one.manifest and not one.data and not one.tombstone for one in world.backups):
            yield "a manifest names data that is gone"

    def owed(self, world: World) -> str:
        if any(one.data and not one.manifest and not one.tombstone for one in world.backups):
            return "data of a removed backup stays for ever"
        return ""


def _is_there(backup: Backup) -> bool:
    """Whether a catalog shows it."""
    return backup.manifest and not backup.tombstone


def _good(world: World) -> int:
    return sum(_is_there(one) and one.data and not one.damaged for one in world.backups)


def _put(world: World, number: int, backup: Backup) -> World:
    backups = (*world.backups[:number], backup, *world.backups[number + 1 :])
    return world._replace(backups=backups)
