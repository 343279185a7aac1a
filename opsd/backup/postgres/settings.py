"""What the owner may say about dumps of databases: the table ``[jobs.postgres-backup]``.

Servers stand here, or are found in the cluster, or both. Limits: whether there is a server at
all shows when the job runs, because opsd may run in a cluster or not.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from opsd.backup.postgres.servers import ServerTable
from opsd.config import Duration, Keep, RepositoryName, Table, unique_names
from opsd.errors import ConfigError


def _public_keys(recipients: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what age cannot encrypt to while the configuration is read."""
    if recipients:
        from opsd.backup.crypt import parse_recipients  # noqa: PLC0415 - only when used

        try:
            parse_recipients(recipients)
        except ConfigError as exc:
            raise ValueError(str(exc)) from exc
    return recipients


class Settings(Table):
    """Settings of postgres-backup."""

    repositories: tuple[RepositoryName, ...] = Field(
        min_length=1, description="where the dumps go; each gets all of them", examples=[["usb"]]
    )
    servers: Annotated[tuple[ServerTable, ...], AfterValidator(unique_names)] = Field(
        (), description="servers to dump that are not found in the cluster"
    )
    discover: bool | None = Field(
        None,
        description="find the servers of the cluster; without: if opsd runs in one",
        examples=[True],
    )
    namespaces: tuple[str, ...] = Field(
        ("*",), min_length=1, description="names or patterns of namespaces in which to look"
    )
    exclude_namespaces: tuple[str, ...] = Field(
        (), description="names or patterns of namespaces in which not to look"
    )
    wanted_age: Duration = Field(
        timedelta(hours=36), description="a server without a good dump younger than this is named"
    )
    concurrency: int = Field(2, ge=1, le=32, description="databases dumped at the same time")
    recipients: Annotated[tuple[str, ...], AfterValidator(_public_keys)] = Field(
        (), description="age public keys; dumps are encrypted to them, none: not encrypted"
    )
    client_dirs: tuple[Path, ...] = Field(
        (), description="directories with pg_dump, looked at before /usr/lib/postgresql/*/bin"
    )
    count_rows: Duration = Field(
        timedelta(minutes=10),
        description="time for counting one database's rows; beyond it they are estimates",
    )
    lock_wait: Duration = Field(
        timedelta(minutes=1), description="how long a dump waits for a table that is locked"
    )
    large_objects: Literal["require", "skip"] = Field(
        "require", description="skip: dump without them, which makes the dump partial"
    )
    shrink_warning: int = Field(
        50, ge=1, le=100, description="percent below the usual size that are worth a warning"
    )
    keep: Keep = Field(default_factory=Keep, description="which dumps of a database stay")

    @model_validator(mode="after")
    def _something(self) -> Settings:
        if self.discover is False and not self.servers:
            raise ValueError("nothing to back up: add servers, or set discover = true")
        return self

    def searches_cluster(self) -> bool:
        """Whether servers are looked for in the cluster.

        Raises:
            ConfigError: they are not, and none is written down.
        """
        from opsd.clients.kube.access import runs_in_cluster  # noqa: PLC0415 - when a job runs

        searches = runs_in_cluster() if self.discover is None else self.discover
        if not (searches or self.servers):
            raise ConfigError("there is no server to back up: add servers, or set discover = true")
        return searches
