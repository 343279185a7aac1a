"""Which open findings somebody has taken in hand, and which nobody wants to hear of now. Pure.

The same answer for the screen, the report and the list of silences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from opsd.alerts.gates import fits
from opsd.incidents import Acknowledgement, AlertState, Incident, Silence
from opsd.model import Finding, OpenFinding

Key = tuple[str, str, str]  # job, check, subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What people have said about an open finding."""

    acknowledged: Acknowledgement | None = None
    silence: Silence | None = None  #: the one that holds longest


def marks(
    alerts: AlertState, findings: Iterable[OpenFinding], *, now: datetime
) -> Mapping[Key, Mark]:
    """The marks of those of `findings` that have any, by job, check and subject."""
    incidents = {incident.key: incident for incident in alerts.incidents}
    standing = sorted(in_force(alerts, now), key=lambda silence: silence.until)
    found: dict[Key, Mark] = {}
    for entry in findings:
        seen = _acknowledged(incidents.get(key_of(entry)), entry)
        silences = [silence for silence in standing if hides(silence, entry.finding)]
        mark = Mark(
            acknowledged=seen,
            silence=silences[-1] if silences else None,
        )
        if mark != Mark():
            found[key_of(entry)] = mark
    return found


def in_force(alerts: AlertState, now: datetime) -> tuple[Silence, ...]:
    """The silences that have not run out."""
    return tuple(silence for silence in alerts.silences if silence.until > now)


def hides(silence: Silence, finding: Finding) -> bool:
    """Whether `finding` is not told for `silence`."""
    return fits(silence.check, finding.check) and fits(silence.subject, finding.subject)


def _acknowledged(incident: Incident | None, entry: OpenFinding) -> Acknowledgement | None:
    """Not what was said of the same finding when it was open before."""
    if incident is None or incident.closed_at or incident.opened_at != entry.opened_at:
        return None
    return incident.acknowledged


def key_of(entry: OpenFinding) -> Key:
    """The identity of an open finding among those of all jobs."""
    return (entry.job, *entry.finding.key)
