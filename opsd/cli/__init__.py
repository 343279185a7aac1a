"""The command line. What a command prints and how it exits is a contract (docs/commands.md).

Nothing heavy is imported before a command is chosen: `opsd --help` must be instant on a
Raspberry Pi.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from opsd import __version__
from opsd.cli.calling import Exit, LazyGroup, called, json_wanted
from opsd.errors import ConfigError, LeaseHeld, OpsdError
from opsd.text import printable

PROGRAM = "opsd"
INTERRUPTED = 130  # what a shell reports for Ctrl-C

COMMANDS = {
    "run": ("opsd.cli.daemon:run", "Run what is due, until stopped."),
    "run-job": ("opsd.cli.run_job:run_job", "Run a job, or a group of jobs, now."),
    "jobs": ("opsd.cli.jobs:jobs", "List what opsd can run, and when it is due."),
    "status": ("opsd.cli.status:status", "Show whether everything is all right."),
    "nodes": ("opsd.cli.nodes:nodes", "See the machines; say which may be believed."),
    "history": ("opsd.cli.overview:history", "List what was run and how it ended."),
    "findings": ("opsd.cli.overview:findings", "List what a person should know or do."),
    "ack": ("opsd.cli.acknowledging:ack", "Say that you take care: no more reminders of it."),
    "silence": ("opsd.cli.silencing:silence", "Do not be told about something for a while."),
    "pause": ("opsd.cli.pausing:pause", "Do not start a job for a while."),
    "resume": ("opsd.cli.pausing:resume", "End the pause of a job."),
    "fence": ("opsd.cli.fence:fence", "Say that a lost node is off; see what is done about it."),
    "backups": ("opsd.cli.backups:backups", "List, verify and restore backups."),
    "init": ("opsd.cli.init:init", "Write a first configuration from what is there."),
    "check": ("opsd.cli.check:check", "Try everything that the configuration points to."),
    "config": ("opsd.cli.configuration:config", "Show the configuration or its schema."),
    "notify-test": ("opsd.cli.notify:notify_test", "Send a test message to every target."),
    "deliver": ("opsd.cli.notify:deliver", ""),
}
HIDDEN = ("deliver",)


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    hidden_names=HIDDEN,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 completed, 1 failed wholly or in part, 2 usage or configuration "
    "error, 3 completed with findings, 75 another run is under way.",
)
@click.version_option(__version__, prog_name=PROGRAM)
def opsd() -> None:
    """Back up what cannot be rebuilt, prove that it can be restored, and say what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Prints every error, raises none."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = opsd.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except (click.Abort, KeyboardInterrupt):
        return _report("interrupted", status=INTERRUPTED, arguments=arguments)
    except click.ClickException as exc:
        return _misuse(exc, arguments)
    except Exception as exc:  # noqa: BLE001 - the last one that can tell the operator
        return _failure(exc, arguments)
    return int(status or 0)


def _misuse(exc: click.ClickException, arguments: list[str]) -> int:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        click.echo(exc.format_message(), err=True)
        return Exit.USAGE
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    hint = f"; try {context.command_path} --help" if context else ""
    text = exc.format_message().rstrip(".") + hint
    return _report(text, status=Exit.USAGE, arguments=arguments)


def _failure(exc: Exception, arguments: list[str]) -> int:
    from opsd.secrets import redact  # noqa: PLC0415 - kept out of --help

    if called(arguments, "--debug"):
        import traceback  # noqa: PLC0415 - kept out of --help

        sys.stderr.write(redact(traceback.format_exc()))
    match exc:
        case ConfigError():
            return _report(redact(str(exc)), status=Exit.USAGE, arguments=arguments)
        case LeaseHeld():
            return _report(redact(str(exc)), status=Exit.BUSY, arguments=arguments)
        case OpsdError():
            return _report(redact(str(exc)), status=Exit.FAILED, arguments=arguments)
    text = f"unexpected {type(exc).__name__}: {redact(str(exc))}; --debug shows where"
    return _report(text, status=Exit.FAILED, arguments=arguments)


def _report(text: str, *, status: int, arguments: list[str]) -> int:
    lines = [printable(line) for line in text.splitlines()]
    if json_wanted(arguments):
        import json  # noqa: PLC0415 - kept out of --help

        print(json.dumps({"error": {"exit_status": int(status), "lines": lines}}, indent=2))  # noqa: T201
    else:
        for line in lines:
            click.echo(f"{PROGRAM}: {line}", err=True)
    return int(status)
