"""What must hold after every fault, as functions from evidence to complaints.

`gather` reads a world after its daemon was started again and has ticked twice; `judge` asks
every oracle. A `Witness` remembers over many lives what was once there and may not vanish.
The numbers are those of the promises: I1 what completed can be restored; I2 every due slot is
on record and what did not complete is told; I3 a slot has one result; I4 the newest good
backups stay; I5 no message is lost; I7 no secret is told; I8 deadlines hold; I10 a restart
settles; I11 nothing half-made stays.

Limits: a slot on which several jobs depend is not known here, and a world has one repository.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from opsd.alerts.gates import quiet_at
from opsd.backup.catalog import Backup, Catalog, Condition, read_catalog
from opsd.backup.repository import NotFound
from opsd.incidents import AlertState, Incident
from opsd.model import Outcome, Run
from opsd.schedule import MOST_MISSED
from opsd.state import FURTHEST_RECORD
from opsd.state.records import unpack
from opsd.testing import FakeClock
from opsd.triage import JOB_CHECK, MISSED_CHECK
from tests.chaos.lives import TICK
from tests.chaos.world import CANARY, JOBS, KEEP, SUBJECTS, TARGETS, TIMEOUT, World, content

OVERTIME = timedelta(seconds=5)
TICKS_TO_SETTLE = 2
RUNS_READ = 500
RESULTS_KEPT = 50  # of a long life only the newest can be asked for
JOB_CHECKS = (JOB_CHECK, MISSED_CHECK)
SILENT = (Outcome.COMPLETED, Outcome.SKIPPED)  # nobody is told of these


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A row of the outbox."""

    key: str
    text: str
    is_delivered: bool
    accepted_by: frozenset[str]
    tags: tuple[str, ...]


@dataclass(slots=True)
class Witness:
    """What was seen in earlier lives of the same world."""

    results: dict[tuple[str, datetime], str] = field(default_factory=dict)  #: run that published
    runs: set[str] = field(default_factory=set)  #: ids of those judged already
    #: Ids of runs of slots that were to come: what they published may go and come again.
    premature: set[str] = field(default_factory=set)
    letters: set[str] = field(default_factory=set)  #: keys of messages
    kills: int = 0

    def remember(self, evidence: Evidence) -> None:
        """Keep what must still be true after the next life."""
        there = {_name(one): one.manifest.run_id for one in evidence.catalog.backups}
        self.results = {**there, **self.results}
        newest = sorted(self.results, key=lambda name: name[1], reverse=True)[:RESULTS_KEPT]
        self.results = {name: self.results[name] for name in {*there, *newest}}
        self.runs = {run.run_id for run in evidence.runs}
        slots = {run.run_id: run.slot for run in evidence.runs}
        slots |= {one.manifest.run_id: one.manifest.slot for one in evidence.catalog.backups}
        early = {run_id for run_id, slot in slots.items() if evidence.is_to_come(slot)}
        self.premature = early | self.premature & {*self.runs, *self.results.values()}
        self.letters = {letter.key for letter in evidence.letters}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A world as it is found."""

    world: World
    witness: Witness
    now: datetime  #: what its clock shows, aware UTC
    runs: tuple[Run, ...]  #: newest first
    running: tuple[tuple[str, str, datetime], ...]
    alerts: AlertState
    letters: tuple[Letter, ...]
    inboxes: dict[str, Counter[str]]  #: how often each message came, by target
    catalog: Catalog
    stored: dict[str, str]  #: SHA-256 of the data objects that manifests name, by key
    files: tuple[str, ...]  #: in the repository, relative
    settled: bool = True  #: another tick changed nothing

    def of_slot(self, job: str, slot: datetime) -> tuple[Run, ...]:
        """Recorded runs that answered it, newest first."""
        return tuple(run for run in self.runs if (run.job, run.slot) == (job, slot))

    def is_answered(self, job: str, slot: datetime) -> bool:
        """Whether a run is on record that was not recorded before the slot had come."""
        return any(run.run_id not in self.witness.premature for run in self.of_slot(job, slot))

    def is_to_come(self, slot: datetime) -> bool:
        """Whether only a clock that was ahead could have recorded it."""
        return slot > self.now + FURTHEST_RECORD


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a look at a world came to; can be sent to another process."""

    complaints: tuple[str, ...]
    witness: Witness  #: remembers this look too
    outcomes: Counter[Outcome]  #: of the runs that it saw for the first time


Oracle = Callable[[Evidence], Iterator[str]]


def gather(world: World, witness: Witness, *, now: datetime, settled: bool = True) -> Evidence:
    """Read everything that the oracles judge."""
    with world.opened(FakeClock(now)) as state:
        runs, running, alerts = state.runs(limit=RUNS_READ), state.running(), state.alerts()
    catalog = read_catalog(world.repository)
    root = world.place / "repository"
    return Evidence(
        world=world,
        witness=witness,
        now=now,
        runs=runs,
        running=running,
        alerts=alerts,
        letters=tuple(_letters(world.state_path)),
        inboxes={target: Counter(world.inbox(target)) for target in TARGETS},
        catalog=catalog,
        stored={one.manifest.key: _sha256(world, one.manifest.key) for one in catalog.backups},
        files=tuple(
            str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()
        ),
        settled=settled,
    )


