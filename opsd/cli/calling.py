"""How a command is called: options that stand before or after its name, exit statuses.

Commands are looked up by name and imported when one is used, so that none pays for another.
"""

from __future__ import annotations

import enum
import importlib
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsd.errors import ConfigError

if TYPE_CHECKING:
    from opsd.configfile import Config

CONFIG_VARIABLE = "OPSD_CONFIG"
STATE_FILE = "state.db"  # in opsd.state_dir
CONFIG_PLACES = (Path("config.toml"), Path("/etc/opsd/config.toml"))


class Exit(enum.IntEnum):
    """Exit statuses: a contract with cron, systemd and scripts."""

    COMPLETED = 0
    FAILED = 1  #: wholly or in part
    USAGE = 2  #: or the configuration is wrong
    FINDINGS = 3  #: completed, with findings at or above ``--fail-on``
    BUSY = 75  #: another run holds the lease


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value and parameter.name is not None:
        context.meta[parameter.name] = value  # shared by a command and its groups


def common_options() -> list[click.Option]:
    """Options of every command and of the groups above it; the last one given counts."""
    return [
        click.Option(
            ["--config", "config"],
            metavar="PATH",
            type=click.Path(path_type=Path),
            callback=_remember,
            expose_value=False,
            help=f"Configuration file.  [default: ${CONFIG_VARIABLE}, ./config.toml, "
            "/etc/opsd/config.toml]",
        ),
        click.Option(
            ["-o", "--output", "output"],
            type=click.Choice(["text", "json"]),
            callback=_remember,
            expose_value=False,
            help="What to print: for people, or one JSON object.",
        ),
        click.Option(
            ["--debug", "debug"],
            is_flag=True,
            callback=_remember,
            expose_value=False,
            help="Log everything, and show where an error came from.",
        ),
    ]


class Command(click.Command):
    """A command that takes the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())


class LazyGroup(click.Group):
    """A group that imports a command when it is used."""

    command_class = Command

    def __init__(
        self,
        *args: Any,
        commands_by_name: Mapping[str, tuple[str, str]] | None = None,
        hidden_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        """Build it.

        Args:
            args: as for `click.Group`.
            commands_by_name: name -> (``module:attribute``, one line of help).
            hidden_names: those that the help leaves out.
            kwargs: as for `click.Group`.
        """
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())
        self.places = dict(commands_by_name or {})
        self.hidden_names = hidden_names

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they were given."""
        return [*self.places, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.places:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.places[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a suggestion for a name that is nearly right."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            import difflib  # noqa: PLC0415 - kept out of --help

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            raise click.UsageError(f'There is no command "{args[0]}".{hint}', ctx) from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        if not self.places:
            super().format_commands(ctx, formatter)
            return
        rows = [
            (name, text)
            for name, (_, text) in self.places.items()
            if name not in self.hidden_names
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def wants_json() -> bool:
    """Whether ``-o json`` was given to the running command."""
    return click.get_current_context().meta.get("output") == "json"


def wants_debug() -> bool:
    """Whether ``--debug`` was given to the running command."""
    return bool(click.get_current_context().meta.get("debug"))


def config_path() -> Path:
    """The configuration file of this call.

    Raises:
        ConfigError: none was named and none is in the usual places.
    """
    named = click.get_current_context().meta.get("config") or os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    for place in CONFIG_PLACES:
        if place.exists():
            return place
    looked = " and ".join(str(place) for place in CONFIG_PLACES)
    raise ConfigError(
        f"no configuration: looked for {looked}; "
        f"name one with --config or {CONFIG_VARIABLE}, or copy config.toml.example"
    )


def load_config() -> Config:
    """Read the configuration of this call.

    Raises:
        ConfigError: see `opsd.configfile.load`.
    """
    from jobs import JOBS  # noqa: PLC0415 - loads pydantic
    from opsd.configfile import load  # noqa: PLC0415 - loads pydantic

    return load(config_path(), JOBS)


def log_as(config: Config, *, quiet_on_terminal: bool = False) -> None:
    """Begin to log as the configuration says.

    Args:
        config: names the level.
        quiet_on_terminal: somebody watches the progress, so only errors are logged there.
    """
    from opsd import logs  # noqa: PLC0415 - loads structlog

    level = "debug" if wants_debug() else config.log_level
    if quiet_on_terminal and sys.stderr.isatty() and not wants_debug():
        level = "critical"
    logs.configure(level=level)


def called(arguments: Sequence[str], flag: str) -> bool:
    """Whether a flag stands among arguments that may not even be valid."""
    return flag in arguments


def json_wanted(arguments: Sequence[str]) -> bool:
    """Whether ``-o json`` stands among arguments that may not even be valid."""
    joined = {"-ojson", "--output=json", "-o=json"}
    pairs = itertools.pairwise(arguments)
    return bool(joined & set(arguments)) or any(
        option in ("-o", "--output") and value == "json" for option, value in pairs
    )
