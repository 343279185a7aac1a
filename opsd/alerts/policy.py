"""What is worth a message: one message per run, and only when something changed. Pure.

What stays as it was is not repeated, what is only information is never pushed, and whoever
was told of a finding is told of its end. Quiet hours, reminders and digests build on this.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo

from opsd.alerts import render
from opsd.model import Change, Message, Run, Severity, Transition
from opsd.triage import JOB_CHECK

_BAD_NEWS_FIRST = (Change.OPENED, Change.WORSENED, Change.EASED, Change.RESOLVED)


def compose(
    run: Run, changes: Sequence[Transition], *, timezone: tzinfo = UTC
) -> tuple[Message, ...]:
    """At most one message about what `run` changed; no message when nothing is worth one.

    Args:
        run: the run that ended.
        changes: what it changed.
        timezone: the operator's, for the times in the text.
    """
    told = sorted(filter(_is_told, changes), key=_order)
    if not told:
        return ()
    return (
        Message(
            key=f"run/{run.run_id}/1",
            severity=max(map(_reach, told)),
            title=render.title(told),
            body=render.body(
                told, job=run.job, at=run.started_at + run.duration, timezone=timezone
            ),
        ),
    )


def _is_told(change: Transition) -> bool:
    return _reach(change) > Severity.INFO


def _reach(change: Transition) -> Severity:
    """The severity of the people who must hear it: also those who heard the worse news."""
    if change.change is Change.EASED:
        return Severity(change.finding.severity + 1)
    return change.finding.severity


def _order(change: Transition) -> tuple[bool, int, bool, int, str, str]:
    """Bad news first, the worst of it first, and a cause before the run that it failed."""
    finding = change.finding
    return (
        change.change in (Change.EASED, Change.RESOLVED),
        -finding.severity,
        finding.check == JOB_CHECK,
        _BAD_NEWS_FIRST.index(change.change),
        finding.check,
        finding.subject,
    )
