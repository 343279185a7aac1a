"""Messages wait in the state until the services took them, however long that is.

A message is delivered when every target that wants its severity accepted it. A target that
accepted is never sent it again; one that failed is tried again after 5 s, then twice as
long each time, up to 15 minutes. What a target did not take for a day is put together into
one message for it. Targets are served side by side, the worst news first; one process
delivers at a time.

Limits: a process that dies between the acceptance and its record sends that message to
that target once more: at least once, never lost. The age of a message is wall time; a
message from the future is young, and one that a clock made old is given up only after
`LEAST_ATTEMPTS`, so a clock that jumps gives nothing up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

import structlog

from opsd.alerts import channels
from opsd.alerts.collapse import collapsed, is_collapse
from opsd.alerts.courier import LEAST_SEND_S, Courier, Sender
from opsd.clock import Clock, Deadline
from opsd.errors import DeadlineExceeded, LeaseHeld
from opsd.model import Message, Severity
from opsd.state import LONGEST_WAIT, OutboxEntry, State, Tell
from opsd.triage import OWN

log = structlog.get_logger()

FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = LONGEST_WAIT
MAX_AGE = timedelta(days=1)
LEAST_ATTEMPTS = 10  # take half an hour, whatever the clock does meanwhile
LEASE = "opsd.delivery"  # the dot keeps it apart from the names of jobs
_ROUND = 1000  # messages that are looked at together


class Notifier(Sender, Protocol):
    """What brings messages to people."""

    @property
    def known(self) -> Mapping[str, Severity]:
        """Every target, with the severity from which on it wants messages."""
        ...

    def targets(self, message: Message) -> Sequence[str]:
        """Names of the targets that want this message."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one pass over the outbox did."""

    delivered: int = 0  #: messages that every target has now
    failed: int = 0  #: messages that at least one target did not take
    errors: tuple[str, ...] = ()  #: ``target: why``, each once
    busy: bool = False  #: another process is delivering


def deliver(
    state: State,
    notifier: Notifier,
    *,
    tell: Tell,
    clock: Clock,
    deadline: Deadline,
    timezone: tzinfo = UTC,
) -> Delivery:
    """Send what is due, until nothing is or the deadline passes. Never raises for a service.

    Args:
        state: holds what waits, and is told which channels are down.
        notifier: brings it to people.
        tell: what people are told of channels that are down.
        clock: the age of messages and their next try.
        deadline: for everything together.
        timezone: of the times in what is put together.

    Raises:
        TransientError, PermanentError: the state refused.
    """
    try:
        with state.lease(LEASE, "delivery"):
            one = _Pass(state, notifier, clock=clock, deadline=deadline)
            done = one.run()
            one.give_up_old(timezone)
            one.observe(tell)
            return done
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
        self._couriers: dict[str, Courier] = {}

    def run(self) -> Delivery:
        delivered = failed = 0
        with contextlib.suppress(DeadlineExceeded):
            while self._deadline.remaining() > LEAST_SEND_S and (entries := self._due()):
                self._bring(entries)
                for entry in entries:
                    is_delivered = self._settle(entry)
                    delivered += is_delivered is True
                    failed += is_delivered is False
        errors = dict.fromkeys(
            f"{courier.target}: {error}"
            for courier in self._couriers.values()
            for error in courier.refused.values()
        )
        return Delivery(delivered=delivered, failed=failed, errors=tuple(errors))

    def give_up_old(self, timezone: tzinfo) -> None:
        """Put together what targets that take nothing have not taken for too long."""
        now, waiting = self._clock.now(), self._state.undelivered()
        for courier in self._refusing():
            owed = [entry for entry in waiting if self._is_owed(entry, courier.target)]
            old = [entry for entry in owed if _is_old(entry, now) and not is_collapse(entry)]
            if not old:
                continue
            entries = old + [entry for entry in owed if is_collapse(entry)]
            instead = collapsed(entries, target=courier.target, timezone=timezone)
            ids = [entry.id for entry in entries]
            self._state.give_up(ids, target=courier.target, instead=instead)
            courier.given_up.update(ids)
            log.warning("alert.collapsed", target=courier.target, messages=len(old))
        for entry in waiting:
            if not self._owing(entry):
                self._state.mark_delivered(entry.id, at=now)

    def observe(self, tell: Tell) -> None:
        """Tell the state which channels are down, and which are not any more."""
        open_before = self._state.open_findings(job=OWN)
        waiting = self._state.undelivered()
        asked = [
            self._asked(courier, waiting)
            for courier in self._couriers.values()
            if courier.accepted or courier.refused
        ]
        verdict = channels.judge(asked, targets=self._notifier.known, open_before=open_before)
        if verdict.findings or {one.finding.subject for one in open_before} & {*verdict.seen}:
            self._state.observe(OWN, findings=verdict.findings, seen=verdict.seen, tell=tell)

    def _bring(self, entries: Sequence[OutboxEntry]) -> None:
        """Hand each message to every target that wants it and does not have it."""
        worst_first = sorted(entries, key=lambda entry: -entry.message.severity)
        for target in self._notifier.known:
            mine = [entry for entry in worst_first if self._is_owed(entry, target)]
            if mine:
                self._courier(target).start(mine)
        for courier in self._couriers.values():
            courier.wait()

    def _courier(self, target: str) -> Courier:
        if target not in self._couriers:
            self._couriers[target] = Courier(
                target, state=self._state, sender=self._notifier, deadline=self._deadline
            )
        return self._couriers[target]

    def _settle(self, entry: OutboxEntry) -> bool | None:
        """Write down whether it is delivered; None when somebody was not even asked."""
        now, couriers = self._clock.now(), self._couriers.values()
        errors = [
            f"{one.target}: {one.refused[entry.id]}" for one in couriers if entry.id in one.refused
        ]
        if errors:
            again = now + retry_after(entry.attempts)
            self._state.mark_failed(entry.id, error="; ".join(errors), next_try_at=again)
            return False
        if self._owing(entry):
            return None
        self._state.mark_delivered(entry.id, at=now)
        return True

    def _is_owed(self, entry: OutboxEntry, target: str) -> bool:
        """Whether `target` wants the message and does not have it."""
        courier = self._couriers.get(target)
        is_done = target in entry.accepted_by or (courier and courier.is_done_with(entry))
        return not is_done and target in self._notifier.targets(entry.message)

    def _owing(self, entry: OutboxEntry) -> bool:
        """Whether any target wants the message and does not have it."""
        return any(self._is_owed(entry, target) for target in self._notifier.known)

    def _due(self) -> tuple[OutboxEntry, ...]:
        return self._state.due_messages(self._clock.now(), limit=_ROUND)

    def _refusing(self) -> list[Courier]:
        return [one for one in self._couriers.values() if one.refused and not one.accepted]

    def _asked(self, courier: Courier, waiting: Sequence[OutboxEntry]) -> channels.Asked:
        owed = [entry for entry in waiting if self._is_owed(entry, courier.target)]
        return channels.Asked(
            target=courier.target,
            accepted=len(courier.accepted),
            error=courier.error,
            waiting=len(owed),
            alone=any(
                entry.message.severity is Severity.CRITICAL and not entry.accepted_by
                for entry in owed
            ),
        )


def _is_old(entry: OutboxEntry, now: datetime) -> bool:
    return now - entry.created_at > MAX_AGE and entry.attempts >= LEAST_ATTEMPTS
