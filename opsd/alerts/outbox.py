"""Messages wait in the state until the services took them, however long that is.

A message is delivered when every target that wants its severity accepted it. A target that
accepted is never sent it again; one that failed is tried again after 5 s, then twice as
long each time, up to 15 minutes. One process delivers at a time.

Limits: a process that dies between the acceptance and its record sends that message to
that target once more: at least once, never lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from opsd.clock import Clock, Deadline
from opsd.errors import DeadlineExceeded, LeaseHeld
from opsd.model import Message
from opsd.secrets import describe
from opsd.state import OutboxEntry, State

log = structlog.get_logger()

FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(minutes=15)
LEASE = "opsd.delivery"  # the dot keeps it apart from the names of jobs


class Notifier(Protocol):
    """What brings messages to people."""

    def targets(self, message: Message) -> Sequence[str]:
        """Names of the targets that want this message."""
        ...

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        """Hand `message` to one target; returning means that the service accepted it.

        Raises:
            OpsdError: it did not; DeadlineExceeded when it did not even answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one pass over the outbox did."""

    delivered: int = 0  #: messages that every target has now
    failed: int = 0  #: messages that at least one target did not take
    errors: tuple[str, ...] = ()  #: ``target: why``, each once
    busy: bool = False  #: another process is delivering


def deliver(state: State, notifier: Notifier, *, clock: Clock, deadline: Deadline) -> Delivery:
    """Send what is due, until nothing is or the deadline passes. Never raises for a service.

    Raises:
        TransientError, PermanentError: the state refused.
    """
    try:
        with state.lease(LEASE, "delivery"):
            return _Pass(state, notifier, clock=clock, deadline=deadline).run()
    except LeaseHeld:
        return Delivery(busy=True)


def retry_after(attempts: int) -> timedelta:
    """How long to wait after the failure number `attempts` + 1."""
    doublings = min(attempts, 16)  # more is beyond the longest wait anyway
    return min(FIRST_RETRY * (1 << doublings), LONGEST_RETRY)


class _Pass:
    """One pass over the outbox."""

    def __init__(
        self, state: State, notifier: Notifier, *, clock: Clock, deadline: Deadline
    ) -> None:
        self._state = state
        self._notifier = notifier
        self._clock = clock
        self._deadline = deadline
        self._silent: dict[str, str] = {}  # targets that did not answer in this pass, and how
        self._errors: list[str] = []

    def run(self) -> Delivery:
        delivered = failed = 0
        with contextlib.suppress(DeadlineExceeded):
            while entries := self._state.due_messages(self._clock.now()):
                for entry in entries:
                    self._deadline.remaining()
                    if self._deliver(entry):
                        delivered += 1
                    else:
                        failed += 1
        errors = tuple(dict.fromkeys(self._errors))
        return Delivery(delivered=delivered, failed=failed, errors=errors)

    def _deliver(self, entry: OutboxEntry) -> bool:
        wanted = self._notifier.targets(entry.message)
        errors = [
            f"{target}: {error}"
            for target in wanted
            if target not in entry.accepted_by and (error := self._hand_over(entry, target))
        ]
        now = self._clock.now()
        if errors:
            again = now + retry_after(entry.attempts)
            self._state.mark_failed(entry.id, error="; ".join(errors), next_try_at=again)
            self._errors.extend(errors)
            return False
        self._state.mark_delivered(entry.id, at=now)
        return True

    def _hand_over(self, entry: OutboxEntry, target: str) -> str:
        """Why `target` did not take the message; empty when it did."""
        if target in self._silent:
            return self._silent[target]
        try:
            self._notifier.send(target, entry.message, deadline=self._deadline)
        except Exception as exc:  # noqa: BLE001 - whatever a service does, the others get theirs
            error = describe(exc)
            log.warning("alert.refused", target=target, key=entry.message.key, error=error)
            if isinstance(exc, DeadlineExceeded):
                self._silent[target] = error
            return error
        log.info("alert.delivered", target=target, key=entry.message.key)
        self._state.mark_accepted(entry.id, target=target)
        return ""