def judge(evidence: Evidence) -> list[str]:
    """Every complaint of every oracle, each with the name of its own; then remember."""
    complaints = [
        f"{oracle.__name__}: {complaint}" for oracle in ORACLES for complaint in oracle(evidence)
    ]
    evidence.witness.remember(evidence)
    return complaints


def look(world: World, witness: Witness, *, now: datetime) -> Verdict:
    """Gather, judge, and empty the log, which no secret was found in."""
    evidence = gather(world, witness, now=now)
    outcomes = Counter(run.outcome for run in evidence.runs if run.run_id not in witness.runs)
    complaints = tuple(judge(evidence))
    (world.place / "log").write_text("")
    return Verdict(complaints=complaints, witness=witness, outcomes=outcomes)


def i1_what_completed_can_be_restored(evidence: Evidence) -> Iterator[str]:
    """Every stored backup holds what its source held at that time."""
    for backup in evidence.catalog.backups:
        manifest = backup.manifest
        source = hashlib.sha256(content(manifest.subject, manifest.slot)).hexdigest()
        if {source, manifest.sha256} != {evidence.stored[manifest.key]}:
            yield f"{backup.key} does not hold what its source held"
    for problem in evidence.catalog.problems:
        if f"{problem.key.removesuffix('.json')}.tombstone" not in evidence.files:  # else I11
            yield problem.reason


def i2_every_due_slot_is_on_record(evidence: Evidence) -> Iterator[str]:
    """From the first slot on record to now there is no gap, and nothing that never ends."""
    for job in JOBS:
        for slot in _due_slots(evidence, job):
            if not evidence.is_answered(job, slot):
                yield f"{job} {slot:%Y-%m-%d %H:%M} was due and has no record since"
    for run in evidence.runs:
        if run.slot > evidence.now:
            continue  # of a wrong clock
        if run.retry_at and _is_last(evidence, run) and _is_overdue(evidence, run.retry_at):
            newer = any(one.job == run.job and one.slot > run.slot for one in evidence.runs)
            if not newer:
                yield f"{run.job} {run.slot} was to be tried again at {run.retry_at} and was not"


def i2_what_did_not_complete_is_told(evidence: Evidence) -> Iterator[str]:
    """A run that nothing healed opened an incident that people know, or a message says it."""
    alerts = evidence.alerts
    is_held = quiet_at(evidence.world.policy, evidence.now) is not None  # told in the morning
    believed = {one.job for one in alerts.incidents if _is_told(one, is_held=is_held)}
    noted = {event.job for event in alerts.events if event.check in JOB_CHECKS}
    news = "\n".join(
        letter.text for letter in evidence.letters if letter.key not in evidence.witness.letters
    )
    for run in evidence.runs:
        if run.outcome in SILENT or run.run_id in evidence.witness.runs:
            continue
        waits = run.retry_at is not None and not _is_overdue(evidence, run.retry_at)
        if waits or not _is_last(evidence, run):
            continue
        if run.job not in believed | noted and run.job not in news:
            yield f"{run.job} {run.slot:%Y-%m-%d %H:%M} {run.outcome} and nobody is told"


def i3_a_slot_has_one_result(evidence: Evidence) -> Iterator[str]:
    """No two runs claim to have published a slot, and what stands is never replaced."""
    claims = Counter(
        (artifact.subject, run.slot)
        for run in evidence.runs
        for artifact in run.artifacts
        if run.run_id not in evidence.witness.premature
    )
    for (subject, slot), count in claims.items():
        if count > 1:
            yield f"{count} runs claim the result of {subject} {slot}"
    for backup in evidence.catalog.backups:
        manifest = backup.manifest
        first = evidence.witness.results.get((manifest.subject, manifest.slot), manifest.run_id)
        if first not in {manifest.run_id, *evidence.witness.premature}:
            yield f"{backup.key} was published by {first} and is now that of {manifest.run_id}"


def i4_the_newest_good_backups_stay(evidence: Evidence) -> Iterator[str]:
    """Of all that ever were published, the newest are there and good."""
    claimed = {(one.subject, run.slot) for run in evidence.runs for one in run.artifacts}
    # A run that was killed before its record has published all the same.
    ever = claimed | set(evidence.witness.results) | set(map(_name, evidence.catalog.backups))
    good = {_name(one) for one in evidence.catalog.backups if one.condition is Condition.GOOD}
    for subject in SUBJECTS.values():
        newest = sorted((slot for owner, slot in ever if owner == subject), reverse=True)
        for slot in newest[: KEEP.minimum]:
            if (subject, slot) not in good:
                yield f"{subject} {slot} is one of the newest {KEEP.minimum} and is not there"


