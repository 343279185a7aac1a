"""Which channels bring messages to people, as findings of opsd about itself. Pure.

A phone service that is down is told through the others. When none is left nobody can be told;
then it stands in `opsd status`, the heartbeat stops, and what was missed is told afterwards.

Limits: a channel is known by what it did with real messages; one that nothing was sent to is
taken to be as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from opsd.model import Finding, OpenFinding, Severity
from opsd.text import shortened

CHANNEL_DOWN = "alerts.channel_down"
NOBODY_REACHED = "alerts.nobody_reached"
ALL = "channels"  # subject of what concerns all of them
STEADY_FOR = timedelta(minutes=5)  # a service that is restarted is not worth a message
_SUMMARY_CHARACTERS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one target did in one pass over the outbox."""

    target: str
    accepted: int  #: messages that it took
    error: str  #: why it took none; empty when it did
    waiting: int = 0  #: messages that it has not taken
    alone: bool = False  #: one of them is critical, and nobody else took it either


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to tell the state."""

    findings: tuple[Finding, ...]
    seen: tuple[str, ...]  #: subjects that are proven to be well, or are no more


def judge(
    asked: Sequence[Asked],
    *,
    targets: Mapping[str, Severity],
    open_before: Iterable[OpenFinding],
) -> Verdict:
    """Say which channels are down.

    Args:
        asked: what the targets did that were asked.
        targets: all that are configured, with the severity from which on they want messages.
        open_before: what opsd has found about itself.
    """
    before = {
        entry.finding.subject for entry in open_before if entry.finding.check == CHANNEL_DOWN
    }
    well = {one.target for one in asked if one.accepted}
    refusing = {one.target: one for one in asked if not one.accepted}
    down = {name for name in targets if name in refusing or _subject(name) in before} - well
    living = [severity for name, severity in targets.items() if name not in down]
    is_mute = bool(targets) and not living
    findings = [
        _finding(refusing[name], living=living, is_mute=is_mute)
        for name in sorted(down & refusing.keys())
    ]
    if is_mute:
        findings.append(_nobody_reached(down))
    gone = before - {_subject(name) for name in targets}
    seen = [*map(_subject, sorted(well)), *sorted(gone), *([] if is_mute else [ALL])]
    return Verdict(findings=tuple(findings), seen=tuple(seen))


def proven_well(targets: Iterable[str], *, open_before: Iterable[OpenFinding]) -> tuple[str, ...]:
    """Subjects of open findings that are over, because these targets took a message."""
    well = {_subject(name) for name in targets}
    over = {*well, ALL} if well else set[str]()
    return tuple(entry.finding.subject for entry in open_before if entry.finding.subject in over)


def _finding(asked: Asked, *, living: Sequence[Severity], is_mute: bool) -> Finding:
    # Only what is critical reaches those that want nothing else, or wakes somebody at night.
    is_urgent = asked.alone or not any(severity <= Severity.WARNING for severity in living)
    return Finding(
        check=CHANNEL_DOWN,
        subject=_subject(asked.target),
        severity=Severity.CRITICAL if is_urgent else Severity.WARNING,
        summary=shortened(f"{asked.target} takes no messages", _SUMMARY_CHARACTERS),
        remedy=f"opsd notify-test --target {asked.target}",
        facts={"error": asked.error, "waiting": asked.waiting},
        cause=ALL if is_mute else "",
        steady_for=STEADY_FOR,
    )


def _nobody_reached(down: Iterable[str]) -> Finding:
    return Finding(
        check=NOBODY_REACHED,
        subject=ALL,
        severity=Severity.CRITICAL,
        summary="no target takes messages: nobody is told anything",
        remedy="opsd notify-test",
        facts={"targets": ", ".join(sorted(down))},
        steady_for=STEADY_FOR,
    )


def _subject(target: str) -> str:
    return f"channel/{target}"
