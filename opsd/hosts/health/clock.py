"""A clock that is wrong: certificates not yet valid, etcd unhappy, logs that lie.

The machine's clock is held against opsd's own at each visit, which is exact to a second, and
the machine is asked whether something keeps its clock right.

When most of at least three machines agree with each other and not with opsd, it is opsd's clock
that is wrong: one finding, from which theirs follow.

Limits: with fewer machines the wrong one is blamed. Where neither chrony nor systemd answers,
only the comparison is left; the table says so.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterator
from datetime import timedelta

from opsd.hosts.health.look import STEADY, Answer, Look, Part, Unknown
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity

PROBE = "health-clock"
OFF_S = 2.0  # from opsd's clock
FAR_OFF_S = 5.0
OWN = "host/clock"  # subject of opsd's own
FEWEST = 3  # machines that can outvote opsd
CHRONY_OFF_S = 0.5  # from the time servers, as chrony measures it
UNSET_FOR = timedelta(hours=1)  # after a start it takes a while
_OFFSET_FIELD, _LEAP_FIELD = 4, 13  # of `chronyc -c tracking`, from 0

_COMMAND = """\
if command -v chronyc >/dev/null && chrony=$(chronyc -c -n tracking 2>/dev/null)
then echo "chrony=$chrony"
elif command -v timedatectl >/dev/null && synced=$(timedatectl show -p NTPSynchronized 2>/dev/null)
then echo "systemd=${synced#*=}"
fi
exit 0
"""


def read(look: Look) -> Answer:
    """Judge the clock."""
    said = look.text(PROBE, what="clock").strip()
    keeper, _, value = said.partition("=")
    is_kept = _is_kept(keeper, value)
    measured_s = _measured_s(keeper, value)
    facts: dict[str, Fact] = {"clock": _in_a_word(keeper, is_kept=is_kept)}
    if look.clock_offset_s is not None:
        facts["clock_offset_s"] = round(look.clock_offset_s)
    unknown: tuple[Unknown, ...] = ()
    if look.clock_offset_s is None and is_kept is None:
        why = "nothing says whether it is right, and it could not be compared"
        unknown = (Unknown(what="clock", why=why, fix="apt-get install chrony"),)
    return Answer(
        findings=(
            *_off(look, measured_s=measured_s, is_kept=is_kept, facts=facts),
            *_unset(look, is_kept=is_kept, facts=facts),
        ),
        facts=facts,
        unknown=unknown,
    )


def _is_kept(keeper: str, value: str) -> bool | None:
    """Whether something keeps it right; None: nobody says."""
    if keeper == "systemd":
        return {"yes": True, "no": False}.get(value)
    fields = value.split(",")
    if keeper == "chrony" and len(fields) > _LEAP_FIELD:
        return fields[_LEAP_FIELD] != "Not synchronised"
    return None


def _measured_s(keeper: str, value: str) -> float | None:
    fields = value.split(",")
    is_number = keeper == "chrony" and len(fields) > _LEAP_FIELD
    match = re.fullmatch(r"-?\d+\.\d+", fields[_OFFSET_FIELD]) if is_number else None
    # What chrony prints is the correction: more than zero for a clock that is behind.
    return -float(match[0]) if match else None


def _in_a_word(keeper: str, *, is_kept: bool | None) -> str:
    if is_kept is None:
        return "not said whether it is kept right"
    return f"kept right by {keeper}" if is_kept else f"not kept right ({keeper})"


def _off(
    look: Look, *, measured_s: float | None, is_kept: bool | None, facts: dict[str, Fact]
) -> Iterator[Finding]:
    offset_s = look.clock_offset_s or 0.0
    is_off = abs(offset_s) > OFF_S
    if not is_off and abs(measured_s or 0.0) > CHRONY_OFF_S:
        offset_s, is_off = measured_s or 0.0, True
    if not is_off:
        return
    machine = look.machine.name
    yield Finding(
        check="health.clock_off",
        subject=look.subject(),
        severity=_severity(offset_s),
        summary=f"the clock of {machine} is {_readable(offset_s)}",
        remedy=f"on {machine}: timedatectl timesync-status, or chronyc sources -v"
        + ("; is opsd's own clock right? date" if is_kept else ""),
        facts={**facts, "offset_s": round(offset_s, 1)},
        cause=OWN,
        steady_for=STEADY,
    )


def own_clock(offsets_s: Collection[float]) -> Finding | None:
    """Opsd's own clock, if most machines agree that it is wrong; `offsets_s`: of theirs."""
    if len(offsets_s) < FEWEST:
        return None
    middle_s = statistics.median(offsets_s)
    agree = sum(abs(one - middle_s) <= OFF_S for one in offsets_s)
    if abs(middle_s) <= OFF_S or 2 * agree <= len(offsets_s):
        return None
    return Finding(
        check="health.own_clock_off",
        subject=OWN,
        severity=_severity(middle_s),
        summary=f"opsd's own clock is {_readable(-middle_s)}, as {agree} of "
        f"{len(offsets_s)} machines agree",
        remedy="where opsd runs: timedatectl timesync-status, or chronyc sources -v",
        facts={"offset_s": round(-middle_s, 1), "agree": agree, "machines": len(offsets_s)},
        steady_for=STEADY,
    )


def _severity(offset_s: float) -> Severity:
    return Severity.CRITICAL if abs(offset_s) > FAR_OFF_S else Severity.WARNING


def _readable(offset_s: float) -> str:
    way, seconds = "ahead" if offset_s > 0 else "behind", abs(offset_s)
    for unit_s, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit} {way}"
    return f"{seconds:.1f} s {way}"


def _unset(look: Look, *, is_kept: bool | None, facts: dict[str, Fact]) -> Iterator[Finding]:
    if is_kept is False:
        machine = look.machine.name
        yield Finding(
            check="health.clock_unset",
            subject=look.subject(),
            severity=Severity.WARNING,
            summary=f"nothing keeps the clock of {machine} right: no time server answers it",
            remedy=f"on {machine}: timedatectl set-ntp true; timedatectl timesync-status, or "
            "chronyc sources -v",
            facts=facts,
            steady_for=UNSET_FOR,
        )


PART = Part(name="clock", probes=(Probe(name=PROBE, command=_COMMAND, within_s=5.0),), read=read)
