"""Cards and soldered flash wear out: the reason why most Raspberry Pis stop.

Limits: eMMC tells its wear in steps of ten percent. An SD card tells nothing; that it dies is
seen in the kernel's log and in a file system that became read-only.

Source: JEDEC JESD84-B51, DEVICE_LIFE_TIME_EST and PRE_EOL_INFO.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsd.hosts.health.look import Answer, Look, Part, number, values
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity
from opsd.text import printable

PROBE = "health-flash"
WORN = 0x09  # 80 to 90 % of its life; 0x0B: all of it
USED_UP = 0x0B
RESERVE_LOW, RESERVE_GONE = 2, 3  # 80 %, 90 % of the spare blocks

_COMMAND = """\
[ -d /sys/block ] || exit 9
for path in /sys/block/mmcblk*/device
do
    [ -e "$path" ] || continue
    grep -sH . "$path/type" "$path/name" "$path/life_time" "$path/pre_eol_info"
done
exit 0
"""


def read(look: Look) -> Answer:
    """Judge the wear of each."""
    devices: dict[str, dict[str, str]] = {}
    for path, value in values(look.text(PROBE, what="flash")).items():
        _, _, _, device, _, key = (*path.split("/"), *("",) * 6)[:6]
        if "boot" not in device:  # parts of the same chip
            devices.setdefault(device, {})[key] = value
    facts: dict[str, Fact] = {}
    found: list[Finding] = []
    for device, said in devices.items():
        facts[f"flash_{device}"] = _in_a_word(said)
        found.extend(_findings(device, said, look))
    return Answer(findings=tuple(found), facts=facts)


def _wear(said: Mapping[str, str]) -> int:
    """The worse of the two kinds of cells, in tenths; 0: it does not say."""
    return max((number(word) or 0 for word in said.get("life_time", "").split()), default=0)


def _in_a_word(said: Mapping[str, str]) -> str:
    kind = printable(f"{said.get('type', 'card')} {said.get('name', '')}".strip())
    wear = _wear(said)
    if not wear:
        return f"{kind}, wear not measurable"
    return f"{kind}, {_percent(wear)} worn"


def _percent(wear: int) -> str:
    return "100 %" if wear >= USED_UP else f"up to {wear * 10} %"


def _findings(device: str, said: Mapping[str, str], look: Look) -> Iterator[Finding]:
    wear, reserve = _wear(said), number(said.get("pre_eol_info")) or 0
    if wear < WORN and reserve < RESERVE_LOW:
        return
    is_over = wear >= USED_UP or reserve >= RESERVE_GONE
    machine = look.machine.name
    used = "its spare blocks" if wear < WORN else "its life"
    much = "90 %" if reserve >= RESERVE_GONE else "80 %"
    share = much if wear < WORN else _percent(wear)
    yield Finding(
        check="health.flash_worn",
        subject=look.subject(device),
        severity=Severity.CRITICAL if is_over else Severity.WARNING,
        summary=f"flash {device} of {machine} has used {share} of {used}",
        remedy=f"copy {machine} to a new one: opsd backups list; the old one turns read-only",
        facts={
            "flash": _in_a_word(said),
            "life_time": said.get("life_time", ""),
            "pre_eol_info": said.get("pre_eol_info", ""),
        },
    )


PART = Part(name="flash", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
