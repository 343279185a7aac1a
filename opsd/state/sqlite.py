"""The state of one opsd in one SQLite file on a local disk.

What a run found, what it changed and what people will be told are written in one
transaction: whatever dies when, no message is lost and none is made twice.

Limits: one machine; the file must not lie on NFS. History is bounded to the newest
`RUNS_KEPT` runs of a job and the newest `MESSAGES_KEPT` delivered messages.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

from opsd.clock import Clock
from opsd.errors import SlotAnswered
from opsd.incidents import AlertState, Pause
from opsd.model import Change, Finding, Message, OpenFinding, Outcome, Run, Transition
from opsd.state import FURTHEST_RECORD, LONGEST_WAIT, Holder, OutboxEntry, Tell
from opsd.state.database import Database
from opsd.state.leases import holder, lease
from opsd.state.records import (
    entry_of,
    message_columns,
    moment,
    open_finding_of,
    pack,
    parse_moment,
    run_columns,
    run_of,
    storable_run,
    unpack,
)
from opsd.state.tally import Tally, tally
from opsd.text import storable
from opsd.triage import changes, findings_of, transitions

RUNS_KEPT = 1000  # per job
MESSAGES_KEPT = 1000  # delivered ones
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
            if attempt and _is_answered(db, job, slot=slot, at=at):
                raise SlotAnswered(f"{job} has already answered the slot {slot.isoformat()}")
            db.execute(
                "INSERT INTO runs (run_id, job, slot, started_at, attempt) VALUES (?, ?, ?, ?, ?)",
                (run_id, job, moment(slot), moment(at), attempt),
            )

    def record(self, run: Run, *, tell: Tell) -> tuple[Transition, ...]:
        """Store the end of a run; see `State.record`."""
        with self._database.writing() as db:
            return _record(db, storable_run(run), tell=tell, at=self._clock.now())

    def close_slot(self, run: Run, *, tell: Tell) -> bool:
        """Record how a slot ended without a run; see `State.close_slot`."""
        with self._database.writing() as db:
            if _is_answered(db, run.job, slot=run.slot, at=run.started_at):
                return False
            _record(db, storable_run(run), tell=tell, at=self._clock.now())
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
                    _open_findings(db, job),
                    at=at,
                    is_over=lambda finding: finding.subject in subjects,
                )
            )
            _store_findings(db, job, found, changed)
            _tell(db, tell, at=at)
        return changed

    def tell(self, tell: Tell) -> None:
        """Look at what people must be told by now; see `State.tell`."""
        at = self._clock.now()
        with self._database.reading() as db:
            before = _alerts(db)
            after, messages = tell(before, _open_findings(db, None), at)
        if after != before or messages:
            with self._database.writing() as db:
                _tell(db, tell, at=at)

    def alerts(self) -> AlertState:
        """What people were told; see `State.alerts`."""
        with self._database.reading() as db:
            return _alerts(db)

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
                (job, Outcome.COMPLETED.value, RUNS_KEPT),
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
            row = db.execute(_LAST_SLOT, values).fetchone()
        return None if row["slot"] is None else parse_moment(row["slot"])

    def open_findings(self, *, job: str | None = None) -> tuple[OpenFinding, ...]:
        """Open findings, worst first; see `State.open_findings`."""
        with self._database.reading() as db:
            return _open_findings(db, job)

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
            _accept(db, entry_id, target=target)

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
                _accept(db, entry_id, target=target)
            db.execute(_INSERT_MESSAGE, message_columns(instead, at=self._clock.now()))

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


_INSERT_MESSAGE = """
INSERT INTO outbox (key, severity, title, body, tags, created_at, next_try_at)
VALUES (:key, :severity, :title, :body, :tags, :created_at, :next_try_at)
ON CONFLICT (key) DO NOTHING
"""
_INSERT_RUN = """
INSERT INTO runs (run_id, job, slot, started_at, outcome, duration_s, findings, artifacts,
                  seen, error, attempt, retry_at)
VALUES (:run_id, :job, :slot, :started_at, :outcome, :duration_s, :findings, :artifacts,
        :seen, :error, :attempt, :retry_at)
ON CONFLICT (run_id) DO UPDATE SET
    started_at = excluded.started_at, outcome = excluded.outcome,
    duration_s = excluded.duration_s, findings = excluded.findings,
    artifacts = excluded.artifacts, seen = excluded.seen, error = excluded.error,
    attempt = excluded.attempt, retry_at = excluded.retry_at
WHERE outcome IS NULL
"""
_RAISE_LAST_SLOT = """
INSERT INTO slots (job, last_slot) VALUES (?, ?)
ON CONFLICT (job) DO UPDATE SET last_slot = max(last_slot, excluded.last_slot)
"""
_LAST_SLOT = """
SELECT max(slot) AS slot FROM (
    SELECT max(slot) AS slot FROM runs
    WHERE job = :job AND slot <= :at AND attempt > 0 AND outcome IS NOT NULL
        AND (started_at <= :latest OR outcome = 'completed')
    UNION ALL
    SELECT last_slot FROM slots WHERE job = :job AND last_slot <= :at)
