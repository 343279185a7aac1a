"""Something small that was made in memory goes into every repository as any other backup does.

Written, read back, published under its slot, and only then old ones go. Each repository fails
alone, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from opsd.backup import housekeeping
from opsd.backup.delivery import Order, Published, deliver
from opsd.backup.postgres.findings import not_stored
from opsd.backup.repository import Repository
from opsd.backup.shelves import Shelves
from opsd.backup.stream import Write
from opsd.clock import Deadline
from opsd.errors import OpsdError
from opsd.model import Artifact, Fact, Finding, Seen
from opsd.progress import Progress

if TYPE_CHECKING:
    from opsd.config import Keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is to be kept."""

    kind: str
    subject: str
    suffix: str  #: of the data object
    content: bytes
    check: Callable[[bytes], object]  #: reads all of it, and raises if that cannot be done
    facts: Mapping[str, Fact]  #: for the manifest and for people


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """For which run, and what stays."""

    slot: datetime
    run_id: str
    dead_runs: frozenset[str]
    keep: Keep
    timezone: tzinfo
    deadline: Deadline
    progress: Progress


class Filing:
    """One document on its way into the repositories."""

    def __init__(self, document: Document, how: How) -> None:
        self.failures: dict[str, OpsdError] = {}  #: by repository; filled as they fail
        self._document = document
        self._how = how
        self._ready: dict[str, Repository] = {}

    def prepare(
        self, names: Iterator[str], opened: Callable[[str], Repository]
    ) -> Iterator[Finding | Seen]:
        """Look into each repository; nothing is written.

        Args:
            names: of the repositories.
            opened: opens one.
        """
        subject = self._document.subject
        shelves = Shelves()
        yield from shelves.open(names, opened, f"{subject}/")
        self.failures.update(shelves.failures)
        self._ready = shelves.lacking(subject, self._how.slot)

    def store(self) -> Iterator[Artifact | Finding | Seen]:
        """Write it, read it back, publish it, remove what no rule keeps.

        A repository that has this slot's result already is left as it is.
        """
        how, document = self._how, self._document
        now = how.deadline.clock.now()
        for repository in self._ready.values():
            yield from housekeeping.clear_leftovers(
                repository, document.subject, dead_runs=how.dead_runs, now=now
            )
        if self._ready:
            yield from self._deliver(now)
        yield Seen(subject=document.subject)

    def _deliver(self, now: datetime) -> Iterator[Artifact | Finding | Seen]:
        subject = self._document.subject
        delivery = deliver(self._order(), self._produce)
        self.failures.update(delivery.failures)
        for name, exc in delivery.failures.items():
            yield not_stored(name, subject, exc)
        for name, published in delivery.published.items():
            yield self._artifact(name, published)
            yield Seen(subject=f"repository/{name}/{subject}")
            yield from housekeeping.retain(
                self._ready[name], subject, self._how.keep, now=now, timezone=self._how.timezone
            )

    def describe(self) -> Iterator[Finding]:
        """What retention would do; nothing is written."""
        for repository in self._ready.values():
            yield from housekeeping.describe(
                repository,
                self._document.subject,
                self._how.keep,
                now=self._how.deadline.clock.now(),
                timezone=self._how.timezone,
            )

    def _order(self) -> Order:
        how, document = self._how, self._document
        return Order(
            kind=document.kind,
            subject=document.subject,
            slot=how.slot,
            run_id=how.run_id,
            suffix=document.suffix,
            repositories=tuple(self._ready.values()),
            recipients=(),
            size_hint=len(document.content),
            deadline=how.deadline,
            progress=how.progress,
        )

    def _produce(self, write: Write) -> dict[str, object]:
        self._document.check(self._document.content)
        write(self._document.content)
        return dict(self._document.facts)

    def _artifact(self, repository: str, published: Published) -> Artifact:
        manifest = published.manifest
        return manifest.artifact(
            repository=repository,
            key=published.key,
            facts=self._document.facts,
        )
