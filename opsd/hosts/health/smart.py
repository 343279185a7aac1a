"""What smartctl says of one disk: is it dying, is it worn, or can it not tell?

Limits: only counts that mean lost sectors are judged, and the disk's own verdict; not the
hundred others whose meaning each vendor chooses. NVMe error-log entries are not: most are
commands that the disk does not know.

Source: smartctl(8) "EXIT STATUS"; NVM Express Base Specification, "SMART / Health Information".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opsd.hosts.health.counters import WEEK, Count, counted
from opsd.model import Fact
from opsd.text import printable

WORN_PERCENT = 80
# Bits of smartctl's exit status. Bit 2 (a command failed) comes with many USB bridges.
NOT_OPENED = 1 << 0 | 1 << 1
FAILING, BELOW_THRESHOLD = 1 << 3, 1 << 4
ONCE_BELOW_THRESHOLD, SELF_TEST_FAILED = 1 << 5, 1 << 7

_SECTORS = {5: "reallocated", 197: "pending", 198: "uncorrectable"}  # ATA attributes
_NVME_WARNINGS = {
    0: "its spare blocks are used up",
    1: "it is too hot",
    2: "it is unreliable",
    3: "it has become read-only",
    4: "its power-loss protection failed",
    5: "its persistent memory is read-only or unreliable",
}
_ASLEEP = re.compile(r"Device is in \w+(?: \(\w+\))? mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is known of one disk."""

    name: str  #: model and serial number; empty: it does not say
    is_asleep: bool = False
    not_measurable: str = ""  #: why it has nothing to say: that is proven
    unknown: str = ""  #: why it could not be asked
    fix: str = ""
    failing: tuple[str, ...] = ()  #: why it is about to die
    suspicious: tuple[str, ...] = ()  #: why it may be
    worn_percent: int | None = None  #: of what it was made to endure
    facts: Mapping[str, Fact] = field(default_factory=dict)
    counts: Mapping[str, Count] = field(default_factory=dict)


def read(document: Mapping[str, Any], kept: Mapping[str, Any], *, at_s: float) -> Health:
    """Judge the JSON of ``smartctl -j -i -H -A -l error -l selftest``.

    Args:
        document: as smartctl printed it.
        kept: what was kept of the counts of this disk.
        at_s: now, in seconds since 1970.
    """
    status = int(_get(document, "smartctl", "exit_status") or 0)
    named = (document.get("model_name"), document.get("serial_number"))
    name = " ".join(printable(str(one)) for one in named if one)
    nothing = _nothing_said(document, status)
    if nothing is not None:
        return Health(name=name, **nothing)
    counts = {
        key: counted(kept.get(key), value, at_s=at_s, period=WEEK)
        for key, value in _counts(document)
    }
    return Health(
        name=name,
        failing=(*_verdicts(document, status), *_rising(counts)),
        suspicious=(*_doubts(status), *_lost(counts)),
        worn_percent=_worn(document),
        facts=_facts(document, counts),
        counts=counts,
    )


def _get(document: Mapping[str, Any], *path: str) -> Any:
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _nothing_said(document: Mapping[str, Any], status: int) -> dict[str, Any] | None:
    """Why there is no judgement, as fields of `Health`; None when there can be one."""
    messages = _get(document, "smartctl", "messages") or ()
    said = "; ".join(str(_get(one, "string")) for one in messages)
    mode = str(_get(document, "power_mode", "name") or "")
    if _ASLEEP.search(said) or (status & NOT_OPENED and mode in {"STANDBY", "SLEEP"}):
        return {"is_asleep": True}
    if "Unable to detect device type" in said and not document.get("device"):
        return {"not_measurable": "virtual, or not a disk that has SMART"}
    if _get(document, "smart_support", "available") is False:
        return {"not_measurable": "the disk, or its USB bridge, has no SMART"}
    if _get(document, "smart_support", "enabled") is False:
        device = _get(document, "device", "name")
        return {"unknown": "SMART is switched off", "fix": f"smartctl -s on {device}"}
    has_verdict = _get(document, "smart_status", "passed") is not None
    if not has_verdict and not list(_counts(document)):
        return {"unknown": said or f"smartctl ended with {status} and said nothing"}
    return None


def _verdicts(document: Mapping[str, Any], status: int) -> Iterator[str]:
    """Why the disk itself says that it dies."""
    if _get(document, "smart_status", "passed") is False or status & FAILING:
        yield "it says itself that it is failing"
    if status & BELOW_THRESHOLD:
        names = [
            str(one.get("name")) for one in _table(document) if one.get("when_failed") == "now"
        ]
        yield f"below its threshold: {', '.join(names) or 'an attribute'}"
    warning = int(_get(document, "nvme_smart_health_information_log", "critical_warning") or 0)
    for bit, text in _NVME_WARNINGS.items():
        if warning & 1 << bit:
            yield text


def _rising(counts: Mapping[str, Count]) -> Iterator[str]:
    for key, count in counts.items():
        if count.risen_by:
            yield f"{count.risen_by} more {key} within a week ({count.value})"


def _doubts(status: int) -> Iterator[str]:
    if status & ONCE_BELOW_THRESHOLD:
        yield "an attribute was below its threshold once"
    if status & SELF_TEST_FAILED:
        yield "its last self-test failed"


def _lost(counts: Mapping[str, Count]) -> Iterator[str]:
    for key, count in counts.items():
        # Old errors of a cable stay in the log for ever: only new ones mean something.
        if count.value and key != "logged errors":
            yield f"{count.value} {key}"


def _counts(document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Counts of lost data, by what they count."""
    for one in _table(document):
        what = _SECTORS.get(int(one.get("id", 0)))
        raw = re.match(r"\d+", str(_get(one, "raw", "string") or ""))
        if what and raw:
            yield f"{what} sectors", int(raw[0])
    logged = _get(document, "ata_smart_error_log", "summary", "count")
    media = _get(document, "nvme_smart_health_information_log", "media_errors")
    defects = document.get("scsi_grown_defect_list")
    for what, value in (
        ("logged errors", logged),
        ("media errors", media),
        ("grown defects", defects),
    ):
        if isinstance(value, int):
            yield what, value


def _table(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    table = _get(document, "ata_smart_attributes", "table")
    return [one for one in table if isinstance(one, Mapping)] if isinstance(table, list) else []


def _worn(document: Mapping[str, Any]) -> int | None:
    for path in (
        ("nvme_smart_health_information_log", "percentage_used"),
        ("endurance_used", "current_percent"),
        ("scsi_percentage_used_endurance_indicator",),
    ):
        value = _get(document, *path)
        if isinstance(value, int):
            return value
    return None


def _facts(document: Mapping[str, Any], counts: Mapping[str, Count]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "temperature_c": _get(document, "temperature", "current"),
        "powered_on_h": _get(document, "power_on_time", "hours"),
        "spare_percent": _get(document, "nvme_smart_health_information_log", "available_spare"),
    }
    told = {key: value for key, value in facts.items() if isinstance(value, int)}
    return {**told, **{key.replace(" ", "_"): count.value for key, count in counts.items()}}