"""
_ANSWERS = """
SELECT 1 FROM runs
WHERE job = ? AND slot = ? AND attempt > 0
    AND (started_at <= ? OR outcome = 'completed')
    AND (outcome IS NULL OR retry_at IS NULL)
"""
_STORE_FINDING = """
INSERT INTO open_findings (job, check_name, subject, severity, opened_at, finding)
VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (job, check_name, subject) DO UPDATE SET
    severity = excluded.severity, finding = excluded.finding
"""
_PRUNE_RUNS = """
DELETE FROM runs WHERE job = ? AND outcome IS NOT NULL AND seq NOT IN (
    SELECT seq FROM runs WHERE job = ? AND outcome IS NOT NULL ORDER BY seq DESC LIMIT ?)
"""
_PRUNE_MESSAGES = """
DELETE FROM outbox WHERE delivered_at IS NOT NULL AND id NOT IN (
    SELECT id FROM outbox WHERE delivered_at IS NOT NULL ORDER BY id DESC LIMIT ?)
"""


def _record(
    db: sqlite3.Connection, run: Run, *, tell: Tell, at: datetime
) -> tuple[Transition, ...]:
    if not _store_run(db, run):
        return ()
    changed = tuple(transitions(run, _open_findings(db, run.job), at=at))
    _store_findings(db, run.job, findings_of(run), changed)
    _tell(db, tell, at=at)
    _prune(db, run.job)
    return changed


def _store_run(db: sqlite3.Connection, run: Run) -> bool:
    """Whether the run was not recorded before."""
    if not db.execute(_INSERT_RUN, run_columns(run)).rowcount:
        return False
    if run.attempt:
        db.execute(_RAISE_LAST_SLOT, (run.job, moment(run.slot)))
    return True


def _is_answered(db: sqlite3.Connection, job: str, *, slot: datetime, at: datetime) -> bool:
    latest = moment(at + FURTHEST_RECORD)
    return db.execute(_ANSWERS, (job, moment(slot), latest)).fetchone() is not None


def _open_findings(db: sqlite3.Connection, job: str | None) -> tuple[OpenFinding, ...]:
    rows = db.execute(
        "SELECT job, opened_at, finding FROM open_findings WHERE job = coalesce(?, job)"
        " ORDER BY severity DESC, opened_at, check_name, subject",
        (job,),
    ).fetchall()
    return tuple(open_finding_of(row) for row in rows)


def _store_findings(
    db: sqlite3.Connection, job: str, findings: Iterable[Finding], changed: Iterable[Transition]
) -> None:
    """Open, refresh and close: a finding that stays open carries its newest evidence."""
    for finding in findings:
        db.execute(
            "UPDATE open_findings SET finding = ? WHERE job = ? AND check_name = ?"
            " AND subject = ?",
            (pack(finding), job, finding.check, finding.subject),
        )
    for transition in changed:
        finding = transition.finding
        key = (job, finding.check, finding.subject)
        if transition.change is Change.RESOLVED:
            db.execute(
                "DELETE FROM open_findings WHERE job = ? AND check_name = ? AND subject = ?", key
            )
        else:
            opened_at = moment(transition.opened_at)
            db.execute(_STORE_FINDING, (*key, int(finding.severity), opened_at, pack(finding)))


def _tell(db: sqlite3.Connection, tell: Tell, *, at: datetime) -> None:
    """Store what people know from now on, and the messages that tell them."""
    before = _alerts(db)
    after, messages = tell(before, _open_findings(db, None), at)
    if after != before:
        db.execute("INSERT OR REPLACE INTO alerts (id, content) VALUES (1, ?)", (pack(after),))
    for message in messages:
        db.execute(_INSERT_MESSAGE, message_columns(message, at=at))


def _alerts(db: sqlite3.Connection) -> AlertState:
    row = db.execute("SELECT content FROM alerts").fetchone()
    return AlertState() if row is None else unpack(row["content"], AlertState)


def _accept(db: sqlite3.Connection, entry_id: int, *, target: str) -> None:
    row = db.execute("SELECT accepted_by FROM outbox WHERE id = ?", (entry_id,)).fetchone()
    if row is not None:
        accepted = unpack(row["accepted_by"], frozenset[str]) | {storable(target)}
        db.execute(
            "UPDATE outbox SET accepted_by = ? WHERE id = ?", (pack(sorted(accepted)), entry_id)
        )


def _prune(db: sqlite3.Connection, job: str) -> None:
    db.execute(_PRUNE_RUNS, (job, job, RUNS_KEPT))
    db.execute(_PRUNE_MESSAGES, (MESSAGES_KEPT,))
