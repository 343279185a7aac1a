"""Execute one job once and return what happened. Never raises for a job's own error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_never

import structlog

from opsd.errors import DeadlineExceeded, OpsdError, PartialFailure, TransientError
from opsd.model import Artifact, Fact, Finding, Outcome, Report, Run, Seen, Severity, Unseen
from opsd.secrets import describe, redact
from opsd.text import printable

if TYPE_CHECKING:
    from opsd.job import AnyJob, Context, Observation

log = structlog.get_logger()


def execute(job: AnyJob, settings: object, ctx: Context) -> Run:
    """Run `job` to its end, its error or its deadline.

    Observations yielded before an error are kept: what was seen stays seen.
    """
    started_at, started = ctx.clock.now(), ctx.clock.monotonic()
    log.info("run.started", slot=ctx.slot.isoformat(), dry_run=ctx.dry_run)
    observations: list[Observation] = []
    outcome, error, may_pass = Outcome.COMPLETED, "", False
    try:
        for observation in job.run(ctx, settings):
            observations.append(without_secrets(observation))
            _log_observation(observations[-1])
    except DeadlineExceeded as exc:
        outcome, error = Outcome.TIMED_OUT, describe(exc)
    except PartialFailure as exc:
        outcome, error, may_pass = Outcome.FAILED, printable(redact(str(exc))), exc.may_pass
    except OpsdError as exc:
        outcome, error = Outcome.FAILED, describe(exc)
        may_pass = isinstance(exc, TransientError)
    except KeyboardInterrupt as exc:
        outcome, error = Outcome.INTERRUPTED, f"ended by {exc.args[0] if exc.args else 'SIGINT'}"
    except Exception as exc:
        outcome, error = Outcome.FAILED, describe(exc)
        log.exception("run.crashed")
    run = Run(
        job=job.name,
        run_id=ctx.run_id,
        slot=ctx.slot,
        started_at=started_at,
        duration=timedelta(seconds=ctx.clock.monotonic() - started),
        outcome=outcome,
        findings=tuple(o for o in observations if isinstance(o, Finding)),
        artifacts=tuple(o for o in observations if isinstance(o, Artifact)),
        seen=tuple(o.subject for o in observations if isinstance(o, Seen)),
        unseen=tuple(o.subject for o in observations if isinstance(o, Unseen)),
        error=error,
        may_pass=may_pass,
        report=next((o for o in observations if isinstance(o, Report)), None),
    )
    log.info(
        "run.ended",
        outcome=run.outcome.value,
        duration_s=round(run.duration.total_seconds(), 3),
        findings=len(run.findings),
        artifacts=len(run.artifacts),
        error=run.error,
    )
    return run


def without_secrets(observation: Observation) -> Observation:
    """Take secrets out of everything that a job wrote in its own words.

    Names (subjects, keys) stay: they come from the configuration and from servers, and a
    weak password that equals a name must not change what a finding is about.
    """
    match observation:
        case Finding():
            return replace(
                observation,
                summary=redact(observation.summary),
                remedy=redact(observation.remedy),
                facts=_facts(observation.facts),
            )
        case Artifact():
            return replace(observation, facts=_facts(observation.facts))
        case Report():
            return Report(text=redact(observation.text), data=_redacted(observation.data))
        case Seen() | Unseen():
            return observation
        case _:
            assert_never(observation)


def _facts(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    return {
        key: value if isinstance(value, bool | int | float | None) else redact(str(value))
        for key, value in facts.items()
    }


def _redacted(value: Any) -> Any:
    """Nested values of JSON, with their texts redacted."""
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {key: _redacted(one) for key, one in value.items()}
        case list() | tuple():
            return [_redacted(one) for one in value]
        case _:
            return value


def _log_observation(observation: Observation) -> None:
    match observation:
        case Finding():
            tell = log.warning if observation.severity > Severity.INFO else log.info
            tell(
                "finding.seen",
                check=observation.check,
                subject=observation.subject,
                severity=observation.severity.label,
                summary=observation.summary,
            )
        case Artifact():
            log.info(
                "artifact.verified",
                subject=observation.subject,
                repository=observation.repository,
                size_bytes=observation.size_bytes,
                level=observation.level,
            )
        case Seen() | Unseen() | Report():
            pass
