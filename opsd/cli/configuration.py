"""`opsd config`: what the configuration is after all defaults, and what may stand in it."""

from __future__ import annotations

import sys

import click

from opsd.cli.calling import LazyGroup, load_config, wants_json
from opsd.cli.render import print_json


@click.group(cls=LazyGroup, name="config")
def config() -> None:
    """Show the configuration or its schema."""


@config.command()
def schema() -> None:
    """Print the JSON schema that editors use to complete and check config.toml."""
    from jobs import JOBS  # noqa: PLC0415 - loads pydantic
    from opsd.configfile import json_schema  # noqa: PLC0415 - loads pydantic

    print_json(json_schema(JOBS))


@config.command()
def show() -> None:
    """Print the configuration with every default; secrets stay references."""
    from opsd.configfile.showing import as_toml  # noqa: PLC0415 - loads tomlkit

    loaded = load_config()
    if wants_json():
        tables = loaded.document.model_dump(mode="json", by_alias=True, exclude_none=True)
        print_json({"path": str(loaded.path), "config": tables})
    else:
        sys.stdout.write(as_toml(loaded.document))
