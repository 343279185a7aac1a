"""What opsd remembers of a machine between two looks: counts, levels, and what is read hourly.

Limits: it is not synced to disk; what is lost costs the knowledge of what rose lately.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from opsd.errors import TransientError
from opsd.hosts.health.look import Unknown
from opsd.model import Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """What was found out by what is not asked at every look."""

    read_at: datetime  #: aware UTC
    facts: Mapping[str, Fact] = field(default_factory=dict)
    unknown: tuple[Unknown, ...] = ()
    told: tuple[tuple[int, str], ...] = ()  #: severity and summary of what was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of one machine."""

    boot_id: str = ""  #: at the last look; empty: there was none
    kept: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: by part
    slow: Mapping[str, Slow] = field(default_factory=dict)  #: by part


Records = Mapping[str, Record]  #: by name of the machine


def read(place: Path) -> Records:
    """What the last run knew; nothing when that cannot be read."""
    try:
        said = json.loads(place.read_bytes())
        return {name: _record(one) for name, one in said["machines"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def write(place: Path, records: Records) -> None:
    """Keep it for the next run.

    Raises:
        TransientError: the disk refused.
    """
    text = json.dumps({"machines": {name: _said(one) for name, one in records.items()}})
    part = place.with_suffix(".part")
    try:
        part.write_text(text)
        part.replace(place)
    except OSError as exc:
        raise TransientError(f"write {place}: {exc.strerror}") from exc


def _said(record: Record) -> dict[str, Any]:
    return {
        "boot_id": record.boot_id,
        "kept": dict(record.kept),
        "slow": {
            part: {
                "read_at": slow.read_at.isoformat(),
                "facts": dict(slow.facts),
                "unknown": [[one.what, one.why, one.fix] for one in slow.unknown],
                "told": [list(one) for one in slow.told],
            }
            for part, slow in record.slow.items()
        },
    }


def _record(said: Mapping[str, Any]) -> Record:
    return Record(
        boot_id=said["boot_id"],
        kept={part: dict(kept) for part, kept in said["kept"].items()},
        slow={
            part: Slow(
                read_at=datetime.fromisoformat(slow["read_at"]),
                facts=dict(slow["facts"]),
                unknown=tuple(
                    Unknown(what=what, why=why, fix=fix) for what, why, fix in slow["unknown"]
                ),
                told=tuple((int(severity), str(text)) for severity, text in slow["told"]),
            )
            for part, slow in said["slow"].items()
        },
    )
