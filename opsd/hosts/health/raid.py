"""A mirror that lost a disk works as before, until the second one dies.

Source: kernel, drivers/md: md_seq_show; md(4) "/proc/mdstat".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from opsd.hosts.health.look import Answer, Look, Part
from opsd.hosts.script import Probe
from opsd.model import Finding, Severity

PROBE = "health-raid"
_COMMAND = '[ -r /proc/uptime ] || exit 9; [ ! -e /proc/mdstat ] || cat /proc/mdstat; exit "$?"'
_ARRAY = re.compile(r"^(md\S*) : (active|inactive|broken)\b(.*)$")
_MEMBER = re.compile(r"(\S+?)\[\d+\]((?:\([A-Z]\))*)")
_COUNTS = re.compile(r"\[(\d+)/(\d+)\] \[([U_]+)\]")
_CONTAINER = re.compile(r"super external:[^/]")
_PROGRESS = re.compile(r"(recovery|resync|reshape|check)\s*=\s*([\d.]+)%.*?finish=([\d.]+)min")


@dataclass(slots=True, kw_only=True)
class _Array:
    name: str
    is_active: bool
    failed: list[str]
    wanted: int = 0
    there: int = 0
    progress: str = ""
    is_container: bool = False  #: of arrays that a RAID controller's BIOS made; never active

    @property
    def is_degraded(self) -> bool:
        return self.there < self.wanted


def read(look: Look) -> Answer:
    """Judge every array."""
    arrays = list(_arrays(look.text(PROBE, what="RAID")))
    return Answer(
        findings=tuple(found for array in arrays for found in _findings(array, look)),
        facts={f"raid_{array.name}": _in_a_word(array) for array in arrays},
    )


def _arrays(text: str) -> Iterator[_Array]:
    array: _Array | None = None
    for line in text.splitlines():
        if begins := _ARRAY.match(line):
            if array:
                yield array
            failed = [name for name, flags in _MEMBER.findall(begins[3]) if "(F)" in flags]
            array = _Array(name=begins[1], is_active=begins[2] == "active", failed=failed)
        elif array and (counts := _COUNTS.search(line)):
            array.wanted, array.there = int(counts[1]), int(counts[2])
        elif array and _CONTAINER.search(line):
            array.is_container = True
        elif array and (progress := _PROGRESS.search(line)):
            array.progress = f"{progress[1]} {progress[2]} %, {progress[3]} min left"
    if array:
        yield array


def _in_a_word(array: _Array) -> str:
    if array.is_container:
        return "container"
    if not array.is_active:
        return "inactive"
    state = f"{array.there} of {array.wanted} disks" if array.wanted else "active"
    return f"{state}, {array.progress}" if array.progress else state


def _findings(array: _Array, look: Look) -> Iterator[Finding]:
    if array.is_container or (array.is_active and not array.is_degraded and not array.failed):
        return
    machine = look.machine.name
    if not array.is_active:
        what = "does not run"
    elif array.is_degraded:
        what = f"runs on {array.there} of {array.wanted} disks"
    else:
        what = f"holds a failed disk: {', '.join(array.failed)}"
    told = f"; {array.progress}" if array.progress else ""
    yield Finding(
        check="health.raid_degraded",
        subject=look.subject(array.name),
        severity=Severity.CRITICAL,
        summary=f"RAID {array.name} of {machine} {what}{told}"[:120],
        remedy=f"on {machine}: sudo mdadm --detail /dev/{array.name}; replace the disk, then: "
        f"sudo mdadm --manage /dev/{array.name} --add /dev/NEW",
        facts={
            "disks": array.there,
            "disks_wanted": array.wanted,
            "failed": ", ".join(array.failed),
            "progress": array.progress,
        },
    )


PART = Part(name="raid", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
