"""Run a job as a process of its own: memory goes back, a hang can be killed.

The child is the ordinary command ``opsd run-job NAME``, so the scheduled and the on-demand
path are the same code. It ends itself at its deadline; what overstays even that gets
SIGTERM, then SIGKILL, for its whole group. One that cannot be killed is left behind.

Limits: the child logs to our stderr; what it found is in the state, not in what is returned.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from opsd.clients.process import Process
from opsd.clock import Clock, Deadline

OVERSTAY = timedelta(minutes=3)  # past a job's timeout: its own watchdog, its messages
DELIVERY_TIMEOUT = timedelta(minutes=5)
STOP_GRACE_S = 20.0  # for a run to clean up and to be recorded after SIGTERM
_LOOK_S = 1.0  # how soon a stop or an overstay is noticed


class Ending(enum.Enum):
    """Why a child is over."""

    BY_ITSELF = "by itself"
    OVERSTAYED = "it did not end in time"
    STOPPED = "opsd was stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A child that is over."""

    ending: Ending
    status: int | None  #: exit status; None when it could not be killed and was left behind


class Children:
    """Starts ``opsd`` with the same configuration. Each call waits; use one thread for each."""

    def __init__(self, *, config: Path, clock: Clock) -> None:
        self._command = (sys.executable, "-m", "opsd", "--config", str(config))
        self._clock = clock

    def run_job(
        self, job: str, *, slot: datetime, timeout: timedelta, stop: threading.Event
    ) -> Ended:
        """Run `job` for `slot` and wait for its end.

        Args:
            job: its name.
            slot: the due time, aware UTC.
            timeout: the job's own; the child gets `OVERSTAY` more.
            stop: set it to end the child early.

        Raises:
            ProgramMissing: the child cannot be started.
        """
        argv = (*self._command, "run-job", job, "--slot", slot.isoformat())
        return supervise(argv, timeout=timeout + OVERSTAY, stop=stop, clock=self._clock)

    def deliver(self, *, stop: threading.Event) -> Ended:
        """Send the messages that wait; raises as `run_job` does."""
        argv = (*self._command, "deliver")
        return supervise(argv, timeout=DELIVERY_TIMEOUT, stop=stop, clock=self._clock)


def supervise(
    argv: Sequence[str], *, timeout: timedelta, stop: threading.Event, clock: Clock
) -> Ended:
    """Run a program to its end, its deadline or `stop`; it has our environment and stderr.

    Raises:
        ProgramMissing: it cannot be started.
    """
    deadline = Deadline.after(timeout.total_seconds(), clock)
    ending = Ending.BY_ITSELF
    # The process gets no deadline of its own here, so that it is killed with our patience.
    forever = Deadline.after(float("inf"), clock)
    with Process(argv, deadline=forever, env=dict(os.environ), shares_stderr=True) as child:
        while not child.ends_within(_LOOK_S):
            if stop.is_set():
                ending = Ending.STOPPED
            elif clock.monotonic() >= deadline.at:
                ending = Ending.OVERSTAYED
            else:
                continue
            child.kill(term_grace_s=STOP_GRACE_S)
            break
        return Ended(ending=ending, status=child.returncode)
