"""`opsd notify-test`: does my phone ring? And the hidden command that sends what waits."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from opsd.cli.calling import Command, Exit, load_config, log_as, wants_json
from opsd.cli.render import Column, Row, Screen, Tone, count_text, print_json
from opsd.cli.wiring import DELIVERY_S, Wiring
from opsd.clock import Deadline, SystemClock
from opsd.errors import ConfigError, OpsdError
from opsd.model import Message, Severity
from opsd.secrets import describe
from opsd.triage import OWN


@click.command(name="notify-test", cls=Command)
@click.option("--target", metavar="NAME", help="Only this target.")
def notify_test(target: str | None) -> int:
    """Send a test message to every target now, and say which service accepted it."""
    from opsd.clients.notify import Notifier  # noqa: PLC0415 - loads apprise

    config = load_config()
    log_as(config, quiet_on_terminal=True)
    wanted = [one for one in config.targets if target in (None, one.name)]
    if not wanted:
        known = ", ".join(one.name for one in config.targets) or "none"
        what = f"there is no alert target {target}" if target else "there is no alert target"
        raise ConfigError(f"{config.path}: {what}; configured: {known}; add [[alerts.targets]]")
    deadline = Deadline.after(DELIVERY_S, SystemClock())
    now = datetime.now(UTC)
    message = Message(
        key=f"test/{now.isoformat()}",
        severity=Severity.CRITICAL,
        title=f"opsd: test message from {socket.gethostname()}",
        body="If you can read this, messages about failed backups will arrive here too.",
    )
    results: list[tuple[str, str]] = []
    for one in wanted:
        try:
            Notifier((one,)).send(one.name, message, deadline=deadline)
        except OpsdError as exc:
            results.append((one.name, describe(exc)))
        else:
            results.append((one.name, ""))
    _note_accepted([name for name, error in results if not error], Wiring(config, SystemClock()))
    _show(results)
    return Exit.FAILED if any(error for _, error in results) else Exit.COMPLETED


def _note_accepted(targets: Sequence[str], wiring: Wiring) -> None:
    """A channel that took the test message is not down any more."""
    from opsd.alerts.channels import proven_well  # noqa: PLC0415 - not for --help

    # Whether a phone rings does not depend on the state.
    with contextlib.suppress(OpsdError), wiring.state() as state:
        seen = proven_well(targets, open_before=state.open_findings(job=OWN))
        if seen:
            state.observe(OWN, findings=(), seen=seen, tell=wiring.tell)


@click.command(cls=Command, hidden=True)
def deliver() -> int:
    """Send what waits in the outbox, once."""
    from opsd.alerts import outbox  # noqa: PLC0415 - not for --help
    from opsd.clients.notify import Notifier  # noqa: PLC0415 - loads apprise

    config = load_config()
    log_as(config)
    clock = SystemClock()
    wiring = Wiring(config, clock)
    with wiring.state() as state, contextlib.suppress(BrokenPipeError):
        done = outbox.deliver(
            state,
            Notifier(config.targets),
            tell=wiring.tell,
            clock=clock,
            deadline=Deadline.after(DELIVERY_S, clock),
            timezone=config.timezone,
        )
        if wants_json():
            print_json({"delivered": done.delivered, "failed": done.failed, "errors": done.errors})
        else:
            screen = Screen()
            screen.line(f"{count_text(done.delivered, 'message')} delivered.")
            for error in done.errors:
                screen.detail(error, indent=0, mark="✗ ", tone=Tone.BAD)
    return Exit.FAILED if done.failed else Exit.COMPLETED


def _show(results: list[tuple[str, str]]) -> None:
    if wants_json():
        rows = [{"target": name, "accepted": not error, "error": error} for name, error in results]
        print_json({"targets": rows})
        return
    screen = Screen()
    lines: list[Row] = [(name, error or "accepted by the service") for name, error in results]
    screen.table([Column("TARGET"), Column("RESULT", folds=True)], lines)
