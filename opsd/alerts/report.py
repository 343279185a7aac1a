"""What the regular report says: "all is well" is a message too, and its absence is one. Pure.

Somebody who hears nothing for months does not know whether all is well or nothing runs. One
message says what was made and proven, what needs a person, what came and went, how old the
newest backup of everything is, and what runs next.

Limits: what opened and ended between two runs of a job was never seen and is not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo

from opsd.alerts.marks import Key, Mark, key_of
from opsd.alerts.render import lasting
from opsd.cron import Cron
from opsd.incidents import Pause
from opsd.model import Finding, Message, OpenFinding, Outcome, Severity
from opsd.state.tally import Tally
from opsd.text import printable, shortened

BODY_CHARACTERS = 3500
FINDINGS_SHOWN = 8
SUBJECTS_SHOWN = 8
MACHINES_SHOWN = 20
_LINE_CHARACTERS = 160
_PERIODS = {1: "since yesterday", 7: "this week", 28: "this month", 30: "this month"}
_PERIODS |= {29: "this month", 31: "this month"}
_MACHINE, _STATE = "machine/", ".state"  # of the lines for `opsd nodes`: patches.state
_WELL = (Outcome.COMPLETED, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a report is made of."""

    since: datetime  #: aware UTC: what it covers begins here
    now: datetime  #: aware UTC
    tally: Tally
    findings: Sequence[OpenFinding] = ()
    marks: Mapping[Key, Mark] = field(default_factory=dict)  #: of findings
    pauses: Sequence[Pause] = ()
    undelivered: int = 0  #: messages that wait
    jobs: Mapping[str, Cron] = field(default_factory=dict)  #: enabled ones


def compose(summary: Summary, *, slot: datetime, timezone: tzinfo) -> Message:
    """The report as a message; the first words say whether anything is to be done. Pure."""
    needing, idle = _needing(summary), _idle_jobs(summary)
    is_well = not needing and not idle
    sections = (
        _section("Needs you:", _needs(needing, idle, now=summary.now)),
        _section("Jobs:", _job_lines(summary, timezone)),
        _section("Newest backups, the oldest first:", _ages(summary)),
        _section("Machines:", _machines(summary)),
        _section("Came and went:", _gone(summary)),
        _section("Acknowledged or silenced:", _known(summary)),
        _section("For information:", _notes(summary)),
        _section("", _waiting(summary)),
    )
    return Message(
        key=f"report/{slot:%Y%m%dT%H%M%SZ}",
        severity=Severity.INFO if is_well else Severity.WARNING,
        title=_title(summary, needs=len(needing) + len(idle)),
        body=_bounded("\n\n".join(section for section in sections if section)),
    )


def _title(summary: Summary, *, needs: int) -> str:
    period = _period(summary)
    completed = sum(of_job.get(Outcome.COMPLETED, 0) for of_job in summary.tally.outcomes.values())
    if summary.tally.backups:
        done = f"{_count(summary.tally.backups, 'backup')} made and proven {period}"
    elif completed:
        done = f"{_count(completed, 'run')} completed {period}"
    else:
        done = f"nothing completed {period}"
    if needs:
        return f"{_count(needs, 'thing')} need{'s' * (needs == 1)} you; {done}"
    return f"All is well: {done}" if completed else f"Nothing to report: {done}"


def _period(summary: Summary) -> str:
    days = round((summary.now - summary.since) / timedelta(days=1))
    return _PERIODS.get(days) or f"in {lasting(summary.now - summary.since)}"


def _news(summary: Summary) -> list[OpenFinding]:
    return [entry for entry in summary.findings if entry.finding.severity > Severity.INFO]


def _needing(summary: Summary) -> list[OpenFinding]:
    """What a person must deal with; what follows from something else goes with it."""
    fresh = [entry for entry in _news(summary) if key_of(entry) not in summary.marks]
    subjects = {entry.finding.subject for entry in _news(summary)}
    return [entry for entry in fresh if entry.finding.cause not in subjects]


def _idle_jobs(summary: Summary) -> list[str]:
    """Jobs that were due, and nothing is on record."""
    paused = {pause.job for pause in summary.pauses}
    return [
        job
        for job, cron in summary.jobs.items()
        if job not in summary.tally.outcomes
        and job not in paused
        and cron.previous_slot(summary.now) > summary.since
    ]


def _needs(needing: Sequence[OpenFinding], idle: Sequence[str], *, now: datetime) -> Iterator[str]:
    for job in idle:
        yield f"- {job} was due and nothing is on record: opsd status"
    for entry in needing[:FINDINGS_SHOWN]:
        finding = entry.finding
        yield f"- {_line(finding.summary)} ({_since(entry, now)})"
        if finding.remedy:
            yield f"  Next: {_line(finding.remedy)}"
    yield from _more(needing, FINDINGS_SHOWN, "opsd findings")


