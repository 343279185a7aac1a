"""Execute one job once and return what happened. Never raises for a job's own error."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from opsd.errors import DeadlineExceeded, OpsdError, PartialFailure
from opsd.model import Artifact, Finding, Outcome, Run, Seen
from opsd.secrets import redact

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
    outcome, error = Outcome.COMPLETED, ""
    try:
        for observation in job.run(ctx, settings):
            observations.append(observation)
            _log_observation(observation)
    except DeadlineExceeded as exc:
        outcome, error = Outcome.TIMED_OUT, describe(exc)
    except PartialFailure as exc:
        outcome, error = Outcome.FAILED, redact(str(exc))
    except OpsdError as exc:
        outcome, error = Outcome.FAILED, describe(exc)
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
        error=error,
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


def describe(exc: BaseException) -> str:
    """One line for records and messages: class and text, without secrets."""
    text = " ".join(str(exc).split())
    return redact(f"{type(exc).__name__}: {text}" if text else type(exc).__name__)


def _log_observation(observation: Observation) -> None:
    match observation:
        case Finding():
            log.warning(
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
        case Seen():
            pass
