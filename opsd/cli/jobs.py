"""`opsd jobs`: what opsd can run, when it is due, how it went, and how long it takes.

The daemon reads what is due from here (`opsd.cli.daemon`), so a state that cannot be read is
told and is no error.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import Command, load_config, wants_json
from opsd.cli.expiry import until_text
from opsd.cli.overview import outcome_cell
from opsd.cli.pausing import pause_json, standing
from opsd.cli.render import Screen, Tone, age_text, print_json, span_text
from opsd.clock import SystemClock
from opsd.errors import OpsdError
from opsd.model import Outcome, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opsd.cli.wiring import Wiring
    from opsd.configfile import JobEntry
    from opsd.configfile.tables import HeartbeatTable, HttpTable
    from opsd.cron import Cron
    from opsd.incidents import Pause
    from opsd.job import AnyJob

NEXT_SLOTS = 3
TREND_RUNS = 10
FEWEST_USUAL = 3  # runs before one can say what is usual
UNUSUAL = 1.25  # times as long, or as short
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is on record of the jobs."""

    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)  #: newest first
    running: Mapping[str, datetime] = field(default_factory=dict)  #: since when
    pauses: Mapping[str, Pause] = field(default_factory=dict)  #: those that have not run out
    error: str = ""  #: why it could not be read


@click.command(cls=Command)
def jobs() -> None:
    """List what opsd can run, when it is due, how it went and how long it takes."""
    from jobs import JOBS  # noqa: PLC0415 - loads pydantic
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    wiring = Wiring(load_config(), SystemClock())
    now = wiring.clock.now()
    past = read_past(wiring, now)
    if wants_json():
        print_json(_as_json(JOBS, wiring, past, now))
        return
    screen = Screen()
    for number, job in enumerate(JOBS):
        if number:
            screen.line()
        _show(screen, job, wiring, past, now)
    if past.error:
        told = f"could not tell what was run: {past.error}"
        screen.detail(told, indent=0, mark="✗ ", tone=Tone.BAD)


def read_past(wiring: Wiring, now: datetime) -> Past:
    """What is on record; an error is part of the answer."""
    if not wiring.state_path.exists():
        return Past()  # nothing was ever run, and looking leaves no file behind
    try:
        with wiring.state() as state:
            return Past(
                runs={job: state.runs(job=job, limit=TREND_RUNS) for job in wiring.config.jobs},
                running={job: since for job, _, since in state.running()},
                pauses={one.job: one for one in standing(state.pauses(), now)},
            )
    except OpsdError as exc:
        return Past(error=str(exc))


def _as_json(
    registry: Sequence[AnyJob], wiring: Wiring, past: Past, now: datetime
) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415 - not for --help

    config = wiring.config
    return {
        "state_dir": str(config.state_dir),
        "timezone": config.timezone.key,
        "log_level": config.log_level,
        "alert_targets": [target.name for target in config.targets],
        "policy": msgspec.to_builtins(wiring.policy),
        "heartbeat": _heartbeat_json(config.document.heartbeat),
        "http": _http_json(config.document.http),
        "state": {"readable": not past.error, "error": past.error},
        "jobs": [
            _plan_json(job, wiring, now) | _past_json(job.name, past, wiring, now)
            for job in registry
        ],
    }


def _heartbeat_json(table: HeartbeatTable | None) -> dict[str, Any] | None:
    if table is None:
        return None
    url = str(table.url)  # the reference, never the secret
    return {"url": url, "kind": table.kind, "every_s": table.every.total_seconds()}


def _http_json(table: HttpTable) -> dict[str, Any] | None:
    from opsd.configfile.tables import listen_address  # noqa: PLC0415 - loads pydantic

    if not table.listen:
        return None
    address, port = listen_address(table.listen)
    return {"address": address, "port": port, "hosts": list(table.hosts)}


def _plan_json(job: AnyJob, wiring: Wiring, now: datetime) -> dict[str, Any]:
    entry = wiring.config.jobs.get(job.name)
    cron = cron_of(entry, wiring)
    slots = list(_following(cron, now)) if cron else []
    return {
        "job": job.name,
        "group": job.group,
        "summary": job.summary,
        "configured": entry is not None,
        "enabled": entry is not None and entry.enabled,
        "schedule": entry.schedule if entry else None,
        "due": cron.describe() if cron else None,
        "next_slot": slots[0] if slots else None,
        "next_slots": slots,
        "timeout_s": entry.timeout.total_seconds() if entry else None,
        "catch_up_s": entry.catch_up.total_seconds() if entry and entry.catch_up else None,
        "jitter_s": entry.jitter.total_seconds() if entry else None,
        "retries": entry.retries if entry else None,
        "ping": {"url": str(entry.ping), "kind": entry.ping_kind}
        if entry and entry.ping
        else None,
    }


def _past_json(name: str, past: Past, wiring: Wiring, now: datetime) -> dict[str, Any]:
    from opsd.cli.results import run_json  # noqa: PLC0415 - not for --help

    runs = past.runs.get(name, ())
    pause, window = past.pauses.get(name), maintenance_of(name, wiring, now)
    usual = usual_duration(runs)
    return {
        "last_run": run_json(runs[0]) if runs else None,
        "running_since": past.running.get(name),
        "durations_s": [round(one.total_seconds(), 3) for one in reversed(latest_durations(runs))],
        "usual_duration_s": round(usual.total_seconds(), 3) if usual else None,
        "paused": pause_json(pause) if pause else None,
        "maintenance": {"name": window[0], "until": window[1]} if window else None,
    }


