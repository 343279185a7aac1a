"""A machine that starts again and again: a power supply that fails, a kernel that crashes.

One restart is what patches need; it is stated in the table and not told.
"""

from __future__ import annotations

from opsd.hosts.health.counters import DAY, WEEK
from opsd.hosts.health.look import Answer, Boot, Look, Part, Unreadable
from opsd.hosts.script import Probe, Section
from opsd.model import Finding, Severity

PROBE = "health-boot"
RESTARTS = 3  # within a day
_DAY_S = DAY.total_seconds()

# Where /sys is missing a machine has no disks and no cards, and would look healthy.
_COMMAND = """\
[ -d /sys/class/net ] && [ -d /sys/block ] || { echo "/sys is not mounted" >&2; exit 9; }
cat /proc/sys/kernel/random/boot_id /proc/uptime /proc/loadavg
"""


def boot_of(section: Section | None) -> Boot:
    """Since when the machine runs: asked first, and needed by all others.

    Raises:
        Unreadable: it cannot be told.
    """
    if section is None:
        raise Unreadable("machine", "its answer was cut off before anything arrived")
    if not section.is_ok:
        raise Unreadable("machine", f"/proc and /sys cannot be read: {section.complaint()}")
    lines = section.stdout.split("\n")
    try:
        return Boot(id=lines[0].strip(), uptime_s=float(lines[1].split()[0]))
    except (ValueError, IndexError) as exc:
        raise Unreadable("machine", "its boot id and uptime make no sense") from exc


def read(look: Look) -> Answer:
    """Judge how often it was started."""
    lines = look.text(PROBE, what="uptime").split("\n")
    started_s = look.at_s - look.boot.uptime_s
    starts = [one for one in look.kept.get("starts") or () if isinstance(one, int | float)]
    if starts and not look.is_same_boot:
        starts.append(started_s)
    # The first look knows of one start, which proves nothing.
    starts = [one for one in starts or [started_s] if look.at_s - one < WEEK.total_seconds()]
    recent = [one for one in starts if look.at_s - one < _DAY_S]
    facts = {
        "uptime_d": round(look.boot.uptime_s / _DAY_S, 1),
        "load_1m": float(lines[2].split()[0]),
        "starts_in_a_day": len(recent),
    }
    finding = Finding(
        check="health.restarts",
        subject=look.subject(),
        severity=Severity.WARNING,
        summary=f"{look.machine.name} was started {len(recent)} times within a day",
        remedy=f"look at its power supply; on {look.machine.name}: journalctl -b -1 -n 50; "
        "last -x reboot",
        facts=facts,
    )
    return Answer(
        findings=(finding,) if len(recent) >= RESTARTS else (),
        facts=facts,
        kept={"starts": starts or [started_s]},
    )


PART = Part(name="boot", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
