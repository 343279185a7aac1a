"""ZFS and btrfs know which disk lied to them; nobody reads it.

Limits: of ZFS the state of each pool, its data errors and the age of its last scrub; of btrfs
the counts of errors of each device, from kernel 5.14 on.

Source: zpool-status(8); kernel, Documentation/ABI/testing/sysfs-fs-btrfs, error_stats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from opsd.hosts.health.counters import WEEK, Count, counted
from opsd.hosts.health.look import KILLED, Answer, Look, Part, Unknown
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity
from opsd.text import printable, shortened

STATES, STATUS = "health-pool", "health-zpool"
SCRUB_EVERY = timedelta(days=40)  # Debian and Ubuntu scrub once a month
_SCRUBBED = re.compile(r"^scrub repaired .* with \d+ errors on (.+)$")

_STATES = """\
[ -d /sys/fs ] || exit 9
for path in /proc/spl/kstat/zfs/*/state /sys/fs/btrfs/*/devinfo/*/error_stats
do
    [ ! -e "$path" ] || grep -H . "$path" || exit 9
done
exit 0
"""
# A pool that is suspended makes zpool wait for ever: it is known by its state.
_STATUS = """\
[ -d /proc/spl/kstat/zfs ] || exit 0
command -v zpool >/dev/null || { echo "zpool is not installed" >&2; exit 9; }
zpool status
"""


def read(look: Look) -> Answer:
    """Judge every pool and every btrfs."""
    lines = [line.partition(":")[::2] for line in look.text(STATES, what="pools").splitlines()]
    zfs = {path.split("/")[-2]: said for path, said in lines if path.startswith("/proc/spl/")}
    counts = _btrfs(lines, look)
    details, unknown = _details(look) if zfs else ({}, ())
    facts: dict[str, Fact] = {f"pool_{name}": printable(state) for name, state in zfs.items()}
    return Answer(
        findings=(
            *(one for name, state in zfs.items() for one in _state(name, state, look)),
            *(one for name, said in details.items() for one in _detail(name, said, look)),
            *(one for name, count in counts.items() for one in _errors(name, count, look)),
        ),
        facts={**facts, **{f"btrfs_{name}_errors": one.value for name, one in counts.items()}},
        kept={name: count.kept for name, count in counts.items()},
        unknown=unknown,
    )


def _details(look: Look) -> tuple[Mapping[str, Mapping[str, str]], tuple[Unknown, ...]]:
    """What `zpool status` says of each pool, or why it does not."""
    section = look.section(STATUS, what="zpool status")
    if section.status != 0:
        why = "it hangs" if section.status == KILLED else section.complaint()
        return {}, (Unknown(what="zpool status", why=why, fix="apt-get install zfsutils-linux"),)
    pools: dict[str, dict[str, str]] = {}
    name = ""
    for line in section.stdout.splitlines():
        key, found, value = line.strip().partition(": ")
        if found and key == "pool":
            name = value.strip()
        if found and name:
            pools.setdefault(name, {})[key] = value.strip()
    return pools, ()


def _btrfs(lines: list[tuple[str, str]], look: Look) -> dict[str, Count]:
    """Errors by file system and device, as ``0a1b2c3d/1``."""
    sums: dict[str, int] = {}
    for path, said in lines:
        parts, words = path.split("/"), said.split()
        if path.startswith("/sys/fs/btrfs/") and len(words) == len(("name", "count")):
            name = f"{parts[4][:8]}/{parts[6]}"
            sums[name] = sums.get(name, 0) + int(words[1])
    return {
        name: counted(look.kept.get(name), value, at_s=look.at_s, period=WEEK)
        for name, value in sums.items()
    }


def _state(name: str, state: str, look: Look) -> Iterator[Finding]:
    if state != "ONLINE":
        machine = look.machine.name
        yield Finding(
            check="health.pool_degraded",
            subject=look.subject(name),
            severity=Severity.CRITICAL,
            summary=printable(f"ZFS pool {name} of {machine} is {state}")[:120],
            remedy=f"on {machine}: zpool status -v {name}; replace the disk: zpool replace",
            facts={"state": printable(state)},
        )


def _detail(name: str, said: Mapping[str, str], look: Look) -> Iterator[Finding]:
    machine, errors = look.machine.name, said.get("errors", "")
    if errors and errors != "No known data errors":
        yield Finding(
            check="health.pool_errors",
            subject=look.subject(name),
            severity=Severity.CRITICAL,
            summary=shortened(printable(f"ZFS pool {name} of {machine}: {errors}"), 120),
            remedy=f"on {machine}: zpool status -v {name}; restore the files that it lists",
            facts={"errors": printable(errors)},
        )
    scrubbed = _SCRUBBED.match(said.get("scan", ""))
    at = _time(scrubbed[1]) if scrubbed else None
    if "none requested" in said.get("scan", "none requested") or (
        at is not None and look.at - at > SCRUB_EVERY
    ):
        days = None if at is None else (look.at - at).days
        when = "was never scrubbed" if days is None else f"was last scrubbed {days} days ago"
        yield Finding(
            check="health.scrub_overdue",
            subject=look.subject(name),
            severity=Severity.WARNING,
            summary=printable(f"ZFS pool {name} of {machine} {when}")[:120],
            remedy=f"on {machine}: sudo zpool scrub {name}; see that a timer does it monthly",
            facts={"scrub_age_d": days},
        )


def _time(text: str) -> datetime | None:
    """In the machine's time zone, taken for UTC: a day more or less says nothing here."""
    try:
        return datetime.strptime(" ".join(text.split()), "%a %b %d %H:%M:%S %Y").replace(
            tzinfo=UTC
        )
    except ValueError:
        return None


def _errors(name: str, count: Count, look: Look) -> Iterator[Finding]:
    if count.value:
        machine = look.machine.name
        more = f", {count.risen_by} of them within a week" if count.risen_by else ""
        yield Finding(
            check="health.pool_errors",
            subject=look.subject(name),
            severity=Severity.CRITICAL if count.risen_by else Severity.WARNING,
            summary=f"btrfs {name} of {machine} counts {count.value} errors{more}",
            remedy=f"on {machine}: sudo btrfs device stats / ; sudo btrfs scrub start /",
            facts={"errors": count.value, "risen_by": count.risen_by},
        )


PART = Part(
    name="pool",
    probes=(Probe(name=STATES, command=_STATES), Probe(name=STATUS, command=_STATUS)),
    read=read,
)
