"""How long has it been as it is? Ages by our own clock, over runs and restarts. Pure.

A node's clock may be off by years, so the age of its lease is the time since we saw the lease
change, counted on a clock that runs from boot to boot and knows no steps. What was seen is kept
between runs; after a reboot of ours, or a file that is lost, everything is as new as at the
first look: an age may be too short, and never too long.

A lease that has the same version after a time in which nobody looked was not renewed in that
time either, so a gap between looks shortens no age.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from opsd.cluster.nodeloss.facts import Pod
from opsd.cluster.nodeloss.incident import Newest, Volume

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Uptime(Protocol):
    """A clock that starts with the machine and also counts while it sleeps."""

    @property
    def boot_id(self) -> str:
        """Another one after each boot."""
        ...

    def seconds(self) -> float:
        """Since boot."""
        ...


class MachineUptime:
    """That of this machine."""

    @property
    def boot_id(self) -> str:
        """As the kernel has it; containers of one machine share it."""
        return _BOOT_ID.read_text().strip()

    def seconds(self) -> float:
        """Since boot, sleep included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that has been the same since a moment."""

    value: str
    since_s: float  #: on the clock of `Uptime`


@dataclass(frozen=True, slots=True, kw_only=True)
class Research:
    """What was found out about the data on a lost node."""

    at_s: float
    pods: tuple[str, ...] = ()  #: UIDs of the pods that it is about
    volumes: tuple[Volume, ...] = ()
    backups: tuple[Newest, ...] = ()
    unknown: str = ""  #: why the backups could not be looked up


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What earlier looks saw. Times are on the clock of `Uptime`."""

    boot_id: str
    began_s: float  #: looked without a long gap since
    looked_s: float  #: the last look
    marks: Mapping[str, Mark] = field(default_factory=dict)  #: ``lease/rpi3``: its version
    error: str = ""  #: the last one of the API server
    error_s: float | None = None
    swept_s: float | None = None  #: all pods were listed
    swept_at: datetime | None = None  #: likewise, by the API server's clock
    hanging: tuple[Pod, ...] = ()  #: pods that were being deleted then
    research: Mapping[str, Research] = field(default_factory=dict)  #: by lost node
    told: tuple[str, ...] = ()  #: what the last run found

    def age(self, key: str, at_s: float) -> timedelta:
        """How long it has been as it is; nothing for what is not known."""
        mark = self.marks.get(key)
        return timedelta(seconds=max(0.0, at_s - mark.since_s) if mark else 0.0)

    def noted(self, family: str, values: Mapping[str, str], at_s: float) -> Memory:
        """With what was seen now of all members of a family; who is not there is forgotten.

        Args:
            family: ``lease``.
            values: by name: something that differs when it was changed.
            at_s: now.
        """
        kept = {key: mark for key, mark in self.marks.items() if not key.startswith(f"{family}/")}
        for name, value in values.items():
            key = f"{family}/{name}"
            before = self.marks.get(key)
            is_same = before is not None and before.value == value
            kept[key] = before if before and is_same else Mark(value=value, since_s=at_s)
        return replace(self, marks=kept)

    def failed(self, error: str, at_s: float) -> Memory:
        """After a look that the API server did not answer."""
        return replace(self, error=error, error_s=at_s)

    def names(self, family: str) -> Iterable[str]:
        """The members of a family."""
        return (key.partition("/")[2] for key in self.marks if key.startswith(f"{family}/"))

    def watched_for(self, at_s: float) -> timedelta:
        """How long we have looked without a long gap."""
        return timedelta(seconds=at_s - self.began_s)


def looking(memory: Memory | None, uptime: Uptime, *, longest_gap: timedelta) -> Memory:
    """The memory with which a look begins.

    Args:
        memory: what is known from before; None: nothing.
        uptime: our own clock.
        longest_gap: who has not looked for longer has to begin anew.
    """
    at_s, boot_id = uptime.seconds(), uptime.boot_id
    if memory is None or memory.boot_id != boot_id or memory.looked_s > at_s:
        return Memory(boot_id=boot_id, began_s=at_s, looked_s=at_s)
    has_gap = at_s - memory.looked_s > longest_gap.total_seconds()
    if has_gap or not memory.marks:  # the watch begins with the first answer
        return replace(memory, began_s=at_s, looked_s=at_s)
    return replace(memory, looked_s=at_s)


def decode(content: bytes) -> Memory | None:
    """Read what `encode` wrote; None for anything else."""
    try:
        return _DECODER.decode(content)
    except msgspec.MsgspecError:
        return None


def encode(memory: Memory) -> bytes:
    """As JSON."""
    return msgspec.json.encode(memory)


# Made here, by one thread: when two are the first to read a type, msgspec 0.22 crashes.
_DECODER = msgspec.json.Decoder(Memory)
