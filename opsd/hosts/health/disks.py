"""Disks that die announce it, to whoever asks: SMART of every disk, at most once an hour.

A disk that sleeps is left asleep. A virtual disk, and a stick without SMART, have nothing to
say; that is stated in the table and no finding.

Limits: disks behind a hardware RAID controller are not reached. Needs smartmontools and root.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opsd.hosts.health import smart
from opsd.hosts.health.look import KILLED, Answer, Look, Part, Unknown, Unreadable
from opsd.hosts.script import Probe, Section
from opsd.model import Fact, Finding, Severity
from opsd.text import printable, shortened

PROBE = "health-disk"
WITHIN_S = 45.0
INSTALL = "apt-get install smartmontools"
#: What is run as root; for each disk, and once more with `-d sat` behind some USB bridges.
ROOT = "smartctl -n standby -j -i -H -A -l error -l selftest /dev/sda"

# Each disk is a line `< NAME`, what smartctl prints, and a line `> STATUS`. Disks of 0 bytes are
# card readers without a card. A disk of an iSCSI session hangs with its server. A USB bridge
# that smartctl does not know is asked as SATA.
_COMMAND = """\
for path in /sys/class/nvme/nvme* /sys/block/sd* /sys/block/vd* /sys/block/xvd* /sys/block/hd*
do
    [ -e "$path" ] || continue
    name=${path##*/}
    [ "$(cat "$path/size" 2>/dev/null)" = 0 ] && continue
    echo "< $name"
    case "$(readlink -f "$path/device") $(cat "$path/device/model" 2>/dev/null)" in
        */virtio*|*/vbd-*|*VMBUS*|*QEMU*|*VBOX*|*VMware*|*[Vv]irtual*|*VIRTUAL*|*/session[0-9]*)
            echo "> virtual"
            continue;;
    esac
    command -v smartctl >/dev/null || { echo "> missing"; continue; }
    say=$($root smartctl -n standby -j -i -H -A -l error -l selftest "/dev/$name"); code=$?
    case $say in *"USB bridge"*)
        say=$($root smartctl -n standby -j -i -H -A -l error -l selftest -d sat "/dev/$name")
        code=$?;;
    esac
    printf '%s\\n' "$say"
    echo "> $code"
done
"""


@dataclass(frozen=True, slots=True)
class _Asked:
    """One disk, and what came back."""

    name: str
    text: str
    end: str  #: exit status of smartctl, or why it was not run; empty: it never came back


def read(look: Look) -> Answer:
    """Judge every disk."""
    section = look.section(PROBE, what="disks")
    if section.status not in (0, KILLED):
        raise Unreadable("disks", section.complaint())
    found: list[Finding] = []
    facts: dict[str, Fact] = {}
    kept: dict[str, Any] = {}
    unknown, unseen = [], []
    for asked in _asked(section.stdout):
        health = _health(asked, look, section)
        facts[f"disk_{asked.name}"] = _in_a_word(health)
        if health.unknown:
            unknown.append(Unknown(what=f"disk {asked.name}", why=health.unknown, fix=health.fix))
        if health.is_asleep:
            unseen.append(look.subject(asked.name))
        found.extend(_findings(asked.name, health, look))
        kept[health.name or asked.name] = {key: count.kept for key, count in health.counts.items()}
    # What a disk that sleeps, or is unplugged, has counted is needed when it is back.
    return Answer(
        findings=tuple(found),
        facts=facts,
        kept={**look.kept, **{name: counts for name, counts in kept.items() if counts}},
        unknown=tuple(unknown),
        unseen=tuple(unseen),
    )


def _asked(text: str) -> Iterator[_Asked]:
    name, lines = "", list[str]()
    for line in text.splitlines():
        if line.startswith("< "):
            name, lines = line[2:].strip(), []
        elif line.startswith("> "):
            yield _Asked(name, "\n".join(lines), line[2:].strip())
            name = ""
        else:
            lines.append(line)
    if name:
        yield _Asked(name, "\n".join(lines), "")


def _health(asked: _Asked, look: Look, section: Section) -> smart.Health:
    name = asked.name
    if asked.end == "virtual":
        return smart.Health(name=name, not_measurable="virtual")
    if asked.end == "missing":
        return smart.Health(name=name, unknown="smartctl is not installed", fix=INSTALL)
    if not asked.end:
        why = f"it did not answer within {WITHIN_S:g} s"
        return smart.Health(name=name, unknown=why, fix=f"dmesg | grep {name}")
    try:
        document = json.loads(asked.text)
    except ValueError:
        document = None
    if not isinstance(document, Mapping):
        return smart.Health(name=name, unknown=_complaint(asked, section), fix=_right(section))
    return smart.read(document, _counts_of(document, look, name), at_s=look.at_s)


def _complaint(asked: _Asked, section: Section) -> str:
    said = printable(section.complaint()) if section.stderr.strip() else "no JSON"
    return f"smartctl ended with {asked.end}: {said}"


def _right(section: Section) -> str:
    return (
        "sudoers: smartctl without a password (docs/nodes.md)"
        if "sudo: " in section.stderr
        else ""
    )


def _counts_of(document: Mapping[str, Any], look: Look, name: str) -> Mapping[str, Any]:
    """What was kept of this very disk, whatever it is called after this start."""
    kept = look.kept.get(smart.read(document, {}, at_s=look.at_s).name or name)
    return kept if isinstance(kept, Mapping) else {}


def _in_a_word(health: smart.Health) -> str:
    worn = "" if health.worn_percent is None else f", {health.worn_percent} % worn"
    if health.not_measurable:
        return f"not measurable: {health.not_measurable}"
    if health.unknown:
        return "unknown"
    if health.is_asleep:
        return "asleep"
    if health.failing:
        return f"failing{worn}"
    return f"{'suspicious' if health.suspicious else 'ok'}{worn}"


def _findings(name: str, health: smart.Health, look: Look) -> Iterator[Finding]:
    machine = look.machine.name
    facts = {"disk": health.name, **health.facts}
    reasons = (*health.failing, *health.suspicious)
    if reasons:
        verdict = "is failing" if health.failing else "may be failing"
        yield Finding(
            check="health.disk_failing",
            subject=look.subject(name),
            severity=Severity.CRITICAL if health.failing else Severity.WARNING,
            summary=shortened(printable(f"disk {name} of {machine} {verdict}: {reasons[0]}"), 120),
            remedy=f"on {machine}: sudo smartctl -x /dev/{name}; see that its data has a fresh "
            "backup, then replace the disk",
            facts={"reasons": printable("; ".join(reasons)), **facts},
        )
    if health.worn_percent is not None and health.worn_percent > smart.WORN_PERCENT:
        yield Finding(
            check="health.disk_worn",
            subject=look.subject(name),
            severity=Severity.WARNING,
            summary=f"disk {name} of {machine} has used {health.worn_percent} % of its life",
            remedy=f"order a new disk; on {machine}: sudo smartctl -A /dev/{name}",
            facts={**facts, "worn_percent": health.worn_percent},
        )


PART = Part(
    name="disk",
    probes=(Probe(name=PROBE, command=_COMMAND, within_s=WITHIN_S),),
    read=read,
    is_slow=True,
)
