"""Which repositories a command works on: those of the configuration, or one named by address.

On the worst day there is a borrowed laptop, an address and two keys, and no config.toml.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import load_config
from opsd.cli.selecting import Held
from opsd.clock import SystemClock
from opsd.errors import ConfigError, OpsdError

if TYPE_CHECKING:
    from opsd.backup.catalog import Problem
    from opsd.backup.repository import Repository
    from opsd.configfile import Config

HERE = "here"  # the name of a repository that was given by its address
KEY_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a person named."""

    repository: str | None  #: a name from the configuration; None: all of them
    at: str | None  #: an address; then no configuration is read
    endpoint: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The repositories of a call."""

    repositories: tuple[Repository, ...]
    timezone: tzinfo
    config: Config | None  #: None when the repository was given by its address

    def named(self, name: str) -> Repository:
        """One of them."""
        return next(one for one in self.repositories if one.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a repository holds, or why that cannot be told."""

    repository: Repository
    backups: tuple[Held, ...] = ()
    problems: tuple[Problem, ...] = ()
    damaged: tuple[str, ...] = ()  #: keys of what nobody can restore from
    error: str = ""  #: empty when it could be read


def place_options(function: Callable[..., int]) -> Callable[..., int]:
    """Options that say where the backups are; the command gets them as `place`."""

    @functools.wraps(function)
    def command(
        *, repository: str | None, at: str | None, endpoint: str, region: str, **others: Any
    ) -> int:
        place = Place(repository=repository, at=at, endpoint=endpoint, region=region)
        return function(place=place, **others)

    for option in reversed(
        (
            click.option("--repository", metavar="NAME", help="Only this repository."),
            click.option(
                "--at",
                metavar="ADDRESS",
                help="A directory or s3://BUCKET/PREFIX; no configuration is needed. Keys of S3 "
                f"come from {' and '.join(KEY_VARIABLES)}.",
            ),
            click.option("--endpoint", default="", metavar="URL", help="With --at s3://..."),
            click.option("--region", default="us-east-1", show_default=True, metavar="NAME"),
        )
    ):
        command = option(command)
    return command


def open_places(place: Place) -> Opened:
    """Open what was named; nothing is asked of it yet.

    Raises:
        ConfigError: no such repository, or no keys.
    """
    if place.at is not None:
        repository = _open_address(place)
        return Opened(repositories=(repository,), timezone=UTC, config=None)
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - needs a configuration

    config = load_config()
    wiring = Wiring(config, SystemClock())
    names = [place.repository] if place.repository else list(config.repositories)
    if not names:
        raise ConfigError(f"{config.path}: there is no [repositories.NAME]; add one, or use --at")
    return Opened(
        repositories=tuple(wiring.repository(name) for name in names),
        timezone=config.timezone,
        config=config,
    )


def read_all(repositories: Sequence[Repository], prefix: str = "") -> tuple[Reading, ...]:
    """Read every repository; one that cannot be read hides no other."""
    return tuple(_read(repository, prefix) for repository in repositories)


def _read(repository: Repository, prefix: str) -> Reading:
    from opsd.backup.catalog import read_catalog  # noqa: PLC0415 - not for --help

    try:
        catalog = read_catalog(repository, prefix)
    except OpsdError as exc:
        return Reading(repository=repository, error=str(exc))
    held = (Held(repository=repository.name, backup=backup) for backup in catalog.backups)
    return Reading(
        repository=repository,
        backups=tuple(held),
        problems=catalog.problems,
        damaged=catalog.damaged,
    )


def _open_address(place: Place) -> Repository:
    from opsd.backup.opening import open_repository  # noqa: PLC0415 - may load boto3
    from opsd.config import DirectoryTable, S3Table  # noqa: PLC0415 - loads pydantic
    from opsd.secrets import Secret  # noqa: PLC0415 - likewise

    address = place.at or ""
    if not address.startswith("s3://"):
        path = Path(address).absolute()
        return open_repository(HERE, DirectoryTable(type="directory", path=path))
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    missing = [name for name in KEY_VARIABLES if not os.environ.get(name)]
    if not bucket or missing:
        what = f"set {' and '.join(missing)}" if missing else "the bucket's name is missing"
        raise ConfigError(f"--at {address}: {what}")
    access_key, secret_key = (Secret(f"env:{name}") for name in KEY_VARIABLES)
    return open_repository(
        HERE,
        S3Table(
            type="s3",
            bucket=bucket,
            prefix=prefix.strip("/"),
            endpoint=place.endpoint,
            region=place.region,
            access_key=access_key,
            secret_key=secret_key,
        ),
    )
