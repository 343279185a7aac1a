"""What people answer to a message: I take care of it, or I do not want to hear of it for now.

Pure: from what is known to what is known then. The next look (`opsd.alerts.policy.advance`)
makes of it what is to be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from opsd.alerts.gates import fits
from opsd.alerts.rules import Policy
from opsd.alerts.tracking import kept, tracked
from opsd.incidents import Acknowledgement, AlertState, Silence
from opsd.model import OpenFinding


def acknowledge(
    alerts: AlertState,
    open_findings: Sequence[OpenFinding],
    *,
    check: str = "*",
    subject: str = "*",
    at: datetime,
    reason: str = "",
) -> AlertState:
    """No reminder and no escalation of these until they worsen or are over.

    Args:
        alerts: what people were told.
        open_findings: what is open.
        check: pattern with ``*`` and ``?``.
        subject: likewise.
        at: now, aware UTC.
        reason: who does what about it.
    """
    seen = Acknowledgement(at=at, reason=reason)
    alerts = tracked(alerts, open_findings, at, policy=Policy())
    incidents = {
        one.key: replace(one, acknowledged=seen)
        if one.level is not None
        and fits(check, one.finding.check)
        and fits(subject, one.finding.subject)
        else one
        for one in alerts.incidents
    }
    return replace(alerts, incidents=kept(incidents, at))


def silence(alerts: AlertState, added: Silence) -> AlertState:
    """Tell nothing about what fits both patterns until then; replaces one of the same id."""
    others = (one for one in alerts.silences if one.id != added.id)
    return replace(alerts, silences=(*others, added))


def end_silence(alerts: AlertState, silence_id: str) -> AlertState:
    """End a silence now; nothing changes when there is none of this id."""
    return replace(alerts, silences=tuple(one for one in alerts.silences if one.id != silence_id))
