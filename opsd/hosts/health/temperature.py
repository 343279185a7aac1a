"""A machine that is too hot slows down, then stops, and ages fast.

Each sensor is held against its own limits where it names them, else against those of the
configuration. A finding ends five degrees below the limit that made it.

Limits: the temperature of a SATA disk is left to SMART: asking for it more often keeps some of
them from falling asleep. Sensors that say nonsense (below 1 or above 150 °C) are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from opsd.hosts.health.look import STEADY, Answer, Look, Part, Thresholds, number, values
from opsd.hosts.script import Probe
from opsd.model import Finding, Severity
from opsd.text import printable

PROBE = "health-temperature"
BACK_C = 5.0  # below its limit a reading must fall
SANE_C = (1.0, 150.0)
BEFORE_CRITICAL_C = 10.0  # where a sensor warns that names only where it is critical
# Processors that are made to run hotter than a Raspberry Pi, and do not say where the end is.
_HOT_BY_NATURE = {"coretemp", "k10temp", "zenpower", "x86_pkg_temp"}
_HOTTER_C = 12.0

_COMMAND = """\
[ -d /sys/class ] || exit 9
for path in /sys/class/hwmon/hwmon* /sys/class/thermal/thermal_zone*
do
    case $(cat "$path/name" 2>/dev/null) in drivetemp) continue;; esac
    grep -sH . "$path/name" "$path/type" "$path/temp" "$path"/temp*_*
done
exit 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    sensor: str  #: e.g. ``nvme Composite``
    now_c: float
    hot_c: float
    too_hot_c: float


def read(look: Look) -> Answer:
    """Judge the sensor that is nearest to its limit."""
    readings = list(_readings(look.text(PROBE, what="temperature"), look.thresholds))
    if not readings:
        return Answer(facts={"temperature": "not measurable: no sensor"})
    worst = max(readings, key=lambda one: one.now_c - one.hot_c)
    before = number(str(look.kept.get("level", 0))) or 0
    level = _level(worst, before)
    return Answer(
        findings=tuple(_findings(worst, Severity(level), look)),
        facts={"temperature_c": round(worst.now_c, 1)},
        kept={"level": level},
    )


def _level(reading: _Reading, before: int) -> int:
    """How bad it is; what it was before eases only well below the limit."""
    for level, limit in ((2, reading.too_hot_c), (1, reading.hot_c)):
        if reading.now_c >= (limit - BACK_C if before >= level else limit):
            return level
    return 0


def _readings(text: str, thresholds: Thresholds) -> Iterator[_Reading]:
    devices: dict[str, dict[str, str]] = {}
    for path, value in values(text).items():
        device, _, key = path.rpartition("/")
        devices.setdefault(device, {})[key] = value
    monitored = [read for said in devices.values() for read in _sensors(said, thresholds)]
    zones = [read for said in devices.values() for read in _zone(said, thresholds)]
    # Most zones are known to hwmon too, by another name.
    yield from monitored or zones


def _sensors(said: dict[str, str], thresholds: Thresholds) -> Iterator[_Reading]:
    for key in said:
        index = key.removesuffix("_input")
        now_c = _celsius(said.get(key))
        if key.endswith("_input") and now_c is not None:
            label = said.get(f"{index}_label", "")
            critical_c = _celsius(said.get(f"{index}_crit"))
            if said.get("name") == "nvme" and critical_c is None:
                continue  # deep inside of the disk, and hotter than what its limits are for
            yield _reading(
                said.get("name", ""),
                label,
                now_c=now_c,
                most_c=_celsius(said.get(f"{index}_max")),
                critical_c=critical_c,
                thresholds=thresholds,
            )


def _zone(said: dict[str, str], thresholds: Thresholds) -> Iterator[_Reading]:
    now_c = _celsius(said.get("temp"))
    if now_c is not None:
        yield _reading(said.get("type", ""), "", now_c=now_c, thresholds=thresholds)


def _reading(
    name: str,
    label: str,
    *,
    now_c: float,
    thresholds: Thresholds,
    most_c: float | None = None,
    critical_c: float | None = None,
) -> _Reading:
    more = _HOTTER_C if name in _HOT_BY_NATURE else 0.0
    hot_c, too_hot_c = thresholds.hot_c + more, thresholds.too_hot_c + more
    if critical_c is not None:
        too_hot_c = critical_c
        hot_c = critical_c - BEFORE_CRITICAL_C
        if most_c is not None:
            hot_c = min(most_c, critical_c - 1) if name == "nvme" else hot_c
    return _Reading(
        sensor=printable(f"{name} {label}".strip()),
        now_c=now_c,
        hot_c=hot_c,
        too_hot_c=too_hot_c,
    )


def _celsius(text: str | None) -> float | None:
    """From thousandths of a degree; None for none, and for nonsense."""
    value = number(text)
    low, high = SANE_C
    return value / 1000 if value is not None and low <= value / 1000 <= high else None


def _findings(worst: _Reading, severity: Severity, look: Look) -> Iterator[Finding]:
    if severity is Severity.INFO:
        return
    machine = look.machine.name
    limit = worst.too_hot_c if severity is Severity.CRITICAL else worst.hot_c
    yield Finding(
        check="health.hot",
        subject=look.subject(),
        severity=severity,
        summary=f"{machine} is {worst.now_c:.0f} °C hot ({worst.sensor}; limit {limit:.0f})"[:120],
        remedy=f"look at the fan, the dust and the load of {machine}: ssh {machine} top",
        facts={
            "sensor": worst.sensor,
            "temperature_c": round(worst.now_c, 1),
            "hot_c": worst.hot_c,
            "too_hot_c": worst.too_hot_c,
        },
        steady_for=STEADY,
    )


PART = Part(name="temperature", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
