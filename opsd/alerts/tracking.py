"""Bring what is known of each incident up to what is open now, before anybody is told.

Pure. Counts comebacks, finds out which incident follows from which, and forgets what is over.

Limits: a change that came and went between two looks was never seen. The state looks in the
transaction of every change, so there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from opsd.alerts import gates
from opsd.alerts.rules import Policy
from opsd.incidents import AlertState, Incident
from opsd.model import OpenFinding, Severity

Key = tuple[str, str, str]

FLAP_WINDOW = timedelta(hours=1)  # what comes back within it comes and goes
CAUSE_GRACE = timedelta(minutes=15)  # what outlives its cause for so long is told by itself
CLOCK_SKEW = timedelta(minutes=1)  # what lies further in the future was a wrong clock

_TIMES = (
    "closed_at",
    "changed_at",
    "fell_at",
    "first_told_at",
    "told_at",
    "escalated_at",
    "freed_at",
)
_times = attrgetter(*_TIMES)


def tracked(
    alerts: AlertState, open_findings: Sequence[OpenFinding], now: datetime, *, policy: Policy
) -> AlertState:
    """What is known after a look at `open_findings`, also what need not be known any more."""
    alerts = _without_future(alerts, now)
    incidents = _updated(alerts.incidents, open_findings, now)
    _follow(incidents, now)
    alerts = replace(
        alerts,
        silences=tuple(silence for silence in alerts.silences if now < silence.until),
    )
    muted = muted_keys(alerts, incidents, now, policy=policy)
    taken_back = {key for key in muted if incidents[key].noted != incidents[key].told}
    for key, gate in muted.items():
        incidents[key] = _muted(incidents[key], gate)
        if incidents[key].level is not None or incidents[key].noted is not None:
            taken_back.add(key)
    events = alerts.events
    if taken_back and events:
        events = tuple(one for one in events if one.key not in taken_back)
    return replace(alerts, incidents=tuple(incidents.values()), events=events)


def kept(incidents: Mapping[Key, Incident], now: datetime) -> tuple[Incident, ...]:
    """Those that are open, or over and still needed, in the order of their keys."""
    return tuple(incidents[key] for key in sorted(incidents) if _is_needed(incidents[key], now))


def muted_keys(
    alerts: AlertState, incidents: Mapping[Key, Incident], now: datetime, *, policy: Policy
) -> dict[Key, str]:
    """Which incidents must not be told now, and what keeps them."""
    windows = tuple(gates.open_windows(policy, now))
    if not (windows or alerts.silences):
        return {}
    muting = {
        key: gates.muted_by(one.finding, silences=alerts.silences, windows=windows)
        for key, one in incidents.items()
    }
    return {key: gate for key, gate in muting.items() if gate}


def is_ripe(incident: Incident, now: datetime) -> bool:
    """Whether the incident differs from what was noted, and has for long enough."""
    level, noted = incident.level, incident.noted
    if level == noted:
        return False
    is_down = _rank(level) < _rank(noted)
    if not is_down and (incident.follows or (noted is None and _is_in_grace(incident, now))):
        return False
    steady_for = incident.finding.steady_for
    if is_down:
        steady_for = FLAP_WINDOW if incident.comebacks else min(steady_for, FLAP_WINDOW)
    return not steady_for or now - (incident.changed_at or incident.opened_at) >= steady_for


def _is_in_grace(incident: Incident, now: datetime) -> bool:
    return incident.freed_at is not None and now < incident.freed_at + CAUSE_GRACE


def _rank(level: Severity | None) -> int:
    return -1 if level is None else level


def _without_future(alerts: AlertState, now: datetime) -> AlertState:
    """What a clock that was ahead wrote down happened now."""
    latest = now + CLOCK_SKEW
    incidents = tuple(_sane(incident, latest, now) for incident in alerts.incidents)
    sent = alerts.sent
    if any(at > latest for at, _ in sent):
        sent = tuple((now if at > latest else at, severity) for at, severity in sent)
    return replace(alerts, incidents=incidents, sent=sent)


def _sane(incident: Incident, latest: datetime, now: datetime) -> Incident:
    times = _times(incident)
    if not any(at is not None and at > latest for at in times):
        return incident
    wrong: dict[str, Any] = {
        name: now for name, at in zip(_TIMES, times, strict=True) if at is not None and at > latest
    }
    return replace(incident, **wrong)


def _updated(
    before: Iterable[Incident], open_findings: Iterable[OpenFinding], now: datetime
) -> dict[Key, Incident]:
    incidents = {incident.key: incident for incident in before}
    gone = set(incidents)
    for entry in open_findings:
        key = (entry.job, *entry.finding.key)
        gone.discard(key)
        incidents[key] = _seen(incidents.get(key), entry, now)
    for key in gone:
        if incidents[key].closed_at is None:
            closed = replace(incidents[key], closed_at=now, follows="", freed_at=None)
            incidents[key] = _moved(incidents[key], closed, now)
    return incidents


def _seen(before: Incident | None, entry: OpenFinding, now: datetime) -> Incident:
    if before is None:
        return Incident(
            job=entry.job,
            finding=entry.finding,
            opened_at=entry.opened_at,
            changed_at=min(entry.opened_at, now),
        )
    if before.closed_at is None and before.finding == entry.finding:
        return before
    after = replace(before, finding=entry.finding, opened_at=entry.opened_at, closed_at=None)
    return _moved(before, after, now)


def _moved(before: Incident, after: Incident, now: datetime) -> Incident:
    was, is_now = before.level, after.level
    if was == is_now:
        return after
    if was is not None and is_now is not None and before.noted is None:
        return after  # it has been open all the time; nobody knows how bad it was
    if _rank(is_now) < _rank(was):
        is_known = before.noted is not None or before.fell_at is not None
        return replace(after, changed_at=now, fell_at=now if is_known else None)
    is_back = before.fell_at is not None and now - before.fell_at < FLAP_WINDOW
    return replace(after, changed_at=now, comebacks=before.comebacks + is_back)


def _follow(incidents: dict[Key, Incident], now: datetime) -> None:
    """Mark what follows from what; an effect worse than its cause stands for itself."""
    open_ones = [one for one in incidents.values() if one.level is not None]
    if not any(one.finding.cause or one.follows or one.freed_at for one in open_ones):
        return
    causes = _causes(open_ones)
    for incident in open_ones:
        root = _root(incident.key, causes)
        follows = "" if root is None else incidents[root].finding.subject
        freed_at = incident.freed_at
        if follows or not incident.finding.cause:
            freed_at = None
        elif incident.follows:
            freed_at = now
        if (follows, freed_at) != (incident.follows, incident.freed_at):
            incidents[incident.key] = replace(incident, follows=follows, freed_at=freed_at)


def _causes(open_ones: Sequence[Incident]) -> dict[Key, Key]:
    """The open incident that explains each, where there is one at least as severe."""
    explaining: dict[str, Incident] = {}
    for one in sorted(open_ones, key=lambda one: (bool(one.finding.cause), -_rank(one.level))):
        explaining.setdefault(one.finding.subject, one)
    return {
        one.key: cause.key
        for one in open_ones
        if one.finding.cause
        and (cause := explaining.get(one.finding.cause)) is not None
        and cause.key != one.key
        and _rank(cause.level) >= _rank(one.level)
    }


def _root(key: Key, causes: Mapping[Key, Key]) -> Key | None:
    """Where the chain of causes begins; None for what begins one, or stands in a circle."""
    passed = [key]
    while (cause := causes.get(passed[-1])) is not None and cause not in passed:
        passed.append(cause)
    root = passed[-1] if cause is None else cause
    return None if root == key else root


def _muted(incident: Incident, gate: str) -> Incident:
    """What was noted and not told yet is taken back: it differs again when the gate opens."""
    differs = incident.level != incident.told
    if incident.noted == incident.told and (incident.muted_by or not differs):
        return incident
    return replace(
        incident, noted=incident.told, muted_by=incident.muted_by or (gate if differs else "")
    )


def _is_needed(incident: Incident, now: datetime) -> bool:
    if incident.level is not None or incident.told is not None or incident.noted is not None:
        return True
    return incident.fell_at is not None and now - incident.fell_at < FLAP_WINDOW
