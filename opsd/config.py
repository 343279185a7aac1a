"""Turn config.toml into typed settings, or say everything that is wrong with it at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from opsd.secrets import Secret

_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATION = re.compile(r"(\d+)(s|m|h|d|w)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KiB|MiB|GiB|TiB)")
_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+")


class Table(BaseModel):
    """Base of every table in the configuration: frozen, unknown keys are errors.

    Jobs derive their settings from it; the text of ``Field(description=...)`` is the
    documentation of the key, in config.schema.json and in docs/configuration.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


def parse_duration(raw: Any) -> timedelta:
    """``"90s"``, ``"10m"``, ``"36h"``, ``"7d"``, ``"2w"``."""
    if isinstance(raw, timedelta):
        return raw
    match = _DURATION.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError('expected a duration with a unit, such as "90s", "10m", "36h" or "7d"')
    return timedelta(seconds=int(match[1]) * _DURATION_UNITS[match[2]])


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads as `value`."""
    seconds = int(value.total_seconds())
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _DURATION_UNITS[unit] == 0:
            return f"{seconds // _DURATION_UNITS[unit]}{unit}"
    return f"{seconds}s"


def parse_size(raw: Any) -> int:
    """``"50MiB"`` and its like, as bytes."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    match = _SIZE.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError('expected a size with a unit, such as "512KiB", "50MiB" or "2GiB"')
    return int(Decimal(match[1]) * _SIZE_UNITS[match[2]])


def format_size(value: int) -> str:
    """The shortest text that `parse_size` reads as `value`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % _SIZE_UNITS[unit] == 0:
            return f"{value // _SIZE_UNITS[unit]}{unit}"
    return f"{value}B"


def parse_secret(raw: Any) -> Secret:
    """A reference to a secret; the value itself is refused, without repeating it."""
    if isinstance(raw, Secret):
        return raw
    if isinstance(raw, str) and _SECRET.fullmatch(raw):
        return Secret(raw)
    raise ValueError(
        'expected a reference, "env:NAME" or "file:/path"; the secret itself never stands here'
    )


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size),
    WithJsonSchema({"type": "string", "pattern": f"^{_SIZE.pattern}$"}),
]
SecretRef = Annotated[
    Secret,
    BeforeValidator(parse_secret),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": f"^({_SECRET.pattern})$"}),
]


def absolute(value: Path) -> Path:
    """A path that means the same wherever opsd was started."""
    if not value.is_absolute():
        raise ValueError("must be an absolute path: opsd may be started in any directory")
    return value


AbsolutePath = Annotated[Path, AfterValidator(absolute)]


def known_repository(value: str, info: ValidationInfo) -> str:
    """Hold a reference against the configured names, where the loader knows them."""
    names = (info.context or {}).get("repositories")
    if names is not None and value not in names:
        raise PydanticCustomError("unknown_repository", "unknown", {"known": sorted(names)})
    return value


#: The name of a table ``[repositories.NAME]``: a field of this type is checked by the loader.
RepositoryName = Annotated[str, AfterValidator(known_repository)]


class Named(Protocol):
    """An entry of a list that is told from the others by its name."""

    @property
    def name(self) -> str:
        """Unique in its list."""
        ...


NamedT = TypeVar("NamedT", bound=Sequence[Named])


def unique_names(entries: NamedT) -> NamedT:
    """For ``Annotated[tuple[X, ...], AfterValidator(unique_names)]``: no name twice."""
    first: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if entry.name in first:
            at = {"at": (index, "name"), "name": entry.name, "first": first[entry.name]}
            raise PydanticCustomError("duplicate_name", "duplicate", at)
        first[entry.name] = index
    return entries


class DirectoryTable(Table):
    """A directory on a local disk or a mounted share."""

    type: Literal["directory"]
    path: AbsolutePath = Field(description="where it is; must exist", examples=["/srv/backup"])
    mounted: bool = Field(
        default=False,
        description="refuse to work unless the path is on a mounted disk or share, not on /",
    )


class S3Table(Table):
    """A bucket on AWS or on any server that speaks its protocol."""

    type: Literal["s3"]
    bucket: str = Field(min_length=1, description="must exist", examples=["opsd-backup"])
    prefix: str = Field("", description="keys start with it, so that one bucket serves several")
    endpoint: str = Field(
        "",
        pattern=r"^(https?://[^/@?#\s]+/?)?$",
        description="URL of the server; empty for AWS",
        examples=["https://s3.example.org"],
    )
    region: str = Field("us-east-1", description="what the server calls its region")
    access_key: SecretRef = Field(description="key id", examples=["env:OPSD_S3_ACCESS_KEY"])
    secret_key: SecretRef = Field(description="secret", examples=["env:OPSD_S3_SECRET_KEY"])
    addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="how the bucket stands in the URL; auto: path with an endpoint of your own",
    )
    checksums: Literal["required", "always"] = Field(
        "required",
        description="always: the newer checksums that AWS knows and many other servers refuse",
    )
    storage_class: str = Field(
        "",
        description="for what is written; empty for the bucket's own; must be readable at once",
        examples=["STANDARD_IA"],
    )
    lock_days: int = Field(
        0,
        ge=0,
        description="Object Lock, in days, for what is written; 0 leaves it to the bucket",
    )


class AlertTarget(Table):
    """One service or phone that messages go to."""

    name: str = Field(min_length=1, description="for you and the logs", examples=["phone"])
    url: SecretRef = Field(
        description="an Apprise URL, such as ntfys://TOPIC or tgram://TOKEN/CHAT",
        examples=["env:OPSD_ALERT_URL"],
    )
    min_severity: Literal["warning", "critical"] = Field(
        "warning", description="send only what is at least this severe"
    )
    tags: tuple[str, ...] = Field(
        (), description="names by which routes find it", examples=[["night"]]
    )


class Keep(Table):
    """Which backups of one series stay. Every rule counts verified backups only."""

    last: int = Field(3, ge=0, description="the newest N")
    daily: int = Field(7, ge=0, description="the newest of each of the last N days")
    weekly: int = Field(4, ge=0, description="the newest of each of the last N weeks")
    monthly: int = Field(6, ge=0, description="the newest of each of the last N months")
    yearly: int = Field(0, ge=0, description="the newest of each of the last N years")
    minimum: int = Field(3, ge=1, description="the newest N good ones stay, whatever else")
    max_removed_percent: int = Field(
        50, ge=1, le=100, description="refuse to remove more than this share of a series at once"
    )
