"""The state of one opsd in one SQLite file on a local disk.

What a run found, what it changed and what people will be told are written in one
transaction: whatever dies when, no message is lost and none is made twice.

Limits: one machine; the file must not lie on NFS. History is bounded to the newest
`RUNS_KEPT` runs of a job and the newest `MESSAGES_KEPT` delivered messages.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from pathlib import Path

from opsd.clock import Clock
from opsd.model import Change, OpenFinding, Outcome, Run, Transition
from opsd.state import Compose, OutboxEntry
from opsd.state.database import Database
from opsd.state.leases import lease
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
from opsd.text import storable
from opsd.triage import findings_of, transitions

RUNS_KEPT = 1000  # per job
MESSAGES_KEPT = 1000  # delivered ones


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

    def begin(self, *, job: str, run_id: str, slot: datetime, at: datetime) -> None:
        """Write down that a run starts; see `State.begin`."""
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO runs (run_id, job, slot, started_at) VALUES (?, ?, ?, ?)",
                (run_id, job, moment(slot), moment(at)),
            )

    def record(self, run: Run, *, compose: Compose) -> tuple[Transition, ...]:
        """Store the end of a run; see `State.record`."""
        run, at = storable_run(run), self._clock.now()
        with self._database.writing() as db:
            if not _store_run(db, run):
                return ()
            changed = tuple(transitions(run, _open_findings(db, run.job), at=at))
            _store_findings(db, run, changed)
            for message in compose(run, changed):
                db.execute(_INSERT_MESSAGE, message_columns(message, at=at))
            _prune(db, run.job)
        return changed

    def unfinished_runs(self, job: str) -> tuple[Run, ...]:
        """Runs that began and were never recorded; see `State.unfinished_runs`."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT run_id, slot, started_at FROM runs"
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

    def last_slot(self, job: str) -> datetime | None:
        """The latest slot that has a recorded run; see `State.last_slot`."""
        with self._database.reading() as db:
            row = db.execute("SELECT last_slot FROM slots WHERE job = ?", (job,)).fetchone()
        return None if row is None else parse_moment(row["last_slot"])

    def open_findings(self, *, job: str | None = None) -> tuple[OpenFinding, ...]:
        """Open findings, worst first; see `State.open_findings`."""
        with self._database.reading() as db:
            return _open_findings(db, job)

    def due_messages(self, at: datetime, *, limit: int = 50) -> tuple[OutboxEntry, ...]:
        """Messages to send now, oldest first; see `State.due_messages`."""
        return self._waiting("AND next_try_at <= ?", moment(at), limit=limit)

    def undelivered(self) -> tuple[OutboxEntry, ...]:
        """All messages not delivered, oldest first."""
        return self._waiting("", limit=-1)

    def mark_accepted(self, entry_id: int, *, target: str) -> None:
        """One target took the message; see `State.mark_accepted`."""
        with self._database.writing() as db:
            row = db.execute("SELECT accepted_by FROM outbox WHERE id = ?", (entry_id,)).fetchone()
            if row is not None:
                accepted = unpack(row["accepted_by"], frozenset[str]) | {storable(target)}
                db.execute(
                    "UPDATE outbox SET accepted_by = ? WHERE id = ?",
                    (pack(sorted(accepted)), entry_id),
                )

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

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._database.close()

    def _waiting(self, condition: str, *values: str, limit: int) -> tuple[OutboxEntry, ...]:
        with self._database.reading() as db:
            rows = db.execute(
                f"SELECT * FROM outbox WHERE delivered_at IS NULL {condition}"  # noqa: S608 - ours
                " ORDER BY id LIMIT ?",
                (*values, limit),
            ).fetchall()
            return tuple(entry_of(row) for row in rows)


_INSERT_MESSAGE = """
INSERT INTO outbox (key, severity, title, body, created_at, next_try_at)
VALUES (:key, :severity, :title, :body, :created_at, :next_try_at)
ON CONFLICT (key) DO NOTHING
"""
_INSERT_RUN = """
INSERT INTO runs (run_id, job, slot, started_at, outcome, duration_s, findings, artifacts,
                  seen, error)
VALUES (:run_id, :job, :slot, :started_at, :outcome, :duration_s, :findings, :artifacts,
        :seen, :error)
ON CONFLICT (run_id) DO UPDATE SET
    started_at = excluded.started_at, outcome = excluded.outcome,
    duration_s = excluded.duration_s, findings = excluded.findings,
    artifacts = excluded.artifacts, seen = excluded.seen, error = excluded.error
WHERE outcome IS NULL
"""
_RAISE_LAST_SLOT = """
INSERT INTO slots (job, last_slot) VALUES (?, ?)
ON CONFLICT (job) DO UPDATE SET last_slot = max(last_slot, excluded.last_slot)
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


def _store_run(db: sqlite3.Connection, run: Run) -> bool:
    """Whether the run was not recorded before."""
    if not db.execute(_INSERT_RUN, run_columns(run)).rowcount:
        return False
    db.execute(_RAISE_LAST_SLOT, (run.job, moment(run.slot)))
    return True


def _open_findings(db: sqlite3.Connection, job: str | None) -> tuple[OpenFinding, ...]:
    rows = db.execute(
        "SELECT job, opened_at, finding FROM open_findings WHERE job = coalesce(?, job)"
        " ORDER BY severity DESC, opened_at, check_name, subject",
        (job,),
    ).fetchall()
    return tuple(open_finding_of(row) for row in rows)


def _store_findings(db: sqlite3.Connection, run: Run, changed: Iterable[Transition]) -> None:
    """Open, refresh and close: a finding that stays open carries its newest evidence."""
    for finding in findings_of(run):
        db.execute(
            "UPDATE open_findings SET finding = ? WHERE job = ? AND check_name = ?"
            " AND subject = ?",
            (pack(finding), run.job, finding.check, finding.subject),
        )
    for transition in changed:
        finding = transition.finding
        key = (run.job, finding.check, finding.subject)
        if transition.change is Change.RESOLVED:
            db.execute(
                "DELETE FROM open_findings WHERE job = ? AND check_name = ? AND subject = ?", key
            )
        else:
            opened_at = moment(transition.opened_at)
            db.execute(_STORE_FINDING, (*key, int(finding.severity), opened_at, pack(finding)))


def _prune(db: sqlite3.Connection, job: str) -> None:
    db.execute(_PRUNE_RUNS, (job, job, RUNS_KEPT))
    db.execute(_PRUNE_MESSAGES, (MESSAGES_KEPT,))
