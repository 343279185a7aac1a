"""What every engine that copies a share can do. One conformance suite holds them equal.

An engine keeps snapshots of directory trees in a format of its own, next to the objects of
an opsd repository or elsewhere. What exists is decided by manifests alone: a snapshot that
no manifest names was never finished, and `sweep` takes it away.

A snapshot holds the share's tree and, under ``.opsd/``, what opsd adds to it: consistent
copies of the SQLite databases in ``.opsd/sqlite/<path in the share>``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from opsd.backup.manifest import Manifest
from opsd.backup.proof import Comparison
from opsd.backup.share.guards import Share
from opsd.clock import Deadline
from opsd.errors import PermanentError, TransientError
from opsd.progress import Progress

ADDED = ".opsd"  # the directory of a snapshot that is not from the share
ENGINES = ("restic", "rsync")
EngineName = Literal["restic", "rsync"]


class Damaged(PermanentError):
    """Stored data is not what was stored: do not rely on it, look at the disk."""


class Incomplete(TransientError):
    """The engine could not read a part of the share; what it wrote is not a backup."""


class StoreVanished(PermanentError):
    """Manifests say that there are backups, but the engine's store is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is copied."""

    share: Share
    omit: tuple[str, ...] = ()  #: exact paths that are left out besides `share.exclude`
    added: Path  #: directory on local disk whose ``.opsd`` becomes part of the snapshot
    files: int = 0  #: expected, for the progress; 0 when unknown
    size_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an engine wrote, complete, not yet proven and not yet published."""

    id: str  #: restic: its snapshot id; rsync: the directory's name
    sha256: str  #: restic: the snapshot id; rsync: of the checksum list
    files: int  #: regular files in it
    bytes: int  #: their sizes together
    added_bytes: int  #: stored by this run
    vanished: tuple[str, ...] = ()  #: files that went away while the engine ran
    details: Mapping[str, Any] = field(default_factory=dict)  #: for the manifest; JSON values
    fresh: tuple[str, ...] = ()  #: what this run stored, in the engine's own terms: packs, files


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The n-th of `of` equal parts of all stored data."""

    n: int  #: from 1
    of: int


class Engine(Protocol):
    """Copies one share into one store. Every call is bounded by a deadline.

    All methods raise TransientError, PermanentError or DeadlineExceeded; the text names the
    share, the store and the action.
    """

    @property
    def kind(self) -> EngineName:
        """The manifest's kind."""
        ...

    @property
    def location(self) -> str:
        """Where the snapshots are, without secrets."""
        ...

    def require(self, *, deadline: Deadline) -> str:
        """The version of the program.

        Raises:
            PermanentError: missing, or too old to be trusted.
        """
        ...

    def prepare(self, *, known: Sequence[Manifest], damaged: bool, deadline: Deadline) -> None:
        """Make sure that the store is there; a new one is made only when `known` is empty.

        Args:
            known: every backup of the share that has a manifest.
            damaged: one of them is known to be: what `copy` reads it reads from the share,
                however much of it the store seems to have.
            deadline: when it must be over.

        Raises:
            StoreVanished: `known` backups should be there, and there is no store.
        """
        ...

    def copy(
        self,
        source: Source,
        *,
        run_id: str,
        slot: datetime,
        deadline: Deadline,
        progress: Progress,
    ) -> Snapshot:
        """Make a snapshot. May be called again in one run; the last one counts.

        Raises:
            Incomplete: something could not be read.
        """
        ...

    def prove(
        self, snapshot: Snapshot, *, part: Part, deadline: Deadline, progress: Progress
    ) -> str:
        """Read back what the run stored, the store's structure, and one part of the rest.

        Returns:
            What was read and compared, in one line for the manifest.

        Raises:
            Damaged: something does not match.
        """
        ...

    def check(self, manifest: Manifest, *, deadline: Deadline, progress: Progress) -> str:
        """Read all data of one published backup; returns and raises as `prove`."""
        ...

    def extract(
        self,
        manifest: Manifest,
        *,
        path: str,
        target: Path,
        deadline: Deadline,
        progress: Progress,
    ) -> None:
        """Write one file, one directory or all of the share into `target`.

        Args:
            manifest: the backup.
            path: relative to the snapshot's root; empty for all of the share, without
                ``.opsd``. A file or directory keeps its last name.
            target: an existing directory.
            deadline: of the whole work.
            progress: told about bytes.

        Raises:
            PermanentError: the snapshot has no such path.
        """
        ...

    def compare(
        self,
        manifest: Manifest,
        *,
        path: str,
        target: Path,
        alone: bool,
        deadline: Deadline,
        progress: Progress,
    ) -> Comparison:
        """Hold what `extract` wrote against the backup; `alone`: `target` was empty before."""
        ...

    def extract_files(
        self, snapshot_id: str, paths: Sequence[str], *, target: Path, deadline: Deadline
    ) -> None:
        """Write some files of the share into `target` under their own paths; missing: none."""
        ...

    def contents(self, manifest: Manifest, *, deadline: Deadline) -> tuple[int, int]:
        """How many regular files the snapshot holds, and their bytes, as stored."""
        ...

    def snapshots(self, *, deadline: Deadline) -> tuple[str, ...]:
        """Ids of the share's snapshots in the store, published or not, oldest first."""
        ...

    def forget(self, ids: Sequence[str], *, deadline: Deadline) -> None:
        """Remove snapshots. Idempotent; returns only when they are gone.

        Raises:
            PermanentError: the store kept one.
        """
        ...

    def reclaim(self, *, deadline: Deadline) -> None:
        """Give the space of forgotten snapshots back, if that is due."""
        ...

    def sweep(
        self, *, published: Collection[str], dead_runs: frozenset[str], deadline: Deadline
    ) -> tuple[str, ...]:
        """Remove what dead runs left and no manifest names; returns what was removed."""
        ...
