"""What opsd remembers: runs, open findings, the outbox, and who may run a job right now.

`State` is the protocol that every store fulfils; one conformance suite holds them equal.
The repository, not the state, is the truth about backups: losing the state loses no backup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from opsd.incidents import AlertState, Pause
from opsd.model import Finding, Message, OpenFinding, Run, Transition
from opsd.state.tally import Tally

#: What people are told: from what they know, what is open, and the time, to what they know
#: then and the messages for it. Pure; it may be called again for the same change.
Tell = Callable[
    [AlertState, Sequence[OpenFinding], datetime], tuple[AlertState, Sequence[Message]]
]

#: The lease that the daemon holds while it lives; the dot keeps it apart from names of jobs.
DAEMON = "opsd.daemon"

#: What was recorded so much later than now was recorded by a wrong clock, and answers no slot
#: unless it completed: then there is a backup under the slot's name.
FURTHEST_RECORD = timedelta(hours=1)

#: No delivery is put off further: a later time was written by a wrong clock.
LONGEST_WAIT = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """A message that waits for its delivery."""

    id: int
    message: Message
    created_at: datetime  #: aware UTC
    attempts: int  #: deliveries tried so far
    next_try_at: datetime  #: aware UTC
    last_error: str
    accepted_by: frozenset[str] = frozenset()  #: targets that have it already


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a lease."""

    run_id: str = ""  #: empty when it has not said so yet
    pid: int = 0  #: of its process, on its own machine; likewise 0
    since: datetime | None = None  #: aware UTC; likewise


class State(Protocol):
    """The store of one opsd. Safe under several processes and threads.

    Every method raises TransientError when the store is busy or full, and PermanentError
    when it is damaged; the text names the file and says what to do.
    """

    def lease(self, job: str, run_id: str) -> AbstractContextManager[None]:
        """Hold the right to run `job`; it ends with the context or the process.

        Raises:
            LeaseHeld: another process holds it; the text says which run, since when.
        """
        ...

    def holder(self, job: str) -> Holder | None:
        """Who holds the lease of `job` now; None when nobody does."""
        ...

    def begin(
        self, *, job: str, run_id: str, slot: datetime, at: datetime, attempt: int = 0
    ) -> None:
        """Write down, durably, that a run starts. Only under the job's lease.

        Args:
            job: its name.
            run_id: unique.
            slot: the due time that it answers, aware UTC.
            at: now, aware UTC.
            attempt: which try of the slot; 0: somebody asked for it.

        Raises:
            SlotAnswered: it is no try of a slot that is still to be answered.
        """
        ...

    def record(self, run: Run, *, tell: Tell) -> tuple[Transition, ...]:
        """Store the end of a run, what it changed and what people are told, all or nothing.

        Idempotent by `run_id`: recording the same run again changes nothing and
        returns nothing. The run may have been begun or not (missed, skipped).
        """
        ...

    def close_slot(self, run: Run, *, tell: Tell) -> bool:
        """Record how a slot ended without a run, unless a run has answered it or is about to.

        One transaction, so that of all who try one succeeds; whether it was this one.
        """
        ...

    def observe(
        self, job: str, *, findings: Sequence[Finding], seen: Sequence[str], tell: Tell
    ) -> tuple[Transition, ...]:
        """Store what was found outside of a run, such as a channel that is down.

        Only findings about the subjects in `seen` that are not among `findings` are over.

        Args:
            job: in whose name; `opsd.triage.OWN` for opsd itself.
            findings: what is the matter.
            seen: subjects that were looked at completely.
            tell: what people are told.
        """
        ...

    def tell(self, tell: Tell) -> None:
        """Look at what people must be told by now; changes nothing when there is nothing."""
        ...

    def alerts(self) -> AlertState:
        """What people were told and what they asked for."""
        ...

    def unfinished_runs(self, job: str) -> tuple[Run, ...]:
        """Runs of `job` that began and were never recorded, as INTERRUPTED runs to record.

        Only meaningful under the job's lease, which proves that nobody runs them any more.
        """
        ...

    def dead_runs(self, job: str) -> frozenset[str]:
        """Ids of recorded runs of `job` that ended other than completed (newest 1,000)."""
        ...

    def runs(self, *, job: str | None = None, limit: int = 50) -> tuple[Run, ...]:
        """Recorded runs, newest first, with their findings and artifacts."""
        ...

    def running(self) -> tuple[tuple[str, str, datetime], ...]:
        """Runs begun and not recorded: (job, run id, started at), oldest first.

        One whose process has died stays among them until the next run of its job.
        """
        ...

    def tally(self, since: datetime) -> Tally:
        """What came of the time since then, and the newest backups, from the recorded runs."""
        ...

    def slot_runs(self, job: str, slot: datetime) -> tuple[Run, ...]:
        """Recorded runs of `job` that answered `slot`, oldest first."""
        ...

    def last_slot(self, job: str, *, at: datetime) -> datetime | None:
        """The latest slot of `job` up to `at` that is on record, or None.

        Runs that somebody asked for do not count, nor those of `FURTHEST_RECORD`.
        """
        ...

    def void_future(self, *, at: datetime) -> int:
        """Let records of slots far beyond `at` answer no slot; how many there were.

        A slot is on record only when it has come, so a clock that was ahead made them. They
        stay in the history. Idempotent.
        """
        ...

    def open_findings(self, *, job: str | None = None) -> tuple[OpenFinding, ...]:
        """Open findings, most severe first, then oldest first."""
        ...

    def due_messages(self, at: datetime, *, limit: int = 50) -> tuple[OutboxEntry, ...]:
        """Messages not delivered whose next try is due, oldest first.

        One that is put off further than `LONGEST_WAIT` is due: a wrong clock did that.
        """
        ...

    def undelivered(self) -> tuple[OutboxEntry, ...]:
        """All messages not delivered, oldest first."""
        ...

    def mark_accepted(self, entry_id: int, *, target: str) -> None:
        """One target took the message: it is not sent there again. Idempotent."""
        ...

    def mark_delivered(self, entry_id: int, *, at: datetime) -> None:
        """Every target that should have the message took it."""
        ...

    def mark_failed(self, entry_id: int, *, error: str, next_try_at: datetime) -> None:
        """The delivery failed; try again at `next_try_at`, at most `LONGEST_WAIT` from now."""
        ...

    def give_up(self, entry_ids: Sequence[int], *, target: str, instead: Message) -> None:
        """`target` need not take these messages any more; `instead` stands for them."""
        ...

    def pause(self, pause: Pause) -> None:
        """Do not start a job for a while; replaces its former pause."""
        ...

    def resume(self, job: str) -> bool:
        """End the pause of a job; False when it had none."""
        ...

    def pauses(self) -> tuple[Pause, ...]:
        """All pauses, also those that have run out, by job."""
        ...

    def prove_writable(self) -> None:
        """Write something to the store, durably; raises when that does not work."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Idempotent."""
        ...
