"""What is worth a message now: the difference between what people believe and what is. Pure.

`advance` compares the incidents (what people were told) with the open findings (what is) and
returns messages that bring one to the other. It is called after every run and by the daemon
every few seconds, with the same result whoever calls it: what was told is not told again, and
what could not be told yet is told later, because the difference stays.

It goes in two steps. A change that has lasted and is not muted is noted; what is noted is
told, at once or, when the night or a storm keeps it back, in one digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from opsd.alerts.answers import acknowledge, end_silence, silence
from opsd.alerts.look import Look
from opsd.alerts.rules import Maintenance, Policy, Route
from opsd.alerts.tracking import tracked
from opsd.incidents import AlertState
from opsd.model import Message, OpenFinding

__all__ = [
    "Maintenance",
    "Policy",
    "Route",
    "acknowledge",
    "advance",
    "end_silence",
    "silence",
]


def advance(
    alerts: AlertState, open_findings: Sequence[OpenFinding], now: datetime, *, policy: Policy
) -> tuple[AlertState, tuple[Message, ...]]:
    """What people know after this, and the messages that make them know it.

    Args:
        alerts: what they were told.
        open_findings: what is open.
        now: aware UTC.
        policy: how they want to be told.
    """
    look = Look(tracked(alerts, open_findings, now, policy=policy), now, policy=policy)
    look.note()
    look.tell()
    return look.alerts, tuple(look.messages)
