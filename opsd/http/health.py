"""Whether opsd lives, and whether it can work: what a kubelet asks every few seconds.

A daemon that does not live is restarted, which helps against a scheduler that stands still and
a run that does not end, and against nothing else. So a state or a cluster that cannot be reached
makes it unready and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from opsd.http.app import Answer
from opsd.state import State

OLDEST_TICK_S = 60.0


class Pulse(Protocol):
    """What the daemon says of itself; fulfilled by `opsd.daemon.Daemon`."""

    def tick_age_s(self) -> float:
        """Seconds since the scheduler last looked at everything."""
        ...

    def overdue(self) -> Sequence[str]:
        """Jobs whose run should have been ended long ago."""
        ...


def live(pulse: Pulse) -> Answer:
    """``/livez``."""
    if (age_s := pulse.tick_age_s()) > OLDEST_TICK_S:
        return _ill(f"the scheduler stands still for {age_s:.0f} s")
    if overdue := pulse.overdue():
        return _ill(f"a run does not end: {', '.join(overdue)}")
    return Answer(body="ok\n")


def ready(state: State) -> Answer:
    """``/readyz``.

    Raises:
        TransientError, PermanentError: the state cannot be read.
    """
    state.pauses()  # a read: probes must not wear out an SD card
    return Answer(body="ok\n")


def _ill(why: str) -> Answer:
    return Answer(body=f"{why}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
