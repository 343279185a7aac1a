"""Bring messages to one target, in a thread of its own: a slow one holds up no other.

Limits: a target that did not answer is not asked again in the same pass.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import structlog

from opsd.clock import Deadline
from opsd.errors import DeadlineExceeded
from opsd.model import Message
from opsd.secrets import describe
from opsd.state import OutboxEntry, State

log = structlog.get_logger()

LEAST_SEND_S = 5.0  # with less time left nothing is sent: it would only look refused
_PATIENCE_S = 5.0  # past the deadline, for a target that does not keep it


class Sender(Protocol):
    """What hands a message to a target."""

    def send(self, target: str, message: Message, *, deadline: Deadline) -> None:
        """Hand `message` to one target; returning means that the service accepted it.

        Raises:
            OpsdError: it did not; DeadlineExceeded when it did not even answer.
        """
        ...


class Courier:
    """What one target did with what it was brought in one pass."""

    def __init__(self, target: str, *, state: State, sender: Sender, deadline: Deadline) -> None:
        self.target = target
        self.accepted: set[int] = set()  #: entries that it took
        self.refused: dict[int, str] = {}  #: entries that it did not take, and why
        self.given_up: set[int] = set()  #: entries that it need not take any more
        self._state = state
        self._sender = sender
        self._deadline = deadline
        self._silent = ""  # how it did not answer
        self._at_hand: OutboxEntry | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread()

    @property
    def error(self) -> str:
        """Why it did not take what it was brought last; empty when it took everything."""
        return next(reversed(self.refused.values()), "")

    def is_done_with(self, entry: OutboxEntry) -> bool:
        """Whether it is not to be brought this message any more."""
        return entry.id in self.accepted or entry.id in self.given_up

    def start(self, entries: Sequence[OutboxEntry]) -> None:
        """Bring `entries`, one after another, beside the caller."""
        self._thread = threading.Thread(
            target=self._bring, args=(entries,), name=f"to {self.target}", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is done or the deadline is over.

        Raises:
            TransientError, PermanentError: the state refused.
        """
        self._thread.join(
            max(0.0, self._deadline.at - self._deadline.clock.monotonic()) + _PATIENCE_S
        )
        if self._thread.is_alive() and self._at_hand is not None:
            self.refused[self._at_hand.id] = "it neither answers nor keeps the deadline"
        if self._failure is not None:
            raise self._failure

    def _bring(self, entries: Sequence[OutboxEntry]) -> None:
        try:
            for entry in entries:
                if self._deadline.remaining() < LEAST_SEND_S:
                    return
                self._at_hand = entry
                self._hand_over(entry)
        except DeadlineExceeded:
            return
        except BaseException as exc:  # noqa: BLE001 - raised by whoever waits
            self._failure = exc

    def _hand_over(self, entry: OutboxEntry) -> None:
        error = self._silent or self._sent(entry)
        if error:
            self.refused[entry.id] = error
            return
        self._state.mark_accepted(entry.id, target=self.target)
        self.accepted.add(entry.id)
        self.refused.pop(entry.id, None)
        log.info("alert.delivered", target=self.target, key=entry.message.key)

    def _sent(self, entry: OutboxEntry) -> str:
        """Why the target did not take the message; empty when it did."""
        try:
            self._sender.send(self.target, entry.message, deadline=self._deadline)
        except Exception as exc:  # noqa: BLE001 - whatever a service does, the others get theirs
            error = describe(exc)
            log.warning("alert.refused", target=self.target, key=entry.message.key, error=error)
            if isinstance(exc, DeadlineExceeded):
                self._silent = error
            return error
        return ""
