"""The results as findings: what is in the way is told, the rest stands in the report. Pure.

One finding for each check, on a subject that stays the same when the target moves on. So what is
new in the way is one message, what is mended is one message, and nothing is told twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from opsd.model import Fact, Finding, Severity, Unseen
from opsd.text import shortened
from opsd.upgrade.assessment import Assessment
from opsd.upgrade.check import Result, Status
from opsd.upgrade.memory import Difference

SUBJECT = "cluster/upgrade"
SUMMARY_CHARACTERS = 120
NOTES_TOLD = 5


def observations(assessment: Assessment, since: Difference | None) -> Iterator[Finding | Unseen]:
    """The verdict, and each check that did not pass; of several hops the first that it fails.

    What was in the way and cannot be read now stays in the way.
    """
    yield _verdict(assessment, since)
    yield from _findings(assessment)
    for result in assessment.with_status(Status.UNKNOWN):
        yield Unseen(subject=f"{SUBJECT}/{result.check.id}")


def _findings(assessment: Assessment) -> Iterator[Finding]:
    told: set[str] = set()
    for result in sorted(assessment.results, key=lambda one: not one.blocks):
        if result.status >= Status.WARN and result.check.id not in told:
            told.add(result.check.id)
            yield _finding(result, assessment)


def _verdict(assessment: Assessment, since: Difference | None) -> Finding:
    counts = {
        "in_the_way": len(assessment.blocked_by),
        "unknown": len(assessment.with_status(Status.UNKNOWN)),
        "warnings": len(assessment.with_status(Status.WARN)),
        "passed": len(assessment.with_status(Status.PASS)),
    }
    facts: dict[str, Fact] = {"server": str(assessment.server), "verdict": assessment.verdict}
    if assessment.target:
        facts["target"] = str(assessment.target)
    facts |= counts
    if since is not None:
        facts |= {
            "since": since.since.isoformat(timespec="seconds"),
            "new_in_the_way": ", ".join(since.new),
            "out_of_the_way": ", ".join(since.gone),
        }
    return Finding(
        check="upgrade.verdict",
        subject=SUBJECT,
        severity=Severity.INFO,
        summary=f"Kubernetes {assessment.words}",
        remedy="the page with the runbook: opsd run-job upgrade-readiness",
        facts=facts,
    )


def _finding(result: Result, assessment: Assessment) -> Finding:
    way = f"{result.target or assessment.target or assessment.server.minor}"
    worst = result.worst[0]
    if result.blocks:
        check, before = "upgrade.blocked", f"upgrade to {way} is blocked: "
    elif result.status is Status.UNKNOWN:
        check, before = "upgrade.unknown", "not known before an upgrade: "
    else:
        check, before = "upgrade.warned", "before an upgrade: "
    return Finding(
        check=check,
        subject=f"{SUBJECT}/{result.check.id}",
        severity=Severity.WARNING if result.blocks else Severity.INFO,
        summary=shortened(f"{before}{worst.where}: {worst.value}", SUMMARY_CHARACTERS),
        remedy=result.fix,
        facts=_facts(result),
    )


def _facts(result: Result) -> dict[str, Fact]:
    facts: dict[str, Fact] = {"wanted": result.check.title}
    if result.target:
        facts["target"] = str(result.target)
    for number, note in enumerate(result.worst[:NOTES_TOLD], start=1):
        facts[f"evidence_{number}"] = f"{note.where}: {note.value}"
    if len(result.worst) > NOTES_TOLD:
        facts["more_evidence"] = len(result.worst) - NOTES_TOLD
    facts["source"] = result.check.source
    return facts
