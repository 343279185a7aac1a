"""Values as rows: plain JSON in text columns, times that sort as text.

Limits: what goes in is made storable (`opsd.text.storable`), so a name that is not UTF-8
comes back with its bytes escaped; the key of a finding is compared in that form.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec

from opsd.model import Artifact, Finding, Message, OpenFinding, Outcome, Run, Severity
from opsd.state import OutboxEntry
from opsd.text import storable

ValueT = TypeVar("ValueT")
# When two threads are the first to use a type, msgspec 0.22 crashes the process.
_first_use = threading.Lock()


def moment(value: datetime) -> str:
    """A time as a column holds it: UTC, microseconds, sorts as text."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")


def parse_moment(text: str) -> datetime:
    """The aware UTC time of a column."""
    return datetime.fromisoformat(text)


def pack(value: object) -> str:
    """Any value of `opsd.model` as JSON text."""
    return json.dumps(_plain(msgspec.to_builtins(value, enc_hook=_unknown)), separators=(",", ":"))


def unpack(text: str, into: type[ValueT]) -> ValueT:
    """The value that `pack` was given."""
    value = json.loads(text)
    with _first_use:
        return msgspec.convert(value, into)


def storable_run(run: Run) -> Run:
    """`run` as it will come back from the store."""
    return replace(
        run,
        findings=unpack(pack(run.findings), tuple[Finding, ...]),
        artifacts=unpack(pack(run.artifacts), tuple[Artifact, ...]),
        seen=tuple(storable(subject) for subject in run.seen),
        unseen=tuple(storable(subject) for subject in run.unseen),
        error=storable(run.error),
    )


def run_columns(run: Run) -> dict[str, Any]:
    """The columns of a run that has ended."""
    return {
        "run_id": run.run_id,
        "job": run.job,
        "slot": moment(run.slot),
        "started_at": moment(run.started_at),
        "outcome": run.outcome.value,
        "duration_s": run.duration.total_seconds(),
        "findings": pack(run.findings),
        "artifacts": pack(run.artifacts),
        "seen": pack(run.seen),
        "unseen": pack(run.unseen),
        "error": run.error,
        "attempt": run.attempt,
        "retry_at": None if run.retry_at is None else moment(run.retry_at),
    }


def run_of(row: sqlite3.Row) -> Run:
    """A recorded run."""
    return Run(
        job=row["job"],
        run_id=row["run_id"],
        slot=parse_moment(row["slot"]),
        started_at=parse_moment(row["started_at"]),
        duration=timedelta(seconds=row["duration_s"]),
        outcome=Outcome(row["outcome"]),
        findings=unpack(row["findings"], tuple[Finding, ...]),
        artifacts=unpack(row["artifacts"], tuple[Artifact, ...]),
        seen=unpack(row["seen"], tuple[str, ...]),
        unseen=unpack(row["unseen"], tuple[str, ...]),
        error=row["error"],
        attempt=row["attempt"],
        retry_at=None if row["retry_at"] is None else parse_moment(row["retry_at"]),
    )


def open_finding_of(row: sqlite3.Row) -> OpenFinding:
    """A finding that is open."""
    return OpenFinding(
        finding=unpack(row["finding"], Finding),
        job=row["job"],
        opened_at=parse_moment(row["opened_at"]),
    )


def message_columns(message: Message, *, at: datetime) -> dict[str, Any]:
    """The columns of a new message, due at once."""
    return {
        "key": storable(message.key),
        "severity": int(message.severity),
        "title": storable(message.title),
        "body": storable(message.body),
        "tags": pack(message.tags),
        "created_at": moment(at),
        "next_try_at": moment(at),
    }


def entry_of(row: sqlite3.Row) -> OutboxEntry:
    """A message that waits."""
    return OutboxEntry(
        id=row["id"],
        message=Message(
            key=row["key"],
            severity=Severity(row["severity"]),
            title=row["title"],
            body=row["body"],
            tags=unpack(row["tags"], tuple[str, ...]),
        ),
        created_at=parse_moment(row["created_at"]),
        attempts=row["attempts"],
        next_try_at=parse_moment(row["next_try_at"]),
        last_error=row["last_error"],
        accepted_by=unpack(row["accepted_by"], frozenset[str]),
    )


def _unknown(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {storable(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_plain(item) for item in value]
    return value
