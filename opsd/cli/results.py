"""What a run did, for a person: a table, the findings with their remedies, one verdict line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from opsd.backup.manifest import Level
from opsd.cli.render import (
    Cell,
    Column,
    Row,
    Screen,
    Tone,
    count_text,
    joined,
    name_text,
    severity_cell,
    size_text,
    span_text,
)
from opsd.model import Artifact, Fact, Finding, Outcome, Report, Run, Severity

LEVEL_WORDS = {
    Level.NONE.label: "not proven",
    Level.READ_BACK.label: "read back",
    Level.PARSED.label: "parsed",
    Level.RESTORED.label: "restored",
}
_KINDS = {  # in this order
    "database": "{}",
    "globals": "the roles of {}",
    "share": "{}",
    "etcd": "{}",
}
_NOUNS = {
    "database": "database",
    "globals": "server",
    "share": "share",
    "etcd": "control plane",
}
DRY_RUN = "dry_run."  # checks of findings that say what a run would do
PLANNED = {
    f"{DRY_RUN}dump": Tone.GOOD,
    f"{DRY_RUN}share": Tone.GOOD,
    f"{DRY_RUN}snapshot": Tone.GOOD,
    f"{DRY_RUN}keep": Tone.DIM,
    f"{DRY_RUN}remove": Tone.WARNING,
}
_REPORT_TONES = {"#": Tone.TITLE, "✗": Tone.BAD, "?": Tone.WARNING, "!": Tone.WARNING}
_COUNTED = ("tables", "rows", "roles", "keys", "files")  # facts that say what is in a backup


def run_json(run: Run) -> dict[str, Any]:
    """One run, as in every JSON output (docs/commands.md)."""
    return {
        "job": run.job,
        "run_id": run.run_id,
        "slot": run.slot,
        "outcome": run.outcome.value,
        "started_at": run.started_at,
        "duration_s": round(run.duration.total_seconds(), 3),
        "findings": [finding_json(finding) for finding in run.findings],
        "artifacts": [_artifact_json(artifact) for artifact in run.artifacts],
        "error": run.error,
        "attempt": run.attempt,
        "retry_at": run.retry_at,
    } | ({"report": run.report.data} if run.report else {})


def finding_json(finding: Finding) -> dict[str, Any]:
    """One finding, as in every JSON output."""
    return {
        "check": finding.check,
        "subject": finding.subject,
        "severity": finding.severity.label,
        "summary": finding.summary,
        "remedy": finding.remedy,
        "facts": dict(finding.facts),
    }


def _artifact_json(artifact: Artifact) -> dict[str, Any]:
    return {
        "kind": artifact.kind,
        "subject": artifact.subject,
        "repository": artifact.repository,
        "key": artifact.key,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "level": artifact.level,
        "facts": dict(artifact.facts),
    }


def show_runs(screen: Screen, runs: Sequence[Run], *, dry_run: bool) -> None:
    """Print what the runs made, or would make, what they found, and the verdict."""
    if dry_run:
        _show_plan(screen, [f for run in runs for f in run.findings if f.check in PLANNED])
    elif rows := [row for run in runs for row in _rows(run)]:
        titles = ("", "BACKUP", "SIZE", "CONTENT", "PROVEN", "WHERE", "TOOK")
        right, folds = ("SIZE", "TOOK"), ("BACKUP", "CONTENT")
        screen.table([Column(t, right=t in right, folds=t in folds) for t in titles], rows)
        screen.line()
    for run in runs:
        if run.report is not None:
            _show_report(screen, run.report)
        else:
            _show_findings(screen, [one for one in run.findings if one.check not in PLANNED])
        if run.outcome is not Outcome.COMPLETED:
            told = f"{run.job} {run.outcome.value.replace('_', ' ')}"
            screen.detail(f"{told}: {run.error}", indent=0, mark="✗ ", tone=Tone.BAD)
    if all(run.report is not None and run.outcome is Outcome.COMPLETED for run in runs):
        return  # it begins with its own verdict
    text, tone = verdict(runs, dry_run=dry_run)
    screen.line(text, tone)


def _show_plan(screen: Screen, planned: Sequence[Finding]) -> None:
    """Print what a dry run would do, by subject and time."""
    rows: list[tuple[str, Row]] = []
    for finding in planned:
        verb = finding.check.removeprefix(DRY_RUN)
        subject, slot, where = _planned_place(finding.subject)
        why = finding.summary.removeprefix(f"would {verb}: ").removeprefix("would be ")
        cells = (Cell(verb, PLANNED[finding.check]), name_text(subject), slot, where, why)
        rows.append((f"{subject} {slot}", cells))
    if rows:
        titles = ("WOULD", "BACKUP", "SLOT", "WHERE", "WHY")
        ordered = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
        screen.table([Column(t, folds=t in ("BACKUP", "WHY")) for t in titles], ordered)
        screen.line()


def _planned_place(subject: str) -> tuple[str, str, str]:
    """Subject, slot and repository of ``repository/usb/database/main/app/<slot>.json``."""
    if not subject.startswith("repository/"):
        return subject, "", ""
    _, repository, key = subject.split("/", 2)
    series, _, slot = key.removesuffix(".json").rpartition("/")
    return series, slot, repository


def _rows(run: Run) -> Iterator[Row]:
    """One row per subject: what was made, however many repositories hold it, and what was not."""
    made: dict[str, list[Artifact]] = {}
    for artifact in run.artifacts:
        made.setdefault(artifact.subject, []).append(artifact)
    failed = {finding.subject for finding in run.findings if finding.severity is Severity.CRITICAL}
    for subject in sorted({*made, *failed}, key=_place):
        if subject in made:
            yield _row(made[subject])
        elif _kind(subject) in _KINDS and not _is_part(subject, {*made, *failed}):
            yield (
                Cell("✗", Tone.BAD),
                name_text(subject),
                "",
                Cell("failed", Tone.BAD),
                "",
                "",
                "",
            )


def _row(copies: Sequence[Artifact]) -> Row:
    first = copies[0]
    level = min(Level.of(artifact.level) for artifact in copies)
    return (
        Cell("✓", Tone.GOOD),
        name_text(first.subject),
        size_text(first.size_bytes),
        Cell(content_text(first.facts), Tone.DIM),
        LEVEL_WORDS[level.label],
        ", ".join(artifact.repository for artifact in copies),
        _took(first),
    )


def _kind(subject: str) -> str:
    return subject.partition("/")[0]


def _is_part(subject: str, others: set[str]) -> bool:
    """Whether it is a part of another one, such as a member of an etcd."""
    return any(subject.startswith(f"{other}/") for other in others)


def _place(subject: str) -> tuple[int, str]:
    kinds = [*_KINDS]
    kind = _kind(subject)
    return (kinds.index(kind) if kind in kinds else len(kinds), name_text(subject))


def _took(artifact: Artifact) -> str:
    duration_s = artifact.facts.get("duration_s")
    if not isinstance(duration_s, int | float):
        return ""
    return span_text(timedelta(seconds=duration_s))


def content_text(facts: dict[str, Fact] | Any) -> str:
    """``5 tables, 120,000 rows`` or ``409 files``: whatever the facts count."""
    counted = [(name, facts.get(name)) for name in _COUNTED]
    return ", ".join(
        count_text(number, name.removesuffix("s"))
        for name, number in counted
        if isinstance(number, int) and not isinstance(number, bool)
    )


def _show_report(screen: Screen, report: Report) -> None:
    for line in report.text.splitlines():
        words = line.lstrip(" ")
        if words:
            tone = _REPORT_TONES.get(words[0], Tone.PLAIN)
            screen.detail(words, indent=len(line) - len(words), tone=tone)
        else:
            screen.line()


def _show_findings(screen: Screen, findings: Sequence[Finding]) -> None:
    for finding in sorted(findings, key=lambda one: -one.severity):
        severity = severity_cell(finding.severity)
        mark = "✗ " if finding.severity is Severity.CRITICAL else "! "
        mark = mark if finding.severity is not Severity.INFO else "· "
        told = f"{name_text(finding.subject)}: {finding.summary}"
        screen.detail(told, indent=0, mark=mark, tone=severity.tone)
        show_full_error(screen, finding, indent=2)
        if finding.remedy:
            screen.detail(finding.remedy, indent=2, mark="> ")
    if findings:
        screen.line()


def show_full_error(screen: Screen, finding: Finding, *, indent: int) -> None:
    """Print the whole error where the summary had no room for it."""
    error = finding.facts.get("error")
    if isinstance(error, str) and finding.summary.endswith("…"):
        screen.detail(error, indent=indent, tone=Tone.DIM)


def verdict(runs: Sequence[Run], *, dry_run: bool) -> tuple[str, Tone]:
    """One sentence: what is safe now, or what is not and what to do."""
    if dry_run:
        return "Dry run: nothing was written, nothing was removed.", Tone.TITLE
    failed = [run for run in runs if run.outcome is not Outcome.COMPLETED]
    artifacts = [artifact for run in runs for artifact in run.artifacts]
    safe = _safe_text(artifacts) if artifacts else ""
    if failed and all(run.outcome is Outcome.SKIPPED for run in failed):
        names = joined([run.job for run in failed])
        return f"{names} did not start: another run is under way. {safe}".rstrip(), Tone.WARNING
    if failed:
        names = joined([run.job for run in failed])
        rest = f" {safe}" if artifacts else " Older backups are untouched."
        return f"{names} did not complete.{rest} Mend what is marked ✗, then: " + " && ".join(
            f"opsd run-job {run.job}" for run in failed
        ), Tone.BAD
    worst = max((f.severity for run in runs for f in run.findings), default=Severity.INFO)
    if not artifacts:
        return f"{joined([run.job for run in runs])} completed.", Tone.GOOD
    return safe, Tone.GOOD if worst is Severity.INFO else Tone.WARNING


def _safe_text(artifacts: Sequence[Artifact]) -> str:
    subjects = {artifact.subject for artifact in artifacts}
    counted = []
    for kind, phrase in _KINDS.items():
        if number := sum(_kind(subject) == kind for subject in subjects):
            counted.append(phrase.format(count_text(number, _NOUNS[kind])))
    are = "is" if counted and counted[0].startswith("1 ") and len(counted) == 1 else "are"
    size = size_text(sum(artifact.size_bytes for artifact in artifacts))
    where = joined(sorted({artifact.repository for artifact in artifacts}))
    lowest = min(Level.of(artifact.level) for artifact in artifacts)
    proof = "every byte was read back and matches" if lowest >= Level.READ_BACK else "NOT proven"
    return f"{joined(counted)} {are} safe: {size} in {where}, {proof}."
