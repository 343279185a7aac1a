"""`opsd pause` and `opsd resume`: a job that is not to be started for a while, and why.

Only what the daemon starts is held back: `opsd run-job` still runs the job. The slots of a
paused job are recorded as skipped. A pause ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, load_config, wants_json
from opsd.cli.expiry import for_option, reason_option, required, until_text
from opsd.cli.render import Screen, Tone, print_json
from opsd.cli.run_job import chosen
from opsd.clock import SystemClock
from opsd.incidents import Pause

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring


@click.command(cls=Command)
@click.argument("name", default="", metavar="[JOB]")
@for_option("pause")
@reason_option("pause")
def pause(name: str, span: timedelta | None, reason: str) -> None:
    """Do not start JOB, or the jobs of the group JOB, for a while; without JOB, list the pauses.

    A run that is under way goes on, and opsd run-job still runs it.
    """
    wiring = _wired()
    now = wiring.clock.now()
    added: tuple[Pause, ...] = ()
    if name:
        jobs = [entry.job.name for entry in chosen(name, wiring.config)]
        example = f'opsd pause {name} --for 2d --reason "new disk"'
        until = now + required(span, reason, example=example)
        added = tuple(Pause(job=job, since=now, until=until, reason=reason) for job in jobs)
    elif span is not None or reason:
        raise click.UsageError("name the job that is to be paused, as opsd jobs lists it")
    with wiring.state() as state:
        for one in added:
            state.pause(one)
        pauses = standing(state.pauses(), now)
    if wants_json():
        print_json({"pauses": [pause_json(one) for one in pauses]})
        return
    screen = Screen()
    _show(screen, added or pauses, wiring, now=now)
    if added:
        screen.line(f"End it: opsd resume {name}", Tone.DIM)


@click.command(cls=Command)
@click.argument("name", metavar="JOB")
def resume(name: str) -> None:
    """End the pause of JOB, or of the jobs of the group JOB."""
    wiring = _wired()
    with wiring.state() as state:
        is_paused = name in {one.job for one in state.pauses()}  # it may have lost its table
        jobs = [name] if is_paused else [entry.job.name for entry in chosen(name, wiring.config)]
        resumed = [job for job in jobs if state.resume(job)]
        pauses = standing(state.pauses(), wiring.clock.now())
    if wants_json():
        print_json({"resumed": resumed, "pauses": [pause_json(one) for one in pauses]})
        return
    screen = Screen()
    for job in jobs:
        told = "is started again when it is due" if job in resumed else "was not paused"
        screen.line(f"{job} {told}.")


def standing(pauses: Sequence[Pause], now: datetime) -> tuple[Pause, ...]:
    """Those that have not run out."""
    return tuple(one for one in pauses if one.until > now)


def pause_json(pause: Pause) -> dict[str, Any]:
    """One pause, as in every JSON output."""
    return {
        "job": pause.job,
        "since": pause.since,
        "until": pause.until,
        "reason": pause.reason,
    }


def _show(screen: Screen, pauses: Sequence[Pause], wiring: Wiring, *, now: datetime) -> None:
    if not pauses:
        screen.line("Nothing is paused.")
    for one in pauses:
        until = until_text(one.until, now, wiring.config.timezone)
        screen.line(f"{one.job} is paused until {until}: {one.reason}")


def _wired() -> Wiring:
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    return Wiring(load_config(), SystemClock())
