"""`opsd run`: the daemon, put together."""

from __future__ import annotations

import click

from opsd.cli.calling import Command, load_config, log_as
from opsd.cli.wiring import Wiring
from opsd.clock import SystemClock


@click.command(cls=Command)
def run() -> None:
    """Run what is due, until stopped with SIGTERM or Ctrl-C.

    Each run is a process of its own; what was missed while nothing ran is told.
    """
    from opsd.cron import parse  # noqa: PLC0415 - not for --help
    from opsd.daemon import Daemon, Scheduled  # noqa: PLC0415 - loads apscheduler
    from opsd.executors.process import Children  # noqa: PLC0415 - likewise

    config = load_config()
    log_as(config)
    clock = SystemClock()
    wiring = Wiring(config, clock)
    scheduled = [
        Scheduled(
            job=name,
            cron=parse(entry.schedule, timezone=config.timezone, spread_by=name),
            timeout=entry.timeout,
        )
        for name, entry in config.jobs.items()
        if entry.enabled
    ]
    with wiring.state() as state:
        Daemon(
            scheduled,
            state=state,
            launcher=Children(config=config.path.resolve(), clock=clock),
            compose=wiring.compose,
            clock=clock,
        ).run()
