"""`opsd run`: the daemon, put together, and kept small.

It runs for months on small machines, so it does not read the configuration itself: that
loads a validator and every job. A child (`opsd jobs -o json`) reads it and says what is due
when.

Limits: the configuration is read once; restart the daemon after a change.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from opsd.cli.calling import STATE_FILE, Command, Exit, config_path, wants_debug
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, PermanentError

if TYPE_CHECKING:
    from opsd.daemon import Scheduled

PLAN_S = 60.0  # for reading the configuration, on a busy Raspberry Pi


@click.command(cls=Command)
def run() -> None:
    """Run what is due, until stopped with SIGTERM or Ctrl-C.

    Each run is a process of its own; what was missed while nothing ran is told. The
    configuration is read once: restart after a change.
    """
    import msgspec  # noqa: PLC0415 - not for --help

    from opsd import logs  # noqa: PLC0415 - loads structlog
    from opsd.alerts.policy import Policy  # noqa: PLC0415 - not for --help
    from opsd.cli.wiring import telling  # noqa: PLC0415 - not for --help
    from opsd.daemon import Daemon  # noqa: PLC0415 - loads apscheduler
    from opsd.executors.process import Children  # noqa: PLC0415 - likewise
    from opsd.state.sqlite import SqliteState  # noqa: PLC0415 - likewise

    clock = SystemClock()
    path = config_path().resolve()
    plan = _plan(path, clock)
    logs.configure(level="debug" if wants_debug() else plan["log_level"])
    timezone = ZoneInfo(plan["timezone"])
    state = SqliteState(Path(plan["state_dir"]) / STATE_FILE, clock=clock)
    try:
        Daemon(
            _scheduled(plan["jobs"], timezone),
            state=state,
            launcher=Children(config=path, clock=clock),
            tell=telling(
                msgspec.convert(plan["policy"], Policy), somebody=bool(plan["alert_targets"])
            ),
            clock=clock,
        ).run()
    finally:
        state.close()


def _plan(config: Path, clock: SystemClock) -> dict[str, Any]:
    """What `opsd jobs -o json` says.

    Raises:
        ConfigError: what is wrong with the configuration.
        PermanentError: the child failed otherwise.
    """
    from opsd.clients import process  # noqa: PLC0415 - not for --help

    done = process.run(
        [sys.executable, "-m", "opsd", "--config", str(config), "-o", "json", "jobs"],
        deadline=Deadline.after(PLAN_S, clock),
        env=dict(os.environ),
    )
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise PermanentError(f"read {config}: {done.complaint()}") from None
    if "error" in told:
        kind = ConfigError if done.returncode == Exit.USAGE else PermanentError
        raise kind("\n".join(told["error"]["lines"]))
    return told


def _scheduled(jobs: Sequence[dict[str, Any]], timezone: ZoneInfo) -> list[Scheduled]:
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
