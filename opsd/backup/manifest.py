"""The manifest: the immutable description of one backup, written last.

A backup without a manifest does not exist. The manifest lies beside the data, is plain
JSON, and holds all that a person with stock tools needs on the worst day. It is never
changed: what is found out later (a restore drill, a flipped bit) is a record of its own
beside it, ``<slot>.verified-<time>.json``, which names the manifest it speaks of.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from opsd.backup.naming import stamp
from opsd.errors import PermanentError
from opsd.model import Artifact, Fact

Moment = Annotated[datetime, msgspec.Meta(tz=True)]  # a time without a zone is damage
FORMAT = 1  # raised when a reader of today would misread what is written


class Level(enum.IntEnum):
    """How far a backup was proven. Each level includes those below it."""

    NONE = 0  #: written, nothing proven
    READ_BACK = 1  #: all stored bytes were read and their SHA-256 matches
    PARSED = 2  #: the archive was read to its end by the tool that restores it
    RESTORED = 3  #: restored into a scratch place and compared with what was promised

    @property
    def label(self) -> str:
        """Lower-case name, as in JSON and on the screen."""
        return self.name.lower()

    @classmethod
    def of(cls, label: str) -> Level:
        """The level of a label; NONE for one that this version does not know."""
        return next((level for level in cls if level.label == label), cls.NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """One attempt to prove a backup, successful or not."""

    level: str  #: a `Level` label
    at: Moment  #: aware UTC
    ok: bool
    detail: str = ""  #: what was compared, or what did not match


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One backup."""

    format: int = FORMAT
    kind: str  #: ``pg_dump``, ``pg_globals``, ``restic``, ``rsync``, ``pv_catalog``
    subject: str  #: the series: ``database/main/app``; also the prefix of its keys
    slot: Moment  #: aware UTC, whole seconds
    run_id: str
    created_at: Moment  #: when the data was complete, aware UTC
    key: str  #: the data object; empty when an engine keeps the data (restic, rsync)
    size_bytes: int  #: stored bytes; restic: bytes added to its repository
    sha256: str  #: of the stored bytes; restic: the snapshot id; rsync: of its checksum list
    encryption: str = ""  #: ``age`` or empty
    recipients: tuple[str, ...] = ()  #: public keys that can open it
    source: dict[str, Any] = field(default_factory=dict)  #: facts by kind, JSON values
    verified: tuple[Verification, ...] = ()
    opsd_version: str = ""

    def artifact(self, *, repository: str, key: str, facts: Mapping[str, Fact]) -> Artifact:
        """The backup as a run reports it.

        Args:
            repository: the name of the one that holds it.
            key: of this manifest there.
            facts: for people.
        """
        return Artifact(
            kind=self.kind,
            subject=self.subject,
            repository=repository,
            key=key,
            size_bytes=self.size_bytes,
            sha256=self.sha256,
            level=self.verified[-1].level,
            facts=facts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterVerification:
    """A record beside a manifest: a proof, or the loss of one, found after publication."""

    format: int = FORMAT
    manifest: str  #: the manifest's key
    sha256: str  #: the manifest's `sha256` field, so that a record cannot change owner
    verification: Verification


RecordT = TypeVar("RecordT", Manifest, LaterVerification)
# Made here, by one thread: when two are the first to read a type, msgspec 0.22 crashes.
_MANIFESTS = msgspec.json.Decoder(Manifest)
_RECORDS = msgspec.json.Decoder(LaterVerification)


class DamagedManifest(PermanentError):
    """The object is there but is not a manifest that this version can read."""


def manifest_key(subject: str, slot: datetime) -> str:
    """The one key under which a slot's result is published."""
    return f"{subject}/{stamp(slot)}.json"


def data_key(subject: str, slot: datetime, run_id: str, suffix: str) -> str:
    """A key for the data of one attempt; attempts of one slot never share it."""
    return f"{subject}/{stamp(slot)}-{run_id}{suffix}"


def later_key(manifest: str, at: datetime) -> str:
    """The key of a verification record beside `manifest`."""
    return f"{manifest.removesuffix('.json')}.verified-{stamp(at)}.json"


def encode(value: Manifest | LaterVerification) -> bytes:
    """Readable JSON, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decode(content: bytes, *, key: str) -> Manifest:
    """Read a manifest.

    Raises:
        DamagedManifest: not JSON, a field is missing or of the wrong type, or the format
            is newer than this version knows.
    """
    return _decode(content, key, _MANIFESTS)


def decode_later(content: bytes, *, key: str) -> LaterVerification:
    """Read a verification record; raises as `decode` does."""
    return _decode(content, key, _RECORDS)


def _decode(content: bytes, key: str, decoder: msgspec.json.Decoder[RecordT]) -> RecordT:
    try:
        value = decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise DamagedManifest(f"{key}: not a readable manifest: {exc}") from exc
    if value.format > FORMAT:
        raise DamagedManifest(
            f"{key}: written in format {value.format}, this opsd reads up to {FORMAT}; update opsd"
        )
    return value
