"""What a machine said of its mounts, taken apart. Pure; nothing is judged here."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from opsd.hosts.fleet import Visit
from opsd.hosts.nfs import mounts, probes, traffic
from opsd.hosts.nfs.mounts import Mount
from opsd.hosts.nfs.traffic import Traffic
from opsd.hosts.script import Section
from opsd.text import printable

OWN = "stat"  # what looks at mounts: it waits because opsd asked
_KILLED = 137
_POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f_-]{27})")
_LOGGED = re.compile(r"(?:\[ *([0-9.]+)\] )?.*nfs: server (\S+) (not responding|OK)")


class Sight(enum.StrEnum):
    """What became of a look at a mount."""

    ANSWERED = "answered"
    HUNG = "hung"  #: no answer in its time
    STALE = "stale"  #: the server no longer knows the directory
    ERROR = "error"  #: another error
    REFUSED = "refused"  #: opsd may not look there
    UNKNOWN = "unknown"  #: the look itself did not come off


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look at one mount."""

    sight: Sight
    seconds: float = 0.0  #: until the answer
    detail: str = ""  #: the error, in words
    is_waiting: bool = False  #: an earlier look still hangs; there was no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A process that cannot be interrupted, not even to end it."""

    pid: int
    name: str
    wchan: str = ""  #: the kernel's function in which it waits; empty: not told
    pod: str = ""  #: UID; empty: it belongs to none


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """The last that the kernel said about a file server."""

    is_well: bool
    ago_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that one machine said."""

    mounts: tuple[Mount, ...] = ()
    looks: Mapping[tuple[str, str], Look] = field(default_factory=dict)  #: by device and source
    traffic: Mapping[str, Traffic] = field(default_factory=dict)  #: by path
    tasks: tuple[Task, ...] = ()
    log: Mapping[str, Logged] = field(default_factory=dict)  #: by server
    unreadable: tuple[str, ...] = ()  #: what could not be read, and why; each hides something

    def look(self, mount: Mount) -> Look:
        """At this mount, or at another one on the same connection that hung first."""
        found = self.looks.get((mount.device, mount.source))
        if found is None:
            same = (one for (device, _), one in self.looks.items() if device == mount.device)
            found = next((one for one in same if one.sight is Sight.HUNG), None)
        return found or Look(sight=Sight.UNKNOWN, detail="it was not looked at")

    def traffic_of(self, mount: Mount) -> Traffic | None:
        """What happened on it during the look."""
        found = (self.traffic[path] for path in mount.paths if path in self.traffic)
        return next(found, None)


def read(visit: Visit) -> Answers:
    """What came home from a machine."""
    sections = visit.sections
    unreadable: list[str] = []

    def text(name: str, what: str, *, is_needed: bool = True) -> str:
        section = sections.get(name)
        why = _why_not(section)
        if why and is_needed:
            unreadable.append(f"{what}: {why}")
        return section.stdout if section and not why else ""

    mounted = mounts.parse(text(probes.MOUNTS, "mounts"))
    looks = _looks(text(probes.LOOKS, "looks at mounts", is_needed=bool(mounted)))
    tasks = _tasks(text(probes.TASKS, "processes", is_needed=bool(mounted)))
    compared = traffic.compare(
        text(probes.BEFORE, "counters", is_needed=False),
        text(probes.AFTER, "counters", is_needed=False),
    )
    return Answers(
        mounts=mounted,
        looks=looks,
        traffic=compared,
        tasks=tasks,
        log=_log(text(probes.LOG, "kernel log", is_needed=False)),
        unreadable=tuple(unreadable),
    )


def _why_not(section: Section | None) -> str:
    """Why a section says nothing; empty when it does."""
    if section is None:
        return "the answer was cut off"
    if section.status == _KILLED:
        return "it did not answer in time, and was ended"
    return "" if section.is_ok else section.complaint()


def _looks(text: str) -> dict[tuple[str, str], Look]:
    found = {}
    for line in text.splitlines():
        words = line.split(" ", 5)
        if len(words) == len(("device", "source", "status", "began", "ended", "error")):
            device, source, status, began, ended, error = words
            found[device, printable(source)] = _look(status, began, ended, printable(error))
    return found


def _look(status: str, began: str, ended: str, error: str) -> Look:
    if status == "waiting":
        return Look(sight=Sight.HUNG, detail="an earlier look still hangs", is_waiting=True)
    if status in {"hung", str(_KILLED)}:
        return Look(sight=Sight.HUNG, detail=f"no answer within {probes.LOOK_S} s")
    sight = Sight.ANSWERED if status == "0" else _complaint(error)
    detail = "" if status == "0" else error.rpartition("': ")[2] or f"exit status {status}"
    return Look(sight=sight, seconds=_number(ended) - _number(began), detail=detail)


def _complaint(error: str) -> Sight:
    """What stat's complaint means."""
    if error.startswith("sudo:") or "Permission denied" in error:
        return Sight.REFUSED
    if "Stale" in error and "handle" in error:
        return Sight.STALE
    # It did not run, or the mount went away meanwhile.
    is_about_mount = bool(error) and "No such file" not in error and "not found" not in error
    return Sight.ERROR if is_about_mount else Sight.UNKNOWN


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0.0


def _tasks(text: str) -> tuple[Task, ...]:
    found: dict[int, Task] = {}
    for line in text.splitlines():
        pid, _, rest = line.partition(" ")
        wchan, _, rest = rest.partition(" ")
        group, _, name = rest.partition(" ")
        if not pid.isdecimal() or name == OWN:
            continue
        pod = _POD.search(group)
        task = Task(
            pid=int(pid),
            name=printable(name),
            wchan="" if wchan in {"-", "0"} else printable(wchan),
            pod=pod[1].replace("_", "-") if pod else "",
        )
        found.setdefault(task.pid, task)
    return tuple(found.values())


def _log(text: str) -> dict[str, Logged]:
    first, _, rest = text.partition("\n")
    word, _, shown = first.partition(" ")
    uptime_s = _number(shown) if word == "uptime" else None
    found = {}
    for line in rest.splitlines():
        if match := _LOGGED.match(line):
            at, server, said = match[1], printable(match[2]), match[3]
            ago_s = uptime_s - _number(at) if at and uptime_s is not None else None
            found[server] = Logged(is_well=said == "OK", ago_s=ago_s)
    return found
