"""Turn config.toml into typed settings, or say everything that is wrong with it at once."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

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

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


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


class Keep(Table):
    """Which backups of one series stay. Every rule counts verified backups only."""

    last: int = Field(3, ge=0, description="the newest N")
    daily: int = Field(7, ge=0, description="the newest of each of the last N days")
    weekly: int = Field(4, ge=0, description="the newest of each of the last N weeks")
    monthly: int = Field(6, ge=0, description="the newest of each of the last N months")
    yearly: int = Field(0, ge=0, description="the newest of each of the last N years")
    minimum: int = Field(3, ge=1, description="never fewer good backups than this, whatever else")
    max_removed_percent: int = Field(
        50, ge=1, le=100, description="refuse to remove more than this share of a series at once"
    )
