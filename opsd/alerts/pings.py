"""Tell a service outside that a job started and how it ended, so that it misses what does not.

A ping never fails a run and hardly delays it: the start is told beside the run, and the end
costs `START_WAIT_S` + `END_S` seconds at most, after the run is recorded and its lease is let
go. A run that failed and is tried again gives no sign: its last try does.

Limits: the service is told once more when it did not take a sign, then no more; it raises the
alarm by itself when a sign stays out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Protocol

import structlog

from opsd.clients.pings import Endpoint, Sign
from opsd.errors import DeadlineExceeded, OpsdError, TransientError
from opsd.model import Outcome, Run
from opsd.secrets import describe, redact
from opsd.text import printable

log = structlog.get_logger()

START_S = 10.0  # for the sign of a start, beside the run
START_WAIT_S = 5.0  # longer the end does not wait for it, so that they arrive in order
END_S = 10.0  # for the sign of an end, with its second try
FIRST_TRY_S = 6.0  # of these


class JobPings:
    """Fulfils `opsd.executors.inline.Pings`; a job without an endpoint gives no signs."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Know the endpoints, by job."""
        self._endpoints = endpoints
        self._starting: dict[str, threading.Thread] = {}  # by run

    def started(self, job: str, run_id: str) -> None:
        """Tell that a run starts; returns at once."""
        if job in self._endpoints:
            thread = threading.Thread(
                target=_give,
                args=(self._endpoints[job], Sign.STARTED),
                kwargs={"run_id": run_id, "total_s": START_S},
                name="ping",
                daemon=True,
            )
            self._starting[run_id] = thread
            thread.start()

    def ended(self, run: Run) -> None:
        """Tell how a run ended; a skipped one is none, and one that is tried again did not end."""
        endpoint = self._endpoints.get(run.job)
        starting = self._starting.pop(run.run_id, None)
        if endpoint is None or run.outcome is Outcome.SKIPPED or run.retry_at is not None:
            return
        if starting is not None:
            starting.join(START_WAIT_S)
        sign = Sign.WELL if run.outcome is Outcome.COMPLETED else Sign.FAILED
        _give(endpoint, sign, run_id=run.run_id, total_s=END_S, run=run)


class EndsPinged(Protocol):
    """Whom to hand ends to."""

    def ended(self, run: Run) -> None:
        """Tell how a run ended."""
        ...


class BackgroundPings:
    """Tells ends for a caller that must not wait: of several of one job, the newest."""

    def __init__(self, pings: EndsPinged) -> None:
        """Use `pings`, from a thread that lives while there is something to tell."""
        self._pings = pings
        self._lock = threading.Lock()
        self._waiting: dict[str, Run] = {}
        self._is_working = False

    def started(self, job: str, run_id: str) -> None:
        """Nothing: a run tells its own start."""

    def ended(self, run: Run) -> None:
        """Tell how a run ended, soon."""
        with self._lock:
            self._waiting[run.job] = run
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._work, name="pings", daemon=True).start()

    def _work(self) -> None:
        while (run := self._next()) is not None:
            self._pings.ended(run)

    def _next(self) -> Run | None:
        with self._lock:
            if not self._waiting:
                self._is_working = False
                return None
            return self._waiting.pop(next(iter(self._waiting)))


def text_of(run: Run) -> str:
    """What a person reads at the service: how the run ended, why, and what it found."""
    ended = run.outcome.value.replace("_", " ")
    head = f"{run.job} {ended} after {run.duration.total_seconds():.0f} s"
    lines = [f"{head}: {printable(run.error)}" if run.error else head]
    lines.extend(
        f"{finding.severity.label}: {printable(finding.summary)} ({printable(finding.subject)})"
        for finding in sorted(run.findings, key=lambda one: -one.severity)
    )
    return redact("\n".join(lines))


def _give(
    endpoint: Endpoint, sign: Sign, *, run_id: str, total_s: float, run: Run | None = None
) -> None:
    """Give a sign, try once more if that may help, and log when it did not."""
    until = time.monotonic() + total_s
    first_s = min(FIRST_TRY_S, total_s)
    for timeout_s in (first_s, None):
        try:
            endpoint.send(
                sign,
                timeout_s=timeout_s or max(0.1, until - time.monotonic()),
                run_id=run_id,
                text=text_of(run) if run else "",
                duration=run.duration if run else None,
            )
        except (TransientError, DeadlineExceeded) as exc:
            why = describe(exc)
        except OpsdError as exc:
            why = describe(exc)
            break
        else:
            return
    log.warning("ping.failed", sign=sign.name.lower(), why=why)
