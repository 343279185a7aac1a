"""A machine that runs out of memory: soon the kernel kills something, or the kubelet does.

On a node that is where its kubelet throws pods off (100 MiB), or a twentieth, whichever comes
first; it is over when 1.6 times as much is back.

Limits: what is available is the kernel's own estimate (MemAvailable).
"""

from __future__ import annotations

import re

from opsd.hosts.health.look import STEADY, Answer, Look, Part, Unreadable
from opsd.hosts.machine import Role
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity

PROBE = "health-memory"
LITTLE_PERCENT = 5.0
LITTLE_ON_NODES_KIB = 128 * 1024
BACK = 1.6  # times the limit
_LINE = re.compile(r"^(\w+):\s+(\d+) kB", re.MULTILINE)


def read(look: Look) -> Answer:
    """Judge how much is left."""
    text = look.text(PROBE, what="memory")
    kib = {name: int(value) for name, value in _LINE.findall(text)}
    total, available = kib.get("MemTotal", 0), kib.get("MemAvailable")
    if not total or available is None:
        raise Unreadable("memory", "no MemTotal and MemAvailable in /proc/meminfo")
    percent = 100 * available / total
    facts: dict[str, Fact] = {
        "memory_mib": total // 1024,
        "memory_available_percent": round(percent, 1),
        "swap_used_mib": (kib.get("SwapTotal", 0) - kib.get("SwapFree", 0)) // 1024,
    }
    limit_kib = total * LITTLE_PERCENT / 100
    if Role.NODE in look.machine.roles:
        limit_kib = max(limit_kib, LITTLE_ON_NODES_KIB)
    is_low = available < limit_kib * (BACK if look.kept.get("is_low") else 1)
    finding = Finding(
        check="health.memory_low",
        subject=look.subject(),
        severity=Severity.WARNING,
        summary=f"{look.machine.name} has {available // 1024} MiB of memory left "
        f"({percent:.0f} %)",
        remedy=f"on {look.machine.name}: ps -eo rss,cmd --sort -rss | head",
        facts=facts,
        steady_for=STEADY,
    )
    return Answer(findings=(finding,) if is_low else (), facts=facts, kept={"is_low": is_low})


PART = Part(name="memory", probes=(Probe(name=PROBE, command="cat /proc/meminfo"),), read=read)
