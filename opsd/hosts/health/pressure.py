"""A machine on which everything waits: for its disk, or for memory.

The kernel says in which share of the last five minutes nobody could do anything else than wait
(pressure stall information). A finding ends a quarter below the limit that made it.

Limits: kernels that do not measure it, as that of Raspberry Pi OS, need `psi=1` in their command
line; until then it is stated as not measurable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from opsd.hosts.health.look import STEADY, Answer, Look, Part
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity

PROBE = "health-pressure"
IO_PERCENT = 40.0  # of five minutes, nobody could go on
MEMORY_PERCENT = 10.0
BACK = 0.75  # of the limit it must fall to
_NOT_MEASURED = "not measurable: psi=1 in the kernel command line turns it on"

_COMMAND = """\
[ -r /proc/loadavg ] || exit 9
for what in io memory cpu
do
    [ -e /proc/pressure/$what ] || continue
    grep -sH . /proc/pressure/$what
done
exit 0
"""
_LINE = re.compile(r"^/proc/pressure/(\w+):(some|full) .*\bavg300=(\d+(?:\.\d+)?)", re.MULTILINE)


def read(look: Look) -> Answer:
    """Judge how long everything stood still."""
    text = look.text(PROBE, what="pressure")
    stalls = {(what, kind): float(share) for what, kind, share in _LINE.findall(text)}
    if not stalls:
        return Answer(facts={"pressure": _NOT_MEASURED})
    facts: dict[str, Fact] = {
        f"{what}_stall_percent": stalls[what, "full"]
        for what in ("io", "memory")
        if (what, "full") in stalls
    }
    if ("cpu", "some") in stalls:
        facts["cpu_wait_percent"] = stalls["cpu", "some"]
    told = tuple(_findings(look, stalls, facts))
    return Answer(findings=told, facts=facts, kept={"open": [one.subject for one in told]})


def _findings(
    look: Look, stalls: dict[tuple[str, str], float], facts: dict[str, Fact]
) -> Iterator[Finding]:
    machine = look.machine.name
    for what, limit, name, remedy in (
        ("io", IO_PERCENT, "its disks", "iotop -obn 2, or: dmesg | tail"),
        ("memory", MEMORY_PERCENT, "memory", "ps -eo rss,cmd --sort -rss | head"),
    ):
        share, subject = stalls.get((what, "full"), 0.0), look.subject(what)
        is_open = subject in (look.kept.get("open") or ())
        if share >= (limit * BACK if is_open else limit):
            yield Finding(
                check="health.stalled",
                subject=subject,
                severity=Severity.WARNING,
                summary=f"{machine} waited for {name} {share:.0f} % of the last five minutes",
                remedy=f"on {machine}: {remedy}",
                facts=facts,
                steady_for=STEADY,
            )


PART = Part(name="pressure", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
