"""The sign of life that stops when opsd is not well: silence is noticed from outside.

A dead daemon, a dead machine and a dead network cannot say so. So a service elsewhere expects
a call every few minutes, and gets it only while everything that people rely on works: the
scheduler ticks, the state can be written, messages reach somebody, no run is stuck.

One channel of several that is down does not stop it: the others tell that. It stops when
nobody was reached for `MUTE_AFTER`, because then nothing else can tell.

Limits: it proves that opsd works, not that the jobs succeed; that is what alerts are for.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from opsd.alerts.channels import NOBODY_REACHED
from opsd.clients.pings import Endpoint, Sign
from opsd.clock import Clock
from opsd.errors import OpsdError
from opsd.model import OpenFinding
from opsd.secrets import describe
from opsd.state import OutboxEntry, State
from opsd.triage import OWN

log = structlog.get_logger()

OLDEST_TICK = timedelta(minutes=1)
MUTE_AFTER = timedelta(minutes=15)  # nobody reached, or nobody even tries
LOOK_AGAIN = timedelta(seconds=30)  # after a beat that was withheld or did not arrive
CALL_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What is known of opsd's own health at one moment."""

    tick_age: timedelta  #: since the scheduler last looked at everything; monotonic
    overdue: Sequence[str] = ()  #: jobs whose run should have been ended long ago
    waiting: Sequence[OutboxEntry] = ()  #: messages not delivered
    own_findings: Sequence[OpenFinding] = ()  #: what opsd found about itself


def complaint(vitals: Vitals, *, now: datetime) -> str:
    """Why opsd is not well; empty when it is. Pure.

    Args:
        vitals: what is known.
        now: aware UTC.
    """
    if vitals.tick_age > OLDEST_TICK:
        return f"the scheduler stands still for more than {OLDEST_TICK}"
    if vitals.overdue:
        return f"a run does not end: {', '.join(vitals.overdue)}"
    if any(now - entry.next_try_at > MUTE_AFTER for entry in vitals.waiting):
        return f"messages wait, and nobody tried to send them for {MUTE_AFTER}"
    if any(
        entry.finding.check == NOBODY_REACHED and now - entry.opened_at > MUTE_AFTER
        for entry in vitals.own_findings
    ):
        return f"no target took a message for {MUTE_AFTER}"
    return ""


class Heartbeat:
    """Calls the service from time to time, in a thread of its own."""

    def __init__(
        self, endpoint: Endpoint, *, every: timedelta, state: State, clock: Clock
    ) -> None:
        """Prepare; the first `beat_if_due` beats.

        Args:
            endpoint: the service that raises the alarm.
            every: how often it expects a call.
            state: proves that it can be written, and holds what waits.
            clock: both clocks.
        """
        self._endpoint = endpoint
        self._every = every
        self._state = state
        self._clock = clock
        self._next_at = clock.monotonic()
        self._beating: threading.Thread | None = None
        self._complaint = ""

    def beat_if_due(self, *, ticked_at: float, overdue: Sequence[str] = ()) -> None:
        """Beat if it is time to. Returns at once, never raises; call it every few seconds.

        Args:
            ticked_at: when the scheduler last looked at everything, on the monotonic clock.
            overdue: jobs whose run is past its timeout and all patience.
        """
        if self._clock.monotonic() < self._next_at or (self._beating and self._beating.is_alive()):
            return
        self._beating = threading.Thread(
            target=self._beat, args=(ticked_at, tuple(overdue)), name="heartbeat", daemon=True
        )
        self._beating.start()

    def wait(self, timeout_s: float) -> None:
        """Wait for a beat that is under way."""
        if self._beating:
            self._beating.join(timeout_s)

    def _beat(self, ticked_at: float, overdue: tuple[str, ...]) -> None:
        started_at = self._clock.monotonic()
        try:
            why = self._examine(ticked_at, overdue)
            if not why:
                self._endpoint.send(Sign.WELL, timeout_s=CALL_TIMEOUT_S)
        except OpsdError as exc:
            why = describe(exc)
        pause = min(self._every, LOOK_AGAIN) if why else self._every
        self._next_at = started_at + pause.total_seconds()
        if why != self._complaint:
            self._complaint = why
            if why:
                log.warning("heartbeat.withheld", why=why)
            else:
                log.info("heartbeat.resumed")

    def _examine(self, ticked_at: float, overdue: tuple[str, ...]) -> str:
        self._state.prove_writable()
        vitals = Vitals(
            tick_age=timedelta(seconds=self._clock.monotonic() - ticked_at),
            overdue=overdue,
            waiting=self._state.undelivered(),
            own_findings=self._state.open_findings(job=OWN),
        )
        return complaint(vitals, now=self._clock.now())
