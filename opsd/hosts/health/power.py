"""A Raspberry Pi whose power supply is too weak corrupts its card, and slows down when hot.

Limits: what happened since the last start is known only from vcgencmd, which needs the group
video. Without it the kernel's sensor tells under-voltage as it is now. The firmware's file in
/sys is not read: reading it clears what happened.

Source: Raspberry Pi documentation, "vcgencmd get_throttled"; kernel raspberrypi-hwmon.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from opsd.hosts.health.look import STEADY, Answer, Look, Part, Unknown
from opsd.hosts.script import Probe
from opsd.model import Finding, Severity

PROBE = "health-power"
# Bits of get_throttled: now, and since the last start.
UNDER_VOLTAGE, UNDER_VOLTAGE_ONCE = 1 << 0, 1 << 16
SLOWED, SLOWED_ONCE = 0b1110, 0b1110 << 16  # capped, throttled, soft temperature limit

_COMMAND = """\
[ -d /sys/class ] && [ -r /proc/version ] || exit 9
model=
[ -e /proc/device-tree/model ] && model=$(tr -d '\\000' </proc/device-tree/model)
echo "model=$model"
case $model in *Raspberry*) ;; *) exit 0;; esac
for path in /sys/class/hwmon/hwmon*
do
    [ "$(cat "$path/name" 2>/dev/null)" = rpi_volt ] || continue
    echo "alarm=$(cat "$path/in0_lcrit_alarm")"
done
PATH=$PATH:/opt/vc/bin
command -v vcgencmd >/dev/null || { echo "throttled=missing"; exit 0; }
vcgencmd get_throttled </dev/null || echo "throttled=refused"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Power:
    model: str  #: of the board
    bits: int | None  #: of get_throttled; None: not known
    is_low: bool | None  #: the voltage, now; None: not known
    throttled: str  #: as printed

    @property
    def was_low(self) -> bool:
        return bool((self.bits or 0) & UNDER_VOLTAGE_ONCE)


def read(look: Look) -> Answer:
    """Judge the supply of a Raspberry Pi; any other machine has nothing to read."""
    power = _parsed(look.text(PROBE, what="power supply"))
    if "Raspberry" not in power.model:
        return Answer()
    unknown = []
    if power.is_low is None or power.throttled == "refused":
        unknown.append(_unknown(look, power))
    return Answer(
        findings=tuple(_findings(look, power)),
        facts={"power": _in_a_word(power), "model": power.model},
        unknown=tuple(unknown),
    )


def _parsed(text: str) -> _Power:
    said = dict(line.partition("=")[::2] for line in text.splitlines())
    throttled = said.get("throttled", "")
    bits = int(throttled, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", throttled) else None
    alarm = said.get("alarm")
    is_low = None if bits is None else bool(bits & UNDER_VOLTAGE)
    if alarm in {"0", "1"}:
        is_low = bool(is_low) or alarm == "1"
    return _Power(model=said.get("model", ""), bits=bits, is_low=is_low, throttled=throttled)


def _unknown(look: Look, power: _Power) -> Unknown:
    if power.throttled == "missing":
        return Unknown(
            what="power supply",
            why="neither vcgencmd nor the kernel's sensor rpi_volt is there",
            fix="modprobe raspberrypi-hwmon, or install vcgencmd",
        )
    user = look.machine.user or "opsd"
    return Unknown(
        what="power supply",
        why="vcgencmd may not ask the firmware",
        fix=f"on {look.machine.name}: usermod -aG video {user}",
    )


def _in_a_word(power: _Power) -> str:
    if power.is_low is None:
        return "unknown"
    if power.is_low:
        return "under-voltage now"
    return "under-voltage since the last start" if power.was_low else "ok"


def _findings(look: Look, power: _Power) -> Iterator[Finding]:
    machine = look.machine.name
    facts = {"model": power.model, "throttled": power.throttled}
    if power.is_low or power.was_low:
        when = "is too low" if power.is_low else "was too low at times since its last start"
        yield Finding(
            check="health.undervoltage",
            subject=look.subject(),
            severity=Severity.CRITICAL if power.is_low else Severity.WARNING,
            summary=f"the supply voltage of {machine} {when}",
            remedy="replace its power supply and cable, take off USB disks without a supply of "
            "their own; then restart it to clear this",
            facts=facts,
            steady_for=STEADY,
        )
    elif (power.bits or 0) & SLOWED:
        yield Finding(
            check="health.throttled",
            subject=look.subject(),
            severity=Severity.WARNING,
            summary=f"{machine} slows itself down to stay cool",
            remedy=f"cool {machine}; on it: vcgencmd get_throttled; vcgencmd measure_temp",
            facts=facts,
            cause=f"{look.machine.subject}/temperature",
            steady_for=STEADY,
        )


PART = Part(name="power", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
