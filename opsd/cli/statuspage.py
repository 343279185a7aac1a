"""What stands on the status page, from the records, the repositories and the machines. Pure.

Something that should be backed up and is not is a row as well: what is missing is what one
looks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from opsd import __version__
from opsd.alerts.marks import key_of
from opsd.cli import nodelist
from opsd.cli.backups import proof_cell
from opsd.cli.jobs import FEWEST_USUAL, Past, cron_of, latest_durations, slot_text, took_text
from opsd.cli.overview import mark_text, outcome_cell
from opsd.cli.page import TONES, Copy, Machine, Status, Thing, Trouble, Word, Work
from opsd.cli.places import Reading
from opsd.cli.records import JobStatus, Records
from opsd.cli.render import Cell, Tone, age_text, name_text, size_text, span_text
from opsd.cli.selecting import Held, newest
from opsd.cli.silencing import silence_text
from opsd.cli.statusscreen import hold_text, messages
from opsd.model import Fact, Finding, OpenFinding, Severity
from opsd.text import printable

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring

UPGRADE = "upgrade."  # the beginning of checks that have a section of their own
NOT_COVERED = "backup.not_covered"
LATE = 2  # times the time between two backups
_SEVERITIES = {Severity.CRITICAL: "bad", Severity.WARNING: "warning"}
_RESTORED = "restored"


def compose(
    wiring: Wiring,
    records: Records,
    readings: Sequence[Reading],
    *,
    past: Past,
    machines: Sequence[nodelist.Page],
    verdict: tuple[str, Tone],
    now: datetime,
) -> Status:
    """The whole page.

    Args:
        wiring: the configuration.
        records: what the state says.
        readings: what the repositories hold.
        past: the last runs of the jobs.
        machines: what is known of the machines.
        verdict: all of it in one sentence, and its colour.
        now: aware UTC.
    """
    timezone = wiring.config.timezone
    upgrade = [one for one in records.findings if one.finding.check.startswith(UPGRADE)]
    others = [one for one in records.news if one not in upgrade]
    return Status(
        verdict=_word(Cell(*verdict)),
        at=f"{now.astimezone(timezone):%Y-%m-%d %H:%M} {timezone.key}",
        version=__version__,
        notes=tuple(_notes(wiring, records, readings, now)),
        things=tuple(_things(readings, others, wanted=_wanted(wiring, past, now), now=now)),
        troubles=tuple(_troubles(others, records, now=now, timezone=timezone)),
        works=tuple(_work(one, wiring, past, now) for one in records.jobs),
        machines=tuple(_machines(machines, now)),
        upgrade=tuple(_trouble(one, records, now=now, timezone=timezone) for one in upgrade),
        silenced=tuple(
            f"{silence_text(one, now=now, timezone=timezone)}: {one.reason}"
            for one in records.silences
        ),
    )


def _word(cell: Cell) -> Word:
    return Word(text=cell.text, tone=TONES[cell.tone])


def _notes(
    wiring: Wiring, records: Records, readings: Sequence[Reading], now: datetime
) -> Iterator[Word]:
    """What could not be told, and what is to be known about opsd itself."""
    if records.error:
        yield Word(text=f"could not tell what was run: {records.error}", tone="bad")
    for reading in readings:
        name = reading.repository.name
        if reading.error:
            yield Word(text=f"could not tell what is in {name}: {reading.error}", tone="bad")
        elif reading.damaged:
            told = f"{name} holds damaged backups, {len(reading.damaged)} in all"
            yield Word(text=f"{told}: {reading.damaged[-1]}", tone="bad")
    if records.daemon is None and not records.error:
        yield Word(text="the daemon is not running: nothing starts by itself", tone="warning")
    for told, remedy in messages(wiring.config, records, now):
        yield Word(text=": ".join(filter(None, (told, remedy))), tone="warning")


def _wanted(wiring: Wiring, past: Past, now: datetime) -> dict[str, timedelta]:
    """By subject of a backup: the longest time between two slots of the job that makes it."""
    wanted: dict[str, timedelta] = {}
    for job, runs in past.runs.items():
        cron = cron_of(wiring.config.jobs.get(job), wiring)
        if cron is not None:
            subjects = {artifact.subject for run in runs for artifact in run.artifacts}
            wanted |= dict.fromkeys(subjects, cron.longest_gap(now))
    return wanted


def _things(
    readings: Sequence[Reading],
    findings: Sequence[OpenFinding],
    *,
    wanted: Mapping[str, timedelta],
    now: datetime,
) -> Iterator[Thing]:
    """Everything that is backed up or should be; what is worst first."""
    uncovered = {
        entry.finding.subject: entry.finding.severity
        for entry in findings
        if entry.finding.check == NOT_COVERED
    }
    every = [held for reading in readings for held in reading.backups]
    copies = [held for reading in readings for held in newest(reading.backups)]
    subjects = sorted({held.subject for held in every} | set(uncovered))
    things = [
        _thing(
            subject,
            [held for held in copies if held.subject == subject],
            restored=_restored_at([held for held in every if held.subject == subject]),
            uncovered=uncovered.get(subject),
            wanted=wanted.get(subject),
            now=now,
        )
        for subject in subjects
    ]
    order = ("bad", "warning", "good")
    yield from sorted(things, key=lambda one: order.index(one.state.tone))


def _restored_at(series: Sequence[Held]) -> datetime | None:
    proven = (held for held in series if held.is_good)
    return max(
        (
            held.backup.manifest.created_at
            for held in proven
            if held.backup.level.label == _RESTORED
        ),
        default=None,
    )


def _thing(
    subject: str,
    copies: Sequence[Held],
    *,
    restored: datetime | None,
    uncovered: Severity | None,
    wanted: timedelta | None,
    now: datetime,
) -> Thing:
    made_at = max((one.backup.manifest.created_at for one in copies if one.is_good), default=None)
    kind, _, name = name_text(subject).partition("/")
    return Thing(
        kind=kind,
        name=name,
        state=_state(copies, made_at, uncovered=uncovered, wanted=wanted, now=now),
        newest=age_text(made_at, now) if made_at else "none",
        wanted=f"every {span_text(wanted)}" if wanted else "",
        restored=age_text(restored, now),
        copies=tuple(_copy(one, now) for one in copies),
    )


def _state(
    copies: Sequence[Held],
    made_at: datetime | None,
    *,
    uncovered: Severity | None,
    wanted: timedelta | None,
    now: datetime,
) -> Word:
    if made_at is None:
        return Word(text="no good backup", tone="bad")
    if uncovered is not None:
        return Word(text="too old", tone=_SEVERITIES.get(uncovered, "warning"))
    if not all(one.is_good for one in copies):
        return Word(text="a copy is not good", tone="warning")
    if wanted is not None and now - made_at > LATE * wanted:
        return Word(text="late", tone="warning")
    return Word(text="yes", tone="good")


def _copy(held: Held, now: datetime) -> Copy:
    manifest = held.backup.manifest
    return Copy(
        repository=held.repository,
        age=age_text(manifest.created_at, now),
        at=manifest.created_at.isoformat(timespec="seconds"),
        size=size_text(manifest.size_bytes),
        proof=_word(proof_cell(held)),
    )


def _troubles(
    entries: Sequence[OpenFinding], records: Records, *, now: datetime, timezone: tzinfo
) -> Iterator[Trouble]:
    """Each cause once, with what follows from it."""
    subjects = {entry.finding.subject for entry in entries}
    effects: dict[str, list[str]] = {}
    for entry in entries:
        if _is_effect(entry.finding, subjects):
            told = f"{name_text(entry.finding.subject)} ({entry.finding.summary})"
            effects.setdefault(entry.finding.cause, []).append(told)
    for entry in entries:
        if not _is_effect(entry.finding, subjects):
            follow = effects.pop(entry.finding.subject, [])
            yield _trouble(entry, records, now=now, timezone=timezone, effects=follow)


def _is_effect(finding: Finding, subjects: set[str]) -> bool:
    return finding.cause in subjects - {finding.subject}


def _trouble(
    entry: OpenFinding,
    records: Records,
    *,
    now: datetime,
    timezone: tzinfo,
    effects: Sequence[str] = (),
) -> Trouble:
    finding, mark = entry.finding, records.marks.get(key_of(entry))
    tone = _SEVERITIES.get(finding.severity, "plain")
    return Trouble(
        severity=Word(text=finding.severity.label, tone=tone),
        subject=name_text(finding.subject),
        summary=printable(finding.summary),
        since=age_text(entry.opened_at, now),
        found_by=entry.job,
        remedy=printable(finding.remedy),
        mark=mark_text(mark, now=now, timezone=timezone) if mark else "",
        facts=tuple((key.replace("_", " "), _fact(value)) for key, value in finding.facts.items()),
        effects=tuple(effects),
    )


def _fact(value: Fact) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _work(one: JobStatus, wiring: Wiring, past: Past, now: datetime) -> Work:
    runs = past.runs.get(one.job, ())
    last = outcome_cell(one.last.outcome) if one.last else Cell("never run", Tone.WARNING)
    durations = latest_durations(runs)[::-1]
    longest = max(durations, default=timedelta(0)) or timedelta(seconds=1)
    held_back = hold_text(wiring.config, one, now)
    error = one.last.error if one.last else ""
    return Work(
        name=one.job,
        summary=wiring.config.jobs[one.job].job.summary,
        last=Word(text=f"runs since {span_text(now - one.running_since)}")
        if one.running_since
        else _word(last),
        when=age_text(one.last.started_at, now) if one.last else "",
        following=slot_text(one.next_slot, wiring) if one.next_slot else "disabled",
        took=took_text(runs).removeprefix("took ") if runs else "",
        bars=tuple(round(one / longest * 100) for one in durations)
        if len(durations) >= FEWEST_USUAL
        else (),
        note=": ".join(filter(None, (held_back, error))),
    )


def _machines(pages: Sequence[nodelist.Page], now: datetime) -> Iterator[Machine]:
    names = sorted({area.name for page in pages for area in page.areas})
    for page in pages:
        by_name = {area.name: area for area in page.areas}
        yield Machine(
            name=name_text(page.name),
            state=_word(nodelist.state_cell(page)),
            areas=tuple(
                (name, _word(nodelist.area_cell(by_name.get(name), now))) for name in names
            ),
            seen=age_text(page.seen_at, now),
        )
