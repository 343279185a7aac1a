"""`opsd run`: the daemon, put together, and kept small.

It runs for months on small machines, so it does not read the configuration itself: that
loads a validator and every job. A child (`opsd jobs -o json`) reads it and says what is due
when.

Limits: the configuration is read once; restart the daemon after a change.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import STATE_FILE, Command, Exit, config_path, wants_debug, wants_json
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    from opsd.alerts.heartbeat import Heartbeat
    from opsd.alerts.policy import Policy
    from opsd.clients import process
    from opsd.cron import Cron
    from opsd.daemon import Daemon, Scheduled, Window
    from opsd.executors.pinging import Pings
    from opsd.state import State

CHILD_S = 60.0  # for reading the configuration, on a busy Raspberry Pi


@click.command(cls=Command)
@click.option(
    "--once", is_flag=True, help="Run what is due now, with its retries, then end. For cron."
)
def run(*, once: bool) -> int:
    """Run what is due, until stopped with SIGTERM or Ctrl-C.

    Each run is a process of its own; what was missed while nothing ran is told. The
    configuration is read once: restart after a change.

    With --once it prints what came of it and exits as run-job does.
    """
    from opsd.daemon.signals import stop_signals  # noqa: PLC0415 - loads structlog

    with stop_signals() as told_to_stop, _assembled(shows_itself=not once) as daemon:
        if not once:
            daemon.run(told_to_stop)
            return Exit.COMPLETED
        runs = daemon.run_once(told_to_stop)
    from opsd.cli.render import Screen, print_json  # noqa: PLC0415 - not for the daemon
    from opsd.cli.results import run_json, show_runs  # noqa: PLC0415 - likewise
    from opsd.cli.run_job import exit_status  # noqa: PLC0415 - likewise

    if wants_json():
        print_json({"runs": [run_json(run) for run in runs]})
    elif runs:
        show_runs(Screen(), runs, dry_run=False)
    else:
        Screen().line("Nothing is due.")
    return exit_status(runs, fail_on="critical")


@contextlib.contextmanager
def _assembled(*, shows_itself: bool) -> Iterator[Daemon]:
    """The daemon with all its parts; whether it also answers HTTP, where that is configured."""
    import msgspec  # noqa: PLC0415 - not for --help

    from opsd import logs  # noqa: PLC0415 - loads structlog
    from opsd.alerts.policy import Policy  # noqa: PLC0415 - not for --help
    from opsd.alerts.reporting import Reports  # noqa: PLC0415 - likewise
    from opsd.cli.wiring import telling  # noqa: PLC0415 - likewise
    from opsd.daemon import Daemon  # noqa: PLC0415 - loads apscheduler
    from opsd.executors.process import Children  # noqa: PLC0415 - likewise
    from opsd.state.sqlite import SqliteState  # noqa: PLC0415 - likewise

    clock = SystemClock()
    path = config_path().resolve()
    plan = _plan(path, clock)
    logs.configure(level="debug" if wants_debug() else plan["log_level"])
    policy = msgspec.convert(plan["policy"], Policy)
    jobs = _scheduled(plan["jobs"], zoneinfo.ZoneInfo(plan["timezone"]))
    somebody = bool(plan["alert_targets"])
    state = SqliteState(Path(plan["state_dir"]) / STATE_FILE, clock=clock)
    with contextlib.closing(state):
        crons: dict[str, Cron] = {one.job: one.cron for one in jobs}
        reports = Reports(state, policy=policy, jobs=crons) if somebody else None
        daemon = Daemon(
            jobs,
            state=state,
            launcher=Children(config=path, clock=clock),
            tell=telling(policy, somebody=somebody),
            clock=clock,
            windows=_windows(policy),
            report=reports.send_if_due if reports else None,
            pulse=_heartbeat(plan["heartbeat"], state, clock),
            pings=_pings(plan["jobs"]),
        )
        make_page = functools.partial(_page, path, clock)
        http = plan["http"] if shows_itself else None
        with _shown(http, daemon, state=state, crons=crons, make_page=make_page):
            yield daemon


def _shown(
    http: Mapping[str, Any] | None,
    daemon: Daemon,
    *,
    state: State,
    crons: Mapping[str, Cron],
    make_page: Callable[[], str],
) -> contextlib.AbstractContextManager[object]:
    """What answers HTTP meanwhile; loads nothing when nobody asks for it."""
    if http is None:
        return contextlib.nullcontext()
    from opsd.http.app import App  # noqa: PLC0415 - not for every daemon
    from opsd.http.health import live, ready  # noqa: PLC0415 - likewise
    from opsd.http.metrics import Metrics  # noqa: PLC0415 - loads prometheus_client
    from opsd.http.page import Page, is_expected  # noqa: PLC0415 - not for every daemon
    from opsd.http.server import Server  # noqa: PLC0415 - loads waitress

    clock = SystemClock()
    gaps = {job: cron.longest_gap(clock.now()).total_seconds() for job, cron in crons.items()}
    app = App(
        {
            "/livez": lambda: live(daemon),
            "/readyz": lambda: ready(state),
            "/metrics": Metrics(state, gaps).answer,
        },
        pages={"/": Page(make_page, clock=clock).answer},
        is_expected=lambda host: is_expected(host, http["hosts"]),
    )
    return Server(app, address=http["address"], port=http["port"])


def _page(config: Path, clock: SystemClock) -> str:
    """What `opsd status --html` prints.

    Raises:
        PermanentError: it printed no page.
    """
    done = _child(config, clock, "status", "--html")
    if not done.stdout.startswith(b"<!doctype html>"):
        raise PermanentError(f"opsd status --html: {done.complaint()}")
    return done.stdout.decode("utf-8", "backslashreplace")


def _child(config: Path, clock: SystemClock, *arguments: str) -> process.Completed:
    from opsd.clients import process  # noqa: PLC0415 - not for --help

    return process.run(
        [sys.executable, "-m", "opsd", "--config", str(config), *arguments],
        deadline=Deadline.after(CHILD_S, clock),
        env=dict(os.environ),
    )


def _plan(config: Path, clock: SystemClock) -> dict[str, Any]:
    """What `opsd jobs -o json` says.

    Raises:
        ConfigError: what is wrong with the configuration.
        PermanentError: the child failed otherwise.
    """
    done = _child(config, clock, "-o", "json", "jobs")
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise PermanentError(f"read {config}: {done.complaint()}") from None
    if "error" in told:
        kind = ConfigError if done.returncode == Exit.USAGE else PermanentError
        raise kind("\n".join(told["error"]["lines"]))
    return told


def _scheduled(jobs: Sequence[Mapping[str, Any]], timezone: zoneinfo.ZoneInfo) -> list[Scheduled]:
    from opsd.cron import parse  # noqa: PLC0415 - not for --help
    from opsd.daemon import Scheduled  # noqa: PLC0415 - loads apscheduler

    return [
        Scheduled(
            job=one["job"],
            cron=parse(one["schedule"], timezone=timezone, spread_by=one["job"]),
            timeout=timedelta(seconds=one["timeout_s"]),
            catch_up=None if one["catch_up_s"] is None else timedelta(seconds=one["catch_up_s"]),
            jitter=timedelta(seconds=one["jitter_s"]),
            retries=one["retries"],
        )
        for one in jobs
        if one["enabled"]
    ]


def _windows(policy: Policy) -> list[Window]:
    from opsd.cron import parse  # noqa: PLC0415 - not for --help
    from opsd.daemon import Window  # noqa: PLC0415 - loads apscheduler

    timezone = zoneinfo.ZoneInfo(policy.timezone)
    return [
        Window(
            name=one.name,
            cron=parse(one.schedule, timezone=timezone, spread_by=one.name),
            duration=one.duration,
            jobs=one.jobs,
        )
        for one in policy.maintenance
    ]


def _heartbeat(
    table: Mapping[str, Any] | None, state: State, clock: SystemClock
) -> Heartbeat | None:
    if table is None:
        return None
    from opsd.alerts.heartbeat import Heartbeat  # noqa: PLC0415 - loads urllib3
    from opsd.clients.pings import Endpoint  # noqa: PLC0415 - likewise
    from opsd.secrets import Secret  # noqa: PLC0415 - not for --help

    return Heartbeat(
        Endpoint(name="heartbeat", url=Secret(table["url"]), kind=table["kind"]),
        every=timedelta(seconds=table["every_s"]),
        state=state,
        clock=clock,
    )


def _pings(jobs: Sequence[Mapping[str, Any]]) -> Pings:
    """Who is told of slots that no run answered; loads nothing when no job asks for it."""
    from opsd.executors.pinging import NoPings  # noqa: PLC0415 - not for --help

    asking = [one for one in jobs if one["ping"]]
    if not asking:
        return NoPings()
    from opsd.alerts.pings import BackgroundPings, JobPings  # noqa: PLC0415 - loads urllib3
    from opsd.clients.pings import Endpoint  # noqa: PLC0415 - likewise
    from opsd.secrets import Secret  # noqa: PLC0415 - not for --help

    endpoints = {
        one["job"]: Endpoint(
            name=f"ping of {one['job']}", url=Secret(one["ping"]["url"]), kind=one["ping"]["kind"]
        )
        for one in asking
    }
    return BackgroundPings(JobPings(endpoints))