def maintenance_of(name: str, wiring: Wiring, now: datetime) -> tuple[str, datetime] | None:
    """The window in which `name` is not started now, and when that ends."""
    from opsd.alerts.gates import fits, maintenance_at  # noqa: PLC0415 - not for --help

    for window in wiring.policy.maintenance:
        until = maintenance_at(window, now, timezone=wiring.config.timezone.key)
        if until is not None and any(fits(pattern, name) for pattern in window.jobs):
            return window.name, until
    return None


def usual_duration(runs: Sequence[Run]) -> timedelta | None:
    """The median of the completed runs before the newest; None when there are too few."""
    before = latest_durations(runs)[1:]
    if len(before) < FEWEST_USUAL:
        return None
    return timedelta(seconds=statistics.median(one.total_seconds() for one in before))


def sparkline(durations: Sequence[timedelta]) -> str:
    """``▁▂▁▁█``: the oldest first; the longest is the highest, nothing is the lowest."""
    longest = max(durations, default=timedelta(0))
    if not longest:
        return ""
    top = len(_BARS) - 1
    return "".join(_BARS[round(one / longest * top)] for one in durations)


def latest_durations(runs: Sequence[Run]) -> list[timedelta]:
    """Of the completed runs, newest first: one that failed took as long as it took to fail."""
    return [run.duration for run in runs if run.outcome is Outcome.COMPLETED]


def _show(screen: Screen, job: AnyJob, wiring: Wiring, past: Past, now: datetime) -> None:
    entry = wiring.config.jobs.get(job.name)
    group = f" (group {job.group})" if job.group else ""
    screen.line(f"{job.name}{group}", Tone.TITLE)
    screen.detail(job.summary, indent=2)
    if entry is None:
        told = f"not configured: there is no table [jobs.{job.name}]"
        screen.detail(told, indent=2, tone=Tone.DIM)
        return
    cron = cron_of(entry, wiring)
    if cron is None:
        screen.detail(f"disabled; opsd run-job {job.name} runs it", indent=2, mark="due   ")
    else:
        slots = ", ".join(slot_text(slot, wiring) for slot in _following(cron, now))
        screen.detail(_decapitalized(cron.describe()), indent=2, mark="due   ")
        screen.detail(slots, indent=2, mark="next  ")
    _show_holds(screen, job.name, wiring, past, now)
    if not past.error:
        _show_past(screen, job.name, past, now)


def _show_holds(screen: Screen, name: str, wiring: Wiring, past: Past, now: datetime) -> None:
    """Why it does not start, though it is due."""
    timezone = wiring.config.timezone
    if pause := past.pauses.get(name):
        told = f"paused until {until_text(pause.until, now, timezone)}: {pause.reason}"
        screen.detail(told, indent=2, tone=Tone.WARNING)
    if window := maintenance_of(name, wiring, now):
        told = f"waits for the end of maintenance {window[0]}: "
        screen.detail(told + until_text(window[1], now, timezone), indent=2, tone=Tone.WARNING)


def _show_past(screen: Screen, name: str, past: Past, now: datetime) -> None:
    runs = past.runs.get(name, ())
    if since := past.running.get(name):
        screen.detail(f"running since {age_text(since, now)}", indent=2, mark="now   ")
    if not runs:
        screen.detail("never run", indent=2, mark="last  ", tone=Tone.WARNING)
        return
    outcome = outcome_cell(runs[0].outcome)
    told = f"{outcome.text} {age_text(runs[0].started_at, now)}, {took_text(runs)}"
    if runs[0].retry_at and runs[0].retry_at > now:
        told += f", tried again {age_text(runs[0].retry_at, now)}"
    screen.detail(told, indent=2, mark="last  ", tone=outcome.tone)
    if trend := _trend(screen, runs):
        screen.detail(trend, indent=2, mark="took  ")


def took_text(runs: Sequence[Run]) -> str:
    """``took 3 min, usually 2 min``: what is usual only when it was not."""
    took, usual = runs[0].duration, usual_duration(runs)
    text = f"took {span_text(took)}"
    if usual and runs[0].outcome is Outcome.COMPLETED:
        ratio = max(took, usual) / max(min(took, usual), timedelta(milliseconds=100))
        if ratio >= UNUSUAL:
            return f"{text}, usually {span_text(usual)}"
    return text


def _trend(screen: Screen, runs: Sequence[Run]) -> str:
    durations = latest_durations(runs)[::-1]
    if not screen.is_unicode or len(durations) < FEWEST_USUAL:
        return ""
    return f"{sparkline(durations)} {span_text(min(durations))} to {span_text(max(durations))}"


def cron_of(entry: JobEntry | None, wiring: Wiring) -> Cron | None:
    """When a job is due; None when it never is."""
    from opsd.cron import parse  # noqa: PLC0415 - not for --help

    if entry is None or not entry.enabled:
        return None
    return parse(entry.schedule, timezone=wiring.config.timezone, spread_by=entry.job.name)


def _following(cron: Cron, now: datetime) -> Iterator[datetime]:
    slot = now
    for _ in range(NEXT_SLOTS):
        slot = cron.next_slot(slot)
        yield slot


def slot_text(slot: datetime, wiring: Wiring) -> str:
    """``Tue 24 Nov 02:15``."""
    return f"{slot.astimezone(wiring.config.timezone):%a %d %b %H:%M}"


def _decapitalized(text: str) -> str:
    return text[:1].lower() + text[1:]
