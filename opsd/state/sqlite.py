"""The state of one opsd in one SQLite file on a local disk.

What a run found, what it changed and what people will be told are written in one
transaction: whatever dies when, no message is lost and none is made twice.

Limits: one machine; the file must not lie on NFS. History is bounded to the newest runs of
each job and the newest delivered messages (`opsd.state.tables`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

from opsd.clock import Clock
from opsd.errors import SlotAnswered
from opsd.incidents import AlertState, Pause
from opsd.model import VOID, Finding, Message, OpenFinding, Outcome, Run, Transition
from opsd.state import FURTHEST_RECORD, LONGEST_WAIT, Holder, OutboxEntry, Tell, tables
from opsd.state.database import Database
from opsd.state.leases import holder, lease
from opsd.state.records import (
    entry_of,
    message_columns,
    moment,
    pack,
    parse_moment,
    run_of,
    storable_run,
    unpack,
)
from opsd.state.tally import Tally, tally
from opsd.text import storable
from opsd.triage import changes

_PAGE_RUNS = 50


class SqliteState:
    """Fulfils `opsd.state.State`; safe under several processes and threads."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        """Open the state file `path`, or make it with its directory.

        Raises:
            TransientError, PermanentError: as `opsd.state.State` says.
        """
        self._database = Database(path)
        self._leases = path.parent / "leases"
        self._clock = clock

    def lease(self, job: str, run_id: str) -> AbstractContextManager[None]:
        """Hold the right to run `job`; see `State.lease`."""
        return lease(self._leases, job, run_id=run_id, clock=self._clock)

    def holder(self, job: str) -> Holder | None:
        """Who holds the lease of `job`; see `State.holder`."""
        return holder(self._leases, job)

    def begin(
        self, *, job: str, run_id: str, slot: datetime, at: datetime, attempt: int = 0
    ) -> None:
        """Write down that a run starts; see `State.begin`."""
        with self._database.writing() as db:
            if attempt and tables.is_answered(db, job, slot=slot, at=at):
                raise SlotAnswered(f"{job} has already answered the slot {slot.isoformat()}")
            db.execute(
                "INSERT INTO runs (run_id, job, slot, started_at, attempt) VALUES (?, ?, ?, ?, ?)",
                (run_id, job, moment(slot), moment(at), attempt),
            )

    def record(self, run: Run, *, tell: Tell) -> tuple[Transition, ...]:
        """Store the end of a run; see `State.record`."""
        with self._database.writing() as db:
            return tables.record(db, storable_run(run), tell=tell, at=self._clock.now())

    def close_slot(self, run: Run, *, tell: Tell) -> bool:
        """Record how a slot ended without a run; see `State.close_slot`."""
        with self._database.writing() as db:
            if tables.is_answered(db, run.job, slot=run.slot, at=run.started_at):
                return False
            tables.record(db, storable_run(run), tell=tell, at=self._clock.now())
        return True

    def observe(
        self, job: str, *, findings: Sequence[Finding], seen: Sequence[str], tell: Tell
    ) -> tuple[Transition, ...]:
        """Store what was found outside of a run; see `State.observe`."""
        found = unpack(pack(findings), tuple[Finding, ...])
        subjects, at = frozenset(map(storable, seen)), self._clock.now()
        with self._database.writing() as db:
            changed = tuple(
                changes(
                    job,
                    found,
                    tables.open_findings(db, job),
                    at=at,
                    is_over=lambda finding: finding.subject in subjects,
                )
            )
            tables.store_findings(db, job, found, changed)
            tables.tell_people(db, tell, at=at)
        return changed

    def tell(self, tell: Tell) -> None:
        """Look at what people must be told by now; see `State.tell`."""
        at = self._clock.now()
        with self._database.reading() as db:
            before = tables.alerts(db)
            after, messages = tell(before, tables.open_findings(db, None), at)
        if after != before or messages:
            with self._database.writing() as db:
                tables.tell_people(db, tell, at=at)

    def alerts(self) -> AlertState:
        """What people were told; see `State.alerts`."""
        with self._database.reading() as db:
            return tables.alerts(db)

    def unfinished_runs(self, job: str) -> tuple[Run, ...]:
        """Runs that began and were never recorded; see `State.unfinished_runs`."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT run_id, slot, started_at, attempt FROM runs"
                " WHERE job = ? AND outcome IS NULL ORDER BY seq",
                (job,),
            ).fetchall()
        return tuple(
            Run(
                job=job,
                run_id=row["run_id"],
                slot=parse_moment(row["slot"]),
                started_at=parse_moment(row["started_at"]),
                duration=timedelta(0),
                outcome=Outcome.INTERRUPTED,
                error="its process ended before the run did",
                attempt=row["attempt"],
            )
            for row in rows
        )

    def dead_runs(self, job: str) -> frozenset[str]:
        """Ids of runs that ended other than completed; see `State.dead_runs`."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT run_id FROM runs WHERE job = ? AND outcome IS NOT NULL"
                " AND outcome <> ? ORDER BY seq DESC LIMIT ?",
                (job, Outcome.COMPLETED.value, tables.RUNS_KEPT),
            ).fetchall()
        return frozenset(row["run_id"] for row in rows)

    def runs(self, *, job: str | None = None, limit: int = 50) -> tuple[Run, ...]:
        """Recorded runs, newest first; see `State.runs`."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT * FROM runs WHERE outcome IS NOT NULL AND job = coalesce(?, job)"
                " ORDER BY seq DESC LIMIT ?",
                (job, limit),
            ).fetchall()
            return tuple(run_of(row) for row in rows)

    def running(self) -> tuple[tuple[str, str, datetime], ...]:
        """Runs begun and not recorded; see `State.running`."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT job, run_id, started_at FROM runs WHERE outcome IS NULL ORDER BY seq"
            ).fetchall()
        return tuple((row["job"], row["run_id"], parse_moment(row["started_at"])) for row in rows)

    def tally(self, since: datetime) -> Tally:
        """What came of the time since then; see `State.tally`."""
        return tally(self._newest_first(), since=since)

    def slot_runs(self, job: str, slot: datetime) -> tuple[Run, ...]:
        """Recorded runs that answered `slot`; see `State.slot_runs`."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT * FROM runs WHERE outcome IS NOT NULL AND job = ? AND slot = ?"
                " ORDER BY seq",
                (job, moment(slot)),
            ).fetchall()
            return tuple(run_of(row) for row in rows)

    def last_slot(self, job: str, *, at: datetime) -> datetime | None:
        """The latest slot that is on record; see `State.last_slot`."""
        values = {"job": job, "at": moment(at), "latest": moment(at + FURTHEST_RECORD)}
        with self._database.reading() as db:
            row = db.execute(tables.LAST_SLOT, values).fetchone()
        return None if row["slot"] is None else parse_moment(row["slot"])

    def void_future(self, *, at: datetime) -> int:
        """Let records of a wrong clock's future answer no slot; see `State.void_future`."""
        latest = moment(at + FURTHEST_RECORD)
        with self._database.reading() as db:
            if db.execute(tables.HAS_FUTURE, (latest, latest)).fetchone() is None:
                return 0
        with self._database.writing() as db:
            db.execute("DELETE FROM slots WHERE last_slot > ?", (latest,))
            return db.execute(tables.VOID_FUTURE, (VOID, latest)).rowcount

    def open_findings(self, *, job: str | None = None) -> tuple[OpenFinding, ...]:
        """Open findings, worst first; see `State.open_findings`."""
        with self._database.reading() as db:
            return tables.open_findings(db, job)

    def due_messages(self, at: datetime, *, limit: int = 50) -> tuple[OutboxEntry, ...]:
        """Messages to send now, oldest first; see `State.due_messages`."""
        put_off = moment(at + LONGEST_WAIT)
        condition = "AND (next_try_at <= ? OR next_try_at > ?)"
        return self._waiting(condition, moment(at), put_off, limit=limit)

    def undelivered(self) -> tuple[OutboxEntry, ...]:
        """All messages not delivered, oldest first."""
        return self._waiting("", limit=-1)

    def mark_accepted(self, entry_id: int, *, target: str) -> None:
        """One target took the message; see `State.mark_accepted`."""
        with self._database.writing() as db:
            tables.accept(db, entry_id, target=target)

    def mark_delivered(self, entry_id: int, *, at: datetime) -> None:
        """Every target took the message; see `State.mark_delivered`."""
        with self._database.writing() as db:
            db.execute(
                "UPDATE outbox SET delivered_at = ?, attempts = attempts + 1"
                " WHERE id = ? AND delivered_at IS NULL",
                (moment(at), entry_id),
            )

    def mark_failed(self, entry_id: int, *, error: str, next_try_at: datetime) -> None:
        """The delivery failed; see `State.mark_failed`."""
        with self._database.writing() as db:
            db.execute(
                "UPDATE outbox SET attempts = attempts + 1, last_error = ?, next_try_at = ?"
                " WHERE id = ? AND delivered_at IS NULL",
                (storable(error), moment(next_try_at), entry_id),
            )

    def give_up(self, entry_ids: Sequence[int], *, target: str, instead: Message) -> None:
        """`target` need not take these any more; see `State.give_up`."""
        with self._database.writing() as db:
            for entry_id in entry_ids:
                tables.accept(db, entry_id, target=target)
            db.execute(tables.INSERT_MESSAGE, message_columns(instead, at=self._clock.now()))

    def pause(self, pause: Pause) -> None:
        """Do not start a job for a while; see `State.pause`."""
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO pauses (job, since, until, reason) VALUES (?, ?, ?, ?)",
                (pause.job, moment(pause.since), moment(pause.until), storable(pause.reason)),
            )

    def resume(self, job: str) -> bool:
        """End the pause of a job; see `State.resume`."""
        with self._database.writing() as db:
            return bool(db.execute("DELETE FROM pauses WHERE job = ?", (job,)).rowcount)

    def pauses(self) -> tuple[Pause, ...]:
        """All pauses; see `State.pauses`."""
        with self._database.reading() as db:
            rows = db.execute("SELECT * FROM pauses ORDER BY job").fetchall()
        return tuple(
            Pause(
                job=row["job"],
                since=parse_moment(row["since"]),
                until=parse_moment(row["until"]),
                reason=row["reason"],
            )
            for row in rows
        )

    def prove_writable(self) -> None:
        """Write something, durably; see `State.prove_writable`."""
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO proof (id, written_at) VALUES (1, ?)",
                (moment(self._clock.now()),),
            )

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._database.close()

    def _newest_first(self) -> Iterator[Run]:
        """All recorded runs, a few at a time: nobody waits, and memory stays small."""
        before = sys.maxsize
        while True:
            with self._database.reading() as db:
                rows = db.execute(
                    "SELECT * FROM runs WHERE outcome IS NOT NULL AND seq < ?"
                    " ORDER BY seq DESC LIMIT ?",
                    (before, _PAGE_RUNS),
                ).fetchall()
            yield from map(run_of, rows)
            if len(rows) < _PAGE_RUNS:
                return
            before = rows[-1]["seq"]

    def _waiting(self, condition: str, *values: str, limit: int) -> tuple[OutboxEntry, ...]:
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT * FROM outbox WHERE delivered_at IS NULL {condition}"  # noqa: S608 - ours
                " ORDER BY id LIMIT ?",
                (*values, limit),
            ).fetchall()
            return tuple(entry_of(row) for row in rows)
