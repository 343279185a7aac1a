"""The kernel said it hours before anybody noticed: disk errors, damage, killed processes.

Lines that mean something are picked on the machine; each is counted once, and told for a day.

Limits: what the kernel has overwritten since the last look is lost, and told as unknown. Lines
about NFS are `nfs-health`'s; a task that hangs while a file server is silent follows from it.
Processes that are killed at the memory limit of their own pod are none of the machine's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from opsd.hosts.health.counters import DAY
from opsd.hosts.health.look import Answer, Look, Part, Unknown, Unreadable
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity
from opsd.text import printable, shortened

PROBE = "health-kernel"
_WHAT = "kernel log"
_FIX = (
    "sudoers: dmesg without a password (docs/nodes.md), or, with a journal: usermod -aG adm USER"
)
ROOT = "dmesg"  #: what is run as root
_LINES = 400  # brought home at most
_HOUR_S = 3600
_EXAMPLE = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Lines that mean the same."""

    name: str
    pattern: str  #: for `grep -E` and for Python
    severity: Severity
    summary: str  #: of ``{machine}``
    remedy: str
    but: str = "(?!)"  #: lines that look alike and mean nothing


KINDS = (
    Kind(
        name="io",
        pattern=r"I/O error, dev (sd|nvme|mmcblk|vd|xvd|hd)|"
        r"Buffer I/O error on dev(ice)? (sd|nvme|mmcblk|vd|dm-|md)|"
        r"mmc[0-9]+: ([Ee]rror|[Tt]imeout|cache flush error)|critical (medium|target) error|"
        r"ata[0-9.]+: (failed command|exception Emask)|uas_eh_abort_handler|"
        r"nvme nvme[0-9]+: (I/O .*timeout|controller is down|Abort)",
        but="whilst initialising",
        severity=Severity.CRITICAL,
        summary="a disk or card of {machine} fails to read or write",
        remedy="dmesg | grep -iE 'i/o error|mmc|ata|nvme' | tail; save its data, then replace it",
    ),
    Kind(
        name="filesystem",
        pattern=r"EXT4-fs error|EXT4-fs \([^)]*\): Remounting filesystem read-only|"
        r"Aborting journal|XFS \([^)]*\): .*([Cc]orruption|[Ss]hut.?down|Shutting down)|"
        r"BTRFS:? (error|critical|alert)|FAT-fs \([^)]*\): error|F2FS-fs .*(inconsisten|corrupt)",
        severity=Severity.CRITICAL,
        summary="a file system of {machine} is damaged",
        remedy="dmesg | grep -iE 'ext4|xfs|btrfs|fat-fs|f2fs' | tail; have a fresh backup, then "
        "check the file system unmounted",
    ),
    Kind(
        name="oom",
        pattern=r"Out of memory: Kill(ed)? process",
        severity=Severity.WARNING,
        summary="{machine} ran out of memory, and the kernel killed a process",
        remedy="ps -eo rss,cmd --sort -rss | head; set memory limits, or move pods away",
    ),
    Kind(
        name="hung",
        pattern=r"task .{1,60} blocked for more than [0-9]+ seconds",
        severity=Severity.WARNING,
        summary="a process of {machine} waited for minutes for a disk or a file server",
        remedy="ps -eo pid,stat,wchan:32,cmd | grep ' D'",
    ),
    Kind(
        name="lockup",
        pattern=r"soft lockup|hard LOCKUP|detected stalls? on CPUs|self-detected stall|"
        r"Kernel panic|BUG: (unable|kernel)|Oops[: ]",
        severity=Severity.WARNING,
        summary="the kernel of {machine} stood still or crashed in part",
        remedy="dmesg | grep -A20 -E 'lockup|stall|BUG|Oops' | head -60; patch it and restart",
    ),
    Kind(
        name="hardware",
        pattern=r"\[Hardware Error\]|Machine check events logged|EDAC .* (UE|CE) ",
        severity=Severity.WARNING,
        summary="processor or memory of {machine} report errors",
        remedy="dmesg | grep -iE 'hardware error|edac|machine check' | tail; test its memory",
    ),
    Kind(
        name="undervoltage",
        pattern=r"[Uu]nder-?[Vv]oltage detected",
        severity=Severity.WARNING,
        summary="the supply voltage of {machine} was too low at times",
        remedy="replace its power supply and cable",
    ),
    Kind(
        name="network",
        pattern=r"NETDEV WATCHDOG|nf_conntrack: table full|neighbou?r.* table overflow",
        severity=Severity.WARNING,
        summary="{machine} lost packets: a card hangs, or a table is full",
        remedy="dmesg | grep -iE 'watchdog|conntrack|neighbo' | tail",
    ),
)
_NFS = r"nfs: server [^ ]+ (not responding|OK)"
_PATTERN = "|".join([*(kind.pattern for kind in KINDS), _NFS])