def _job_lines(summary: Summary, timezone: tzinfo) -> Iterator[str]:
    pauses = {pause.job: pause for pause in summary.pauses}
    for job in dict.fromkeys((*summary.jobs, *summary.tally.outcomes)):
        parts = [_outcomes(summary.tally, job) or "not due"]
        if healed := summary.tally.healed.get(job):
            parts.append(f"{healed} after another try")
        if job in pauses:
            pause = pauses[job]
            parts.append(f"paused until {_time(pause.until, timezone)}: {_line(pause.reason)}")
        elif job in summary.jobs:
            following = summary.jobs[job].next_slot(summary.now)
            parts.append(f"next {_time(following, timezone)}")
        yield f"{job}: {', '.join(parts)}"


def _outcomes(tally: Tally, job: str) -> str:
    counted = tally.outcomes.get(job, {})
    return ", ".join(
        f"{counted[outcome]} {outcome.value.replace('_', ' ')}"
        for outcome in Outcome
        if outcome in counted
    )


def _ages(summary: Summary) -> Iterator[str]:
    ordered = sorted(summary.tally.newest.items(), key=lambda one: (one[1], one[0]))
    for subject, slot in ordered[:SUBJECTS_SHOWN]:
        yield f"{lasting(summary.now - slot)}: {_line(subject)}"
    yield from _more(ordered, SUBJECTS_SHOWN, "all newer: opsd backups list")


def _machines(summary: Summary) -> Iterator[str]:
    """What the last looks at each machine said, and what they could not say."""
    findings = [entry.finding for entry in summary.findings]
    keys = {finding.key for finding in findings}
    said: dict[str, list[str]] = {}
    for finding in sorted(filter(_is_state, findings), key=lambda one: one.key, reverse=True):
        machine, area = finding.subject, finding.check.removesuffix(_STATE)
        # What was said before nobody could look any more is no news.
        is_known = (f"{area}.unknown", f"{machine}/{area}") not in keys
        said.setdefault(machine, []).append(finding.summary if is_known else f"{area} not known")
    for machine in list(said):
        if ("machine.unreachable", machine) in keys:
            said[machine] = ["cannot be asked"]
    ordered = sorted(said.items())
    for machine, words in ordered[:MACHINES_SHOWN]:
        yield _line(f"{machine.removeprefix(_MACHINE)}: {'; '.join(words)}")
    yield from _more(ordered, MACHINES_SHOWN, "opsd nodes")


def _is_state(finding: Finding) -> bool:
    """Whether it is a line of the table of machines, and no news."""
    return finding.check.endswith(_STATE) and finding.subject.startswith(_MACHINE)


def _gone(summary: Summary) -> Iterator[str]:
    still_open = {key_of(entry) for entry in summary.findings}
    gone = sorted(
        (
            (finding, key)
            for key, finding in summary.tally.found.items()
            if key not in still_open and finding.severity > Severity.INFO
        ),
        key=lambda one: (-one[0].severity, one[1]),
    )
    for finding, _ in gone[:SUBJECTS_SHOWN]:
        yield f"- {_line(finding.summary)} ({_line(finding.subject)})"
    yield from _more(gone, SUBJECTS_SHOWN, "opsd history")


def _known(summary: Summary) -> Iterator[str]:
    known = [entry for entry in _news(summary) if key_of(entry) in summary.marks]
    return _listed(known, now=summary.now)


def _notes(summary: Summary) -> Iterator[str]:
    notes = [
        entry
        for entry in summary.findings
        if entry.finding.severity is Severity.INFO and not _is_state(entry.finding)
    ]
    return _listed(notes, now=summary.now)


def _listed(entries: Sequence[OpenFinding], *, now: datetime) -> Iterator[str]:
    for entry in entries[:FINDINGS_SHOWN]:
        yield f"- {_line(entry.finding.summary)} ({_since(entry, now)})"
    yield from _more(entries, FINDINGS_SHOWN, "opsd findings")


def _waiting(summary: Summary) -> Iterator[str]:
    if summary.undelivered:
        yield f"{_count(summary.undelivered, 'message')} could not be delivered yet: opsd status"


def _section(title: str, lines: Iterable[str]) -> str:
    body = "\n".join(lines)
    return f"{title}\n{body}".strip("\n") if body else ""


def _more(entries: Sequence[object], shown: int, where: str) -> Iterator[str]:
    if len(entries) > shown:
        yield f"and {len(entries) - shown} more, {where}"


def _bounded(body: str) -> str:
    if len(body) <= BODY_CHARACTERS:
        return body
    end = "\n… opsd status"
    return body[: BODY_CHARACTERS - len(end)].rpartition("\n")[0] + end


def _since(entry: OpenFinding, now: datetime) -> str:
    return f"{_line(entry.finding.subject)}, for {lasting(now - entry.opened_at)}"


def _line(text: str) -> str:
    return shortened(printable(text), _LINE_CHARACTERS)


def _time(moment: datetime, timezone: tzinfo) -> str:
    return f"{moment.astimezone(timezone):%a %d %b %H:%M}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
