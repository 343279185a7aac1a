"""Control groups of pods for processes of the rig's machines: real ones, of version 2.

Machines share the tree of the host, so a machine's process is found by its network.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rig import parts
from tests.rig.machines import RealMachine, net_of

_INSIDE = re.compile(r"^NSpid:.*\t(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Group:
    """A control group, to the processes in it a real one."""

    place: Path

    def take(self, machine: RealMachine, name: str) -> None:
        """Put a process of a machine into it, by its name."""
        found = machine.run(f"pgrep -n -x {name}", check=True).out.strip()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                inside = _INSIDE.search((process / "status").read_text())
                if inside and inside[1] == found and net_of(int(process.name)) == machine.net:
                    (self.place / "cgroup.procs").write_text(process.name)
                    return
        raise AssertionError(f"{machine.name} runs no {name}")


@contextlib.contextmanager
def cgroup(path: str) -> Iterator[Group]:
    """A control group whose path ends so; what is in it at the end goes back to the root."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    root = next((Path(words[1]) for words in mounts if words[2] == "cgroup2"), None)
    if root is None:
        parts.missing("a tree of control groups, version 2")
    top = root / f"opsd-t-{os.getpid()}-{secrets.token_hex(4)}"
    place = top / path
    place.mkdir(parents=True)
    try:
        yield Group(place)
    finally:
        for pid in (place / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        for one in (place, *place.parents):
            if one.is_relative_to(top):
                one.rmdir()