# Without rights dmesg fails at once and prints nothing, so the next one is tried.
_COMMAND = f"""\
log() {{
    dmesg 2>/dev/null || $root dmesg || journalctl -q -k -b -o short-monotonic --no-pager
}}
log | {{
    IFS= read -r first
    printf 'first %s\\n' "$first"
    {{ printf '%s\\n' "$first"; cat; }} | grep -E '{_PATTERN}' | tail -n {_LINES}
}}
exit 0
"""
_LINE = re.compile(r"(?:<\d+>)?\[\s*(\d+\.\d+)\] ?(?:\[\s*[TC]\d+\] ?)?(?:\S+ kernel: )?(.*)")
_SERVER = re.compile(r"nfs: server (\S+?),? (not responding|OK)")
_DEVICE = re.compile(r"\b(?:(?:sd|nvme|mmcblk|mmc|vd|dm-|md|loop)\w+|ata\d+)")


@dataclass(frozen=True, slots=True)
class _Line:
    at_s: float  #: since the start
    text: str


def read(look: Look) -> Answer:
    """Judge the lines of the last day."""
    section = look.section(PROBE, what=_WHAT)
    head, _, rest = look.text(PROBE, what=_WHAT).partition("\n")
    first = _line(head.removeprefix("first "))
    if first is None:
        why = section.complaint() if section.stderr.strip() else "it is empty, or without times"
        raise Unreadable(_WHAT, why, _FIX)
    lines = [line for line in map(_line, rest.splitlines()) if line]
    seen_s = float(look.kept.get("seen_s", -1.0)) if look.is_same_boot else -1.0
    new = [line for line in lines if line.at_s > seen_s]
    kept: dict[str, Any] = {
        "seen_s": max([seen_s, *(line.at_s for line in lines)]),
        "uptime_s": look.boot.uptime_s,
        "silent": _silent(lines),
    }
    found = []
    for kind in KINDS:
        about = _About(kind, look, new)
        if about.count:
            kept[kind.name] = about.kept()
            found.append(about.finding(kept["silent"]))
    return Answer(findings=tuple(found), kept=kept, unknown=_lost(look, first))


def _line(text: str) -> _Line | None:
    match = _LINE.match(text)
    return _Line(float(match[1]), printable(match[2])) if match else None


def _silent(lines: Iterable[_Line]) -> list[str]:
    """File servers that have not answered again."""
    last = {match[1]: match[2] for line in lines if (match := _SERVER.search(line.text))}
    return [server for server, said in last.items() if said != "OK"]


def _lost(look: Look, first: _Line) -> tuple[Unknown, ...]:
    before_s = look.kept.get("uptime_s") if look.is_same_boot else None
    if not isinstance(before_s, int | float) or first.at_s <= before_s:
        return ()
    minutes = (first.at_s - before_s) / 60
    why = f"the kernel has overwritten what it said during {minutes:.0f} minutes"
    return (Unknown(what=_WHAT, why=why, fix="log_buf_len=4M in the kernel command line"),)


class _About:
    """Lines of one kind: new ones, and those of the last day that were kept."""

    def __init__(self, kind: Kind, look: Look, new: Iterable[_Line]) -> None:
        self._kind, self._look = kind, look
        kept = look.kept.get(kind.name)
        before = kept if isinstance(kept, Mapping) else {}
        self._hours: dict[str, int] = dict(before.get("hours") or {})
        self._example, self._last_s = before.get("example", ""), before.get("last_s", 0.0)
        self._devices = set(before.get("devices") or ())
        for line in new:
            if re.search(kind.pattern, line.text) and not re.search(kind.but, line.text):
                self._count(line)
        oldest = (look.at_s - DAY.total_seconds()) // _HOUR_S
        self._hours = {hour: n for hour, n in self._hours.items() if int(hour) >= oldest}

    def _count(self, line: _Line) -> None:
        at_s = self._look.at_s - (self._look.boot.uptime_s - line.at_s)
        hour = str(int(at_s // _HOUR_S))
        self._hours[hour] = self._hours.get(hour, 0) + 1
        self._example, self._last_s = shortened(line.text, _EXAMPLE), at_s
        self._devices.update(_DEVICE.findall(line.text))

    @property
    def count(self) -> int:
        return sum(self._hours.values())

    def kept(self) -> dict[str, Any]:
        return {
            "hours": self._hours,
            "example": self._example,
            "last_s": self._last_s,
            "devices": sorted(self._devices),
        }

    def _cause(self, silent: list[str]) -> str:
        if self._kind.name == "undervoltage":
            return f"{self._look.machine.subject}/power"
        return f"nfs/{silent[0]}" if self._kind.name == "hung" and silent else ""

    def finding(self, silent: list[str]) -> Finding:
        kind, machine = self._kind, self._look.machine.name
        ago_min = max(0.0, self._look.at_s - self._last_s) / 60
        devices = ", ".join(sorted(self._devices))
        summary = kind.summary.format(machine=machine) + (f" ({devices})" if devices else "")
        facts: dict[str, Fact] = {
            "line": self._example,
            "lines_within_a_day": self.count,
            "last_min_ago": round(ago_min),
        }
        if devices:
            facts["devices"] = devices
        return Finding(
            check="health.kernel_log",
            subject=self._look.subject(kind.name),
            severity=kind.severity,
            summary=shortened(summary, 120),
            remedy=f"on {machine}: {kind.remedy}",
            facts=facts,
            cause=self._cause(silent),
        )


PART = Part(name="kernel", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
