"""What is written to the tables of the state together, within a transaction of the caller.

Limits: statements only; when they happen, and for whom, is decided in `opsd.state.sqlite`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from opsd.incidents import AlertState
from opsd.model import Change, Finding, OpenFinding, Run, Transition
from opsd.state import FURTHEST_RECORD, Tell
from opsd.state.records import (
    message_columns,
    moment,
    open_finding_of,
    pack,
    run_columns,
    unpack,
)
from opsd.text import storable
from opsd.triage import findings_of, transitions

RUNS_KEPT = 1000  # per job
MESSAGES_KEPT = 1000  # delivered ones

INSERT_MESSAGE = """
INSERT INTO outbox (key, severity, title, body, tags, created_at, next_try_at)
VALUES (:key, :severity, :title, :body, :tags, :created_at, :next_try_at)
ON CONFLICT (key) DO NOTHING
"""
_INSERT_RUN = """
INSERT INTO runs (run_id, job, slot, started_at, outcome, duration_s, findings, artifacts,
                  seen, unseen, error, attempt, retry_at)
VALUES (:run_id, :job, :slot, :started_at, :outcome, :duration_s, :findings, :artifacts,
        :seen, :unseen, :error, :attempt, :retry_at)
ON CONFLICT (run_id) DO UPDATE SET
    started_at = excluded.started_at, outcome = excluded.outcome,
    duration_s = excluded.duration_s, findings = excluded.findings,
    artifacts = excluded.artifacts, seen = excluded.seen, unseen = excluded.unseen,
    error = excluded.error, attempt = excluded.attempt, retry_at = excluded.retry_at
WHERE outcome IS NULL
"""
_RAISE_LAST_SLOT = """
INSERT INTO slots (job, last_slot) VALUES (?, ?)
ON CONFLICT (job) DO UPDATE SET last_slot = max(last_slot, excluded.last_slot)
"""
LAST_SLOT = """
SELECT max(slot) AS slot FROM (
    SELECT max(slot) AS slot FROM runs
    WHERE job = :job AND slot <= :at AND attempt > 0 AND outcome IS NOT NULL
        AND (started_at <= :latest OR outcome = 'completed')
    UNION ALL
    SELECT last_slot FROM slots WHERE job = :job AND last_slot <= :at)
"""
HAS_FUTURE = """
SELECT 1 FROM runs WHERE slot > ? AND attempt > 0 AND outcome IS NOT NULL
UNION ALL
SELECT 1 FROM slots WHERE last_slot > ?
"""
VOID_FUTURE = """
UPDATE runs SET attempt = ?, retry_at = NULL
WHERE slot > ? AND attempt > 0 AND outcome IS NOT NULL
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


def record(
    db: sqlite3.Connection, run: Run, *, tell: Tell, at: datetime
) -> tuple[Transition, ...]:
    """Store the end of a run, what it changed and what people are told; see `State.record`."""
    if not _store_run(db, run):
        return ()
    changed = tuple(transitions(run, open_findings(db, run.job), at=at))
    store_findings(db, run.job, findings_of(run), changed)
    tell_people(db, tell, at=at)
    _prune(db, run.job)
    return changed


def _store_run(db: sqlite3.Connection, run: Run) -> bool:
    """Whether the run was not recorded before."""
    if not db.execute(_INSERT_RUN, run_columns(run)).rowcount:
        return False
    if run.attempt:
        db.execute(_RAISE_LAST_SLOT, (run.job, moment(run.slot)))
    return True


def is_answered(db: sqlite3.Connection, job: str, *, slot: datetime, at: datetime) -> bool:
    """Whether a run has answered the slot for good, or is about to; `at` is now."""
    latest = moment(at + FURTHEST_RECORD)
    return db.execute(_ANSWERS, (job, moment(slot), latest)).fetchone() is not None


def open_findings(db: sqlite3.Connection, job: str | None) -> tuple[OpenFinding, ...]:
    """Open findings of one job or of all, worst first."""
    rows = db.execute(
        "SELECT job, opened_at, finding FROM open_findings WHERE job = coalesce(?, job)"
        " ORDER BY severity DESC, opened_at, check_name, subject",
        (job,),
    ).fetchall()
    return tuple(open_finding_of(row) for row in rows)


def store_findings(
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


def tell_people(db: sqlite3.Connection, tell: Tell, *, at: datetime) -> None:
    """Store what people know from now on, and the messages that tell them."""
    before = alerts(db)
    after, messages = tell(before, open_findings(db, None), at)
    if after != before:
        db.execute("INSERT OR REPLACE INTO alerts (id, content) VALUES (1, ?)", (pack(after),))
    for message in messages:
        db.execute(INSERT_MESSAGE, message_columns(message, at=at))


def alerts(db: sqlite3.Connection) -> AlertState:
    """What people were told."""
    row = db.execute("SELECT content FROM alerts").fetchone()
    return AlertState() if row is None else unpack(row["content"], AlertState)


def accept(db: sqlite3.Connection, entry_id: int, *, target: str) -> None:
    """Remember that a target need not be sent a message again."""
    row = db.execute("SELECT accepted_by FROM outbox WHERE id = ?", (entry_id,)).fetchone()
    if row is not None:
        accepted = unpack(row["accepted_by"], frozenset[str]) | {storable(target)}
        db.execute(
            "UPDATE outbox SET accepted_by = ? WHERE id = ?", (pack(sorted(accepted)), entry_id)
        )


def _prune(db: sqlite3.Connection, job: str) -> None:
    db.execute(_PRUNE_RUNS, (job, job, RUNS_KEPT))
    db.execute(_PRUNE_MESSAGES, (MESSAGES_KEPT,))
