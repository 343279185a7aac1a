"""The report as a page that a person reads, and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from opsd.model import Report
from opsd.upgrade.assessment import Assessment, Verdict, verdict_of
from opsd.upgrade.check import Hop, Note, Result, Status
from opsd.upgrade.memory import Difference
from opsd.upgrade.runbook import Step

NOTES_SHOWN = 6  # of one check; the JSON has all
_MARKS = {
    Status.FAIL: "✗",
    Status.UNKNOWN: "?",
    Status.WARN: "!",
    Status.PASS: "✓",
    Status.SKIPPED: "-",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of one hop, or why nobody can tell them."""

    hop: Hop
    steps: tuple[Step, ...] = ()
    problem: str = ""


def report(
    assessment: Assessment, plans: Sequence[Plan], since: Difference | None, *, warnings: str = ""
) -> Report:
    """The whole report.

    Args:
        assessment: what came of the checks.
        plans: of each hop.
        since: what changed since the last report; None: there was none.
        warnings: about the report itself: what opsd knows has grown old.
    """
    lines = _page(assessment, plans, since, warnings)
    return Report(text="\n".join(lines), data=_data(assessment, plans, since, warnings))


def _page(
    assessment: Assessment, plans: Sequence[Plan], since: Difference | None, warnings: str
) -> Iterator[str]:
    yield f"# Kubernetes {assessment.words}"
    yield ""
    yield (
        f"The cluster runs {assessment.server}. Looked at {assessment.at:%Y-%m-%d %H:%M} UTC; "
        f"what opsd knows of releases is of {assessment.known_as_of}."
    )
    if warnings:
        yield f"{warnings}."
    yield from _since(since)
    if len(assessment.hops) > 1:
        yield ""
        for hop in assessment.hops:
            yield f"- {hop}: {verdict_of(assessment.of_hop(hop))}"
    yield from _section("In the way", assessment.blockers)
    yield from _section("Unknown", assessment.with_status(Status.UNKNOWN))
    yield from _section("Warnings", assessment.with_status(Status.WARN))
    yield from _brief("Passed", assessment.with_status(Status.PASS))
    yield from _brief("Not here", assessment.with_status(Status.SKIPPED))
    for plan in plans:
        yield from _plan(plan, is_blocked=assessment.verdict is Verdict.BLOCKED)


def _since(since: Difference | None) -> Iterator[str]:
    if since is None:
        return
    told = [
        f"{word}: {', '.join(names)}"
        for word, names in (("new in the way", since.new), ("out of the way", since.gone))
        if names
    ]
    yield f"Since {since.since:%Y-%m-%d %H:%M} UTC {'; '.join(told) or 'nothing changed'}."


def _section(title: str, results: Sequence[Result]) -> Iterator[str]:
    """What did not pass; what several checks say in the same words is told once."""
    if not results:
        return
    yield ""
    yield f"## {title} ({len(results)})"
    alike: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        alike.setdefault((result.status, *_told(result), result.fix), []).append(result)
    for group in alike.values():
        yield ""
        yield from _group(group)


def _group(group: Sequence[Result]) -> Iterator[str]:
    first = group[0]
    names = ", ".join(name_of(result) for result in group)
    titles = {result.check.title for result in group}
    title = first.check.title if len(titles) == 1 else f"{len(titles)} checks"
    yield f"{_MARKS[first.status]} **{title}** [{names}]"
    notes = _told(first)
    for note in notes[:NOTES_SHOWN]:
        yield f"  - {_note(note)}"
    if len(notes) > NOTES_SHOWN:
        yield f"  - and {len(notes) - NOTES_SHOWN} more: -o json"
    yield f"  Fix: {first.fix}"


def _told(result: Result) -> tuple[Note, ...]:
    """What is behind the worst is told, too: a failure may hide what was not read."""
    return tuple(note for note in result.notes if note.status >= Status.WARN)


def _note(note: Note) -> str:
    return f"{_MARKS[note.status]} {note.where}: {note.value}"


def name_of(result: Result) -> str:
    """What a result is about: ``etcd-version (1.37)``, ``nodes-ready``."""
    return f"{result.check.id} ({result.target})" if result.target else result.check.id


def _brief(title: str, results: Sequence[Result]) -> Iterator[str]:
    if results:
        yield ""
        yield f"## {title} ({len(results)})"
        yield ""
        yield ", ".join(name_of(result) for result in results)


def _plan(plan: Plan, *, is_blocked: bool) -> Iterator[str]:
    yield ""
    yield f"## Runbook: {plan.hop}"
    yield ""
    if plan.problem:
        yield f"It cannot be told: {plan.problem}"
        return
    if is_blocked:
        yield "Not before what is in the way is mended."
        yield ""
    for number, step in enumerate(plan.steps, start=1):
        yield from _step(number, step)


def _step(number: int, step: Step) -> Iterator[str]:
    if step.is_point_of_no_return:
        yield "--- Point of no return: from here on only the snapshot of etcd leads back. ---"
    yield f"{number}. {step.title}"
    prompt = f"{step.on}# " if step.on else ""
    for command in step.commands:
        yield f"       {prompt}{command}"
    if step.gate:
        yield f"   Go on when {step.gate}."


def _data(
    assessment: Assessment, plans: Iterable[Plan], since: Difference | None, warnings: str
) -> dict[str, Any]:
    return {
        "verdict": assessment.verdict.value,
        "server": str(assessment.server),
        "target": str(assessment.target) if assessment.target else None,
        "looked_at": assessment.at,
        "known_as_of": assessment.known_as_of.isoformat(),
        "warnings": warnings,
        "blocked_by": list(assessment.blocked_by),
        "since": _since_data(since),
        "hops": [
            {
                "from": str(hop.start),
                "to": str(hop.target),
                "verdict": verdict_of(assessment.of_hop(hop)).value,
            }
            for hop in assessment.hops
        ],
        "checks": [_result_data(result) for result in assessment.results],
        "runbook": [_plan_data(plan) for plan in plans],
    }


def _since_data(since: Difference | None) -> dict[str, Any] | None:
    if since is None:
        return None
    return {"at": since.since, "new": list(since.new), "gone": list(since.gone)}


def _result_data(result: Result) -> dict[str, Any]:
    return {
        "id": result.check.id,
        "title": result.check.title,
        "target": str(result.target) if result.target else None,
        "status": result.status.label,
        "blocks": result.blocks,
        "evidence": [
            {"status": note.status.label, "where": note.where, "value": note.value}
            for note in result.notes
        ],
        "fix": result.fix if result.status >= Status.WARN else "",
        "source": result.check.source,
    }


def _plan_data(plan: Plan) -> dict[str, Any]:
    return {
        "from": str(plan.hop.start),
        "to": str(plan.hop.target),
        "problem": plan.problem,
        "steps": [
            {
                "title": step.title,
                "on": step.on,
                "commands": list(step.commands),
                "gate": step.gate,
                "is_point_of_no_return": step.is_point_of_no_return,
            }
            for step in plan.steps
        ],
    }
