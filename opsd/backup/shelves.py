"""The repositories that a run writes to: opened and read once, each failing alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from opsd.backup import housekeeping
from opsd.backup.catalog import Backup, Catalog, read_catalog
from opsd.backup.manifest import manifest_key
from opsd.backup.postgres.findings import unreachable
from opsd.backup.repository import Repository
from opsd.errors import ConfigError, OpsdError, PermanentError, TransientError
from opsd.model import Finding, Seen


class Shelves:
    """What could be opened, and what it held when the run began."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}  #: by name
        self.catalogs: dict[str, Catalog] = {}  #: likewise
        self.failures: dict[str, OpsdError] = {}  #: likewise, of the others

    def open(
        self,
        names: Iterable[str],
        opened: Callable[[str], Repository],
        *prefixes: str,
    ) -> Iterator[Finding | Seen]:
        """Look into each repository once; nothing is written.

        Args:
            names: of the repositories.
            opened: opens one.
            prefixes: what is looked for: ``database/``.
        """
        for name in dict.fromkeys(names):
            try:
                repository = opened(name)
                found = [read_catalog(repository, prefix) for prefix in prefixes]
            except (ConfigError, TransientError, PermanentError) as exc:
                self.failures[name] = exc
                yield unreachable("repository.unreachable", f"repository/{name}", exc)
                continue
            self.repositories[name] = repository
            self.catalogs[name] = Catalog(
                backups=tuple(one for catalog in found for one in catalog.backups),
                problems=tuple(one for catalog in found for one in catalog.problems),
            )
            yield from housekeeping.damaged(name, self.catalogs[name])
            yield Seen(subject=f"repository/{name}")

    @property
    def backups(self) -> tuple[Backup, ...]:
        """All that was found."""
        return tuple(one for catalog in self.catalogs.values() for one in catalog.backups)

    def lacking(self, subject: str, slot: datetime) -> dict[str, Repository]:
        """Those that do not hold the result of this slot, by name."""
        key = manifest_key(subject, slot)
        return {
            name: repository
            for name, repository in self.repositories.items()
            if all(one.key != key for one in self.catalogs[name].series(subject))
        }
