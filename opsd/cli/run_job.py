"""`opsd run-job`: run a job or a group of jobs now, show it, and say what came of it."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from opsd.cli.calling import Command, Exit, load_config, log_as, wants_json
from opsd.cli.progress import shown
from opsd.cli.render import Screen, print_json
from opsd.clock import SystemClock
from opsd.errors import ConfigError, LeaseHeld
from opsd.model import Outcome, Run, Severity

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring
    from opsd.configfile import Config, JobEntry
    from opsd.progress import Progress

NEVER = "never"
FAIL_ON = {"warning": Severity.WARNING, "critical": Severity.CRITICAL}


@click.command(name="run-job", cls=Command)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing anywhere.")
@click.option(
    "--fail-on",
    type=click.Choice([*FAIL_ON, NEVER]),
    help="Exit with 3 when a completed run has findings at least this severe: critical, "
    "if the job does not say otherwise.",
)
@click.option(
    "--to",
    metavar="RELEASE",
    help="Ask upgrade-readiness about this release, such as 1.36; nothing is recorded.",
)
@click.option("--slot", hidden=True, metavar="TIME", help="The due time that the run answers.")
def run_job(
    name: str, fail_on: str | None, to: str | None, slot: str | None, *, dry_run: bool
) -> int:
    """Run the job NAME, or every enabled job of the group NAME, one after another."""
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    config = load_config()
    log_as(config, quiet_on_terminal=True)
    entries = chosen(name, config)
    if to is not None:
        entries, dry_run = tuple(asked(entry, to=to) for entry in entries), True
    due = _slot(slot)
    wiring = Wiring(config, SystemClock())
    runs: list[Run] = []
    tell = functools.partial(_tell, as_json=wants_json(), dry_run=dry_run)

    def last_words(hanging: Run) -> None:
        tell([*runs, hanging])

    with shown() as progress:
        run_one = functools.partial(
            _run,
            wiring=wiring,
            slot=due,
            is_scheduled=slot is not None,
            dry_run=dry_run,
            progress=progress,
            last_words=last_words,
        )
        for entry in entries:
            runs.append(run_one(entry))
            if runs[-1].outcome is Outcome.INTERRUPTED:
                break  # somebody wants it to end, not to go on with the next job
        if not dry_run:
            wiring.deliver(progress)
    tell(runs)
    defaults = {entry.job.name: entry.job.fail_on for entry in entries}
    return exit_status(runs, fail_on=fail_on, defaults=defaults)


def asked(entry: JobEntry, *, to: str) -> JobEntry:
    """The same job, asked about another release.

    Raises:
        click.UsageError: it is not a job that can be, or that is no release.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - not for --help

    settings = type(entry.settings)
    if "to" not in settings.model_fields:
        raise click.UsageError(f"--to is for upgrade-readiness; {entry.job.name} has no target")
    try:
        changed = settings.model_validate({**entry.settings.model_dump(), "to": to})
    except ValidationError as exc:
        reason = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--to {to}: {reason}") from exc
    return dataclasses.replace(entry, settings=changed)


def chosen(name: str, config: Config) -> tuple[JobEntry, ...]:
    """The job of this name, or the enabled jobs of the group of this name.

    Raises:
        click.UsageError: there is neither.
        ConfigError: there is, but the configuration has no table for it.
    """
    from jobs import JOBS  # noqa: PLC0415 - loads pydantic

    if name in config.jobs:
        return (config.jobs[name],)
    members = [job.name for job in JOBS if job.group == name]
    enabled = [
        config.jobs[job] for job in members if job in config.jobs and config.jobs[job].enabled
    ]
    if enabled:
        return tuple(enabled)
    tables = " or ".join(f"[jobs.{job}]" for job in (members or [name]))
    if members or name in {job.name for job in JOBS}:
        raise ConfigError(f"{config.path}: {name} is not configured: no enabled {tables}")
    from opsd.configfile.wording import did_you_mean  # noqa: PLC0415 - not for --help

    known = {job.name for job in JOBS} | {job.group for job in JOBS if job.group}
    raise click.UsageError(f"there is no job or group {name}; {did_you_mean(name, known)}")


def exit_status(
    runs: Sequence[Run],
    *,
    fail_on: str | None = None,
    defaults: Mapping[str, Severity] = MappingProxyType({}),
) -> Exit:
    """The worst that happened, as an exit status; without `fail_on` as each job says."""
    outcomes = {run.outcome for run in runs}
    if outcomes - {Outcome.COMPLETED, Outcome.SKIPPED}:
        return Exit.FAILED
    if Outcome.SKIPPED in outcomes:
        return Exit.BUSY
    for run in runs:
        default = defaults.get(run.job, Severity.CRITICAL)
        threshold = FAIL_ON.get(fail_on) if fail_on else default
        if threshold is not None and any(one.severity >= threshold for one in run.findings):
            return Exit.FINDINGS
    return Exit.COMPLETED


def _tell(runs: Sequence[Run], *, as_json: bool, dry_run: bool) -> None:
    """Print what the runs came to; from any thread."""
    from opsd.cli.results import run_json, show_runs  # noqa: PLC0415 - not for --help

    if as_json:
        print_json({"runs": [run_json(run) for run in runs]})
    else:
        show_runs(Screen(), runs, dry_run=dry_run)
    sys.stdout.flush()  # a process that ends for hanging does not do it


def _run(
    entry: JobEntry,
    *,
    wiring: Wiring,
    slot: datetime,
    is_scheduled: bool,
    dry_run: bool,
    progress: Progress,
    last_words: Callable[[Run], None],
) -> Run:
    """Run one job; that another run of it is under way is an outcome, not an error."""
    progress.update(entry.job.name)
    try:
        return wiring.run(
            entry,
            slot=slot,
            is_scheduled=is_scheduled,
            dry_run=dry_run,
            progress=progress,
            last_words=last_words,
        )
    except LeaseHeld as exc:
        return Run(
            job=entry.job.name,
            run_id="",
            slot=slot,
            started_at=datetime.now(UTC),
            duration=timedelta(0),
            outcome=Outcome.SKIPPED,
            error=str(exc),
        )
    finally:
        progress.finish(entry.job.name)


def _slot(text: str | None) -> datetime:
    from opsd.cli.selecting import parse_moment  # noqa: PLC0415 - not for --help

    moment = parse_moment(text, UTC) if text else datetime.now(UTC)
    return moment.replace(microsecond=0)
