"""What the manifest of a dump says about its origin: all that a restore is built from and held to.

Limits: fields are only ever added. A reader of today ignores what it does not know, and
fills in what an older manifest lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from opsd.backup.manifest import DamagedManifest, Manifest
from opsd.clients.pgsnapshot import RowCount
from opsd.text import storable

SourceT = TypeVar("SourceT", "DumpSource", "GlobalsSource")

SCRATCH_PREFIX = "opsd_scratch_"  # databases that a restore has not finished; never dumped

PG_DUMP = "pg_dump"  # kinds of manifests
PG_GLOBALS = "pg_globals"


class DumpSource(msgspec.Struct, kw_only=True, frozen=True):
    """`Manifest.source` of kind ``pg_dump``. Names are as in the server, not quoted."""

    server: str  #: configured name
    server_version: str
    client_version: str  #: of the pg_dump that wrote the archive
    database: str
    owner: str
    encoding: str = "UTF8"
    collation: str = "C"
    character_type: str = "C"
    locale_provider: str = "libc"
    locale: str = ""
    database_size_bytes: int = 0  #: on the server's disk
    extensions: dict[str, str] = {}  #: name: version
    roles: tuple[str, ...] = ()  #: that own objects or were granted rights
    settings: tuple[tuple[str, str, str], ...] = ()  #: (role or "", name, value) of the database
    sealed_settings: str = ""  #: instead of `settings` beside an encrypted dump; see `sealed`
    large_objects: int = 0
    rows: dict[str, tuple[int | None, bool]] = {}  #: ``schema.table``: (rows, exact)
    snapshot_at: datetime
    command: tuple[str, ...] = ()
    compression: str = ""
    partial: tuple[str, ...] = ()  #: what is missing in the dump; empty when it is whole
    client_is_newer: bool = False  #: restore by SQL or into a server of the client's version


class GlobalsSource(msgspec.Struct, kw_only=True, frozen=True):
    """`Manifest.source` of kind ``pg_globals``."""

    server: str
    server_version: str
    client_version: str
    roles: tuple[str, ...] = ()
    passwords: bool = True  #: whether the roles' password hashes are in it
    command: tuple[str, ...] = ()


def dump_source(manifest: Manifest) -> DumpSource:
    """Read the origin of a ``pg_dump`` manifest.

    Raises:
        DamagedManifest: it is of another kind, or a field is missing or of the wrong type.
    """
    return _convert(manifest, PG_DUMP, DumpSource)


def globals_source(manifest: Manifest) -> GlobalsSource:
    """Read the origin of a ``pg_globals`` manifest; raises as `dump_source` does."""
    return _convert(manifest, PG_GLOBALS, GlobalsSource)


def row_facts(counts: Mapping[str, RowCount]) -> dict[str, tuple[int | None, bool]]:
    """Counts as they stand in a manifest."""
    return {storable(name): (count.rows, count.exact) for name, count in counts.items()}


def to_builtins(source: DumpSource | GlobalsSource) -> dict[str, object]:
    """The form that `Manifest.source` takes."""
    built: dict[str, object] = msgspec.to_builtins(source)
    return built


def _convert(manifest: Manifest, kind: str, into: type[SourceT]) -> SourceT:
    if manifest.kind != kind:
        raise DamagedManifest(f"{manifest.subject}: is of kind {manifest.kind}, not {kind}")
    try:
        return msgspec.convert(manifest.source, into)
    except msgspec.ValidationError as exc:
        raise DamagedManifest(f"{manifest.subject}: its source is not readable: {exc}") from exc
