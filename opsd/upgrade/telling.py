"""The results as findings: what is in the way is told, the rest stands in the report. Pure.

One finding for each check that blocks, on a subject that stays the same when the target moves on.
So what is new in the way is one message, what is mended is one message, and nothing is told twice.
What is unknown, and what should be known, is one finding each: the report has the details.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opsd.model import Fact, Finding, Severity, Unseen
from opsd.text import shortened
from opsd.upgrade.assessment import Assessment
from opsd.upgrade.check import Result, Status
from opsd.upgrade.memory import Difference

SUBJECT = "cluster/upgrade"
SUMMARY_CHARACTERS = 120
NOTES_TOLD = 5
REASONS_TOLD = 8


def observations(assessment: Assessment, since: Difference | None) -> Iterator[Finding | Unseen]:
    """The verdict, each check that is in the way, and what is unknown or should be known.

    Of several hops the first that a check is in the way of. What was in the way and cannot be
    read now stays in the way.
    """
    yield _verdict(assessment, since)
    told: set[str] = set()
    for result in assessment.blockers:
        if result.check.id not in told:
            told.add(result.check.id)
            yield _blocked(result, assessment)
    if unknown := _others(assessment, Status.UNKNOWN):
        yield _unknown(unknown)
    if warned := _others(assessment, Status.WARN):
        yield _warned(warned)
    for result in unknown:
        yield Unseen(subject=f"{SUBJECT}/{result.check.id}")


def _others(assessment: Assessment, status: Status) -> tuple[Result, ...]:
    """The first result of each check that has this status and is in the way of no hop."""
    found: dict[str, Result] = {}
    for result in assessment.with_status(status):
        if result.check.id not in assessment.blocked_by:
            found.setdefault(result.check.id, result)
    return tuple(found.values())


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


def _blocked(result: Result, assessment: Assessment) -> Finding:
    way = f"{result.target or assessment.target or assessment.server.minor}"
    worst = result.worst[0]
    return Finding(
        check="upgrade.blocked",
        subject=f"{SUBJECT}/{result.check.id}",
        severity=Severity.WARNING,
        summary=shortened(
            f"upgrade to {way} is blocked: {worst.where}: {worst.value}", SUMMARY_CHARACTERS
        ),
        remedy=result.fix,
        facts=_facts(result),
    )


def _unknown(results: Sequence[Result]) -> Finding:
    """What could not be read; the same reason of many checks stands there once."""
    reasons: dict[str, list[str]] = {}
    for result in results:
        reasons.setdefault(_first_words(result), []).append(result.check.id)
    by_weight = sorted(reasons.items(), key=lambda item: -len(item[1]))
    return Finding(
        check="upgrade.unknown",
        subject=SUBJECT,
        severity=Severity.INFO,
        summary=shortened(f"not known before an upgrade: {_names(results)}", SUMMARY_CHARACTERS),
        remedy=next(one.fix for one in results if _first_words(one) == by_weight[0][0]),
        facts={
            f"reason_{number}": f"{reason} ({', '.join(ids)})"
            for number, (reason, ids) in enumerate(by_weight[:REASONS_TOLD], start=1)
        },
    )


def _warned(results: Sequence[Result]) -> Finding:
    return Finding(
        check="upgrade.warned",
        subject=SUBJECT,
        severity=Severity.INFO,
        summary=shortened(f"to know before an upgrade: {_names(results)}", SUMMARY_CHARACTERS),
        remedy="what to do about each: opsd run-job upgrade-readiness",
        facts={one.check.id.replace("-", "_"): _first_words(one) for one in results},
    )


def _names(results: Sequence[Result]) -> str:
    return ", ".join(result.check.id for result in results)


def _first_words(result: Result) -> str:
    worst = result.worst[0]
    return f"{worst.where}: {worst.value}"


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
