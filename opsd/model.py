"""The values that flow through opsd: what a job saw, how a run ended, what changed.

Standard library only. Nothing here performs I/O or reads the clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Fact = str | int | float | bool | None


class Severity(enum.IntEnum):
    """How soon a person must act."""

    INFO = 0  #: no action; shown in reports, never pushed to a phone
    WARNING = 1  #: act within days
    CRITICAL = 2  #: act now: data loss or an outage is happening, or is one fault away

    @property
    def label(self) -> str:
        """Lower-case name, as it appears in configuration, JSON and on the screen."""
        return self.name.lower()


#: The `Run.attempt` of what a clock that was ahead recorded: it answers no slot.
VOID = -1


class Outcome(enum.StrEnum):
    """How the slot of a job ended. Says nothing about what the job found."""

    COMPLETED = "completed"  #: looked at all but `unseen`; absence of a finding means health
    FAILED = "failed"  #: an error stopped it, wholly or in part
    TIMED_OUT = "timed_out"  #: the deadline passed
    INTERRUPTED = "interrupted"  #: the process that ran it ended first
    MISSED = "missed"  #: it was due while nothing could run it, and is too late now
    SKIPPED = "skipped"  #: it did not start: another run was under way, or nobody wanted it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about one subject that a person should know.

    Two findings with equal `check` and `subject` are the same problem seen twice.
    """

    check: str  #: stable dotted name, e.g. ``postgres.dump_failed``
    subject: str  #: ``kind/name`` or deeper, e.g. ``database/main/app``, ``share/nfs``
    severity: Severity
    summary: str  #: one sentence, at most 120 characters, no full stop
    remedy: str = ""  #: the next command or page to open; empty when there is none
    facts: Mapping[str, Fact] = field(default_factory=dict)  #: evidence; units in the keys
    cause: str = ""  #: subject of the finding that this one follows from; told with that one
    #: Told only when it has been open for so long, and its end when it was gone for as long.
    steady_for: timedelta = timedelta(0)

    @property
    def key(self) -> tuple[str, str]:
        """Identity: the same key in two runs is the same problem."""
        return (self.check, self.subject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One backup that a run wrote, read back and published."""

    kind: str  #: ``pg_dump``, ``pg_globals``, ``restic``, ``rsync``, ``pv_catalog``
    subject: str  #: what it is a copy of, e.g. ``database/main/app``
    repository: str  #: configured name of the repository that holds it
    key: str  #: manifest key in the repository, e.g. ``database/main/app/20261122T030000Z.json``
    size_bytes: int  #: stored bytes (restic: bytes that the run added)
    sha256: str  #: of the stored bytes, read back after the write; restic: the snapshot's id
    level: str  #: highest verification reached: ``read_back``, ``parsed``, ``restored``
    facts: Mapping[str, Fact] = field(default_factory=dict)  #: for people: tables, rows, files


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A job looked at this subject completely: a finding it no longer yields is over."""

    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A job could not look at this subject: what is open on it, or below it, stays open.

    So that a check of many machines completes although one of them could not be read. Say why
    in a finding.
    """

    subject: str

    def covers(self, subject: str) -> bool:
        """Whether `subject` is this one or lies below it."""
        return subject == self.subject or subject.startswith(f"{self.subject}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run has to say at length, for who asked for it. Not stored."""

    text: str  #: Markdown
    data: Mapping[str, Any]  #: the same as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of one job for one slot, as stored."""

    job: str
    run_id: str  #: 12 lower-case hex digits, unique
    slot: datetime  #: the due time this run answers, aware UTC, whole seconds
    started_at: datetime  #: aware UTC
    duration: timedelta
    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    seen: tuple[str, ...] = ()  #: subjects whose absence from `findings` means health
    unseen: tuple[str, ...] = ()  #: subjects of `Unseen`: their absence means nothing
    error: str = ""  #: what stopped it, in one line; empty when completed
    attempt: int = 0  #: which try of its slot, from 1; 0: somebody asked for it; or `VOID`
    retry_at: datetime | None = None  #: its slot is tried again then, aware UTC
    #: Why it failed may be over in a minute. For deciding about another try; not stored.
    may_pass: bool = field(default=False, compare=False)
    #: For who asked for the run; not stored.
    report: Report | None = field(default=None, compare=False)


class Change(enum.StrEnum):
    """What happened to a finding between two runs."""

    OPENED = "opened"
    WORSENED = "worsened"
    EASED = "eased"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFinding:
    """A finding that is open, with the time since it has been."""

    finding: Finding
    job: str
    opened_at: datetime  #: aware UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A finding that opened, worsened, eased or resolved: the only thing that is alerted."""

    change: Change
    finding: Finding  #: as it is now; for RESOLVED as it was last
    job: str
    opened_at: datetime  #: aware UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message for people, ready to be sent: plain text, no markup."""

    key: str  #: de-duplication key: a second message with this key is never stored
    severity: Severity
    title: str  #: at most 200 characters; says what to do
    body: str
    tags: tuple[str, ...] = ()  #: goes to targets with one of these tags or names; none: to all