def i5_no_message_is_lost(evidence: Evidence) -> Iterator[str]:
    """A message has come everywhere or waits; it comes twice only where somebody died."""
    for letter in evidence.letters:
        wanted = [target for target in TARGETS if target in letter.tags] or TARGETS
        came = {target for target in wanted if evidence.inboxes[target][letter.key]}
        if letter.is_delivered and not came.issuperset(wanted):
            yield f"{letter.key} counts as delivered and came only to {sorted(came)}"
        for target in letter.accepted_by - came:
            yield f"{letter.key} counts as accepted by {target} and did not come"
    for key in evidence.witness.letters - {letter.key for letter in evidence.letters}:
        if not any(evidence.inboxes[target][key] for target in TARGETS):
            yield f"{key} is gone and never came"
    for target, inbox in evidence.inboxes.items():
        for key, count in inbox.items():
            if count > 1 + evidence.witness.kills:
                yield f"{key} came to {target} {count} times"


def i7_no_secret_is_told(evidence: Evidence) -> Iterator[str]:
    """What is in the dumps is in the dumps alone."""
    for path in evidence.world.place.rglob("*"):
        if path.is_file() and path.suffix != ".dump" and CANARY.encode() in path.read_bytes():
            yield f"{path.name} holds a secret"


def i8_no_run_goes_on_past_its_deadline(evidence: Evidence) -> Iterator[str]:
    """A run lasts no longer than its timeout."""
    for run in evidence.runs:
        if run.duration > TIMEOUT + OVERTIME:
            yield f"{run.job} {run.slot} lasted {run.duration}"


def i10_a_restart_settles(evidence: Evidence) -> Iterator[str]:
    """After two ticks nothing runs that nobody runs, and a third changes nothing."""
    for job, run_id, _ in evidence.running:
        yield f"run {run_id} of {job} is for ever under way"
    if not evidence.settled:
        yield f"it still changes after {TICKS_TO_SETTLE} ticks"


def i11_nothing_half_made_stays(evidence: Evidence) -> Iterator[str]:
    """Where the newest run completed, there is no temporary file and no data without owner."""
    newest = {run.job: run for run in reversed(evidence.runs)}
    clean = {SUBJECTS[job] for job, run in newest.items() if run.outcome is Outcome.COMPLETED}
    owned = {one.manifest.key for one in evidence.catalog.backups}
    for name in evidence.files:
        if name.rpartition("/")[0] not in clean or name in owned:
            continue
        if re.search(r"/\.partial-|\.tombstone$|\.dump$", name):
            yield f"{name} was left behind"
    for path in evidence.world.state_path.parent.glob("*partial*"):
        yield f"{path.name} was left behind"


ORACLES: tuple[Oracle, ...] = (
    i1_what_completed_can_be_restored,
    i2_every_due_slot_is_on_record,
    i2_what_did_not_complete_is_told,
    i3_a_slot_has_one_result,
    i4_the_newest_good_backups_stay,
    i5_no_message_is_lost,
    i7_no_secret_is_told,
    i8_no_run_goes_on_past_its_deadline,
    i10_a_restart_settles,
    i11_nothing_half_made_stays,
)


def _due_slots(evidence: Evidence, job: str) -> list[datetime]:
    """Slots from the first that is on record to now, of those that are still asked for."""
    recorded = [run.slot for run in evidence.runs if run.job == job and run.slot <= evidence.now]
    if not recorded:
        return []
    since = min(recorded)
    cron = evidence.world.cron(job)
    slots: list[datetime] = []
    slot = cron.previous_slot(evidence.now)
    while slot >= since and len(slots) < MOST_MISSED:
        slots.append(slot)
        slot = cron.previous_slot(slot - timedelta(seconds=1))
    return slots


def _is_last(evidence: Evidence, run: Run) -> bool:
    return evidence.of_slot(run.job, run.slot)[0].run_id == run.run_id


def _is_overdue(evidence: Evidence, moment: datetime) -> bool:
    return moment + TICKS_TO_SETTLE * TICK.passes < evidence.now


def _is_told(incident: Incident, *, is_held: bool) -> bool:
    return incident.finding.check in JOB_CHECKS and (is_held or incident.told is not None)


def _name(backup: Backup) -> tuple[str, datetime]:
    return backup.manifest.subject, backup.manifest.slot


def _sha256(world: World, key: str) -> str:
    try:
        return hashlib.sha256(b"".join(world.repository.read(key))).hexdigest()
    except NotFound:
        return "missing"


def _letters(path: Path) -> Iterator[Letter]:
    """The outbox as it lies in the file: what is delivered is shown by no other way."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        for key, title, body, tags, accepted_by, delivered_at in db.execute(
            "SELECT key, title, body, tags, accepted_by, delivered_at FROM outbox ORDER BY id"
        ):
            yield Letter(
                key=key,
                text=f"{title}\n{body}",
                is_delivered=delivered_at is not None,
                accepted_by=unpack(accepted_by, frozenset[str]),
                tags=unpack(tags, tuple[str, ...]),
            )
