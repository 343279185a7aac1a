"""All results together, and what they come to: ready, ready with warnings, or blocked. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from opsd.upgrade.check import Check, Hop, Result, Scope, Status, judged
from opsd.upgrade.facts import Facts
from opsd.upgrade.version import Minor, Version


class Verdict(enum.StrEnum):
    """May it begin?"""

    READY = "ready"
    WARNINGS = "ready with warnings"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What came of all checks."""

    at: datetime  #: aware UTC
    server: Version
    hops: tuple[Hop, ...]  #: none: there is nothing newer that opsd knows
    results: tuple[Result, ...]  #: of the cluster as it is, then of each hop
    known_as_of: date  #: how old opsd's knowledge of releases is

    @property
    def target(self) -> Minor | None:
        """Where the hops lead."""
        return self.hops[-1].target if self.hops else None

    @property
    def verdict(self) -> Verdict:
        """About the whole way."""
        return verdict_of(self.results)

    @property
    def blockers(self) -> tuple[Result, ...]:
        """What is in the way."""
        return tuple(result for result in self.results if result.blocks)

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """The checks behind that, each once though it may be in the way of several hops."""
        return tuple(dict.fromkeys(result.check.id for result in self.blockers))

    def with_status(self, status: Status) -> tuple[Result, ...]:
        """Those of one status that do not block."""
        return tuple(one for one in self.results if one.status is status and not one.blocks)

    def of_hop(self, hop: Hop) -> tuple[Result, ...]:
        """What concerns one hop; the first one has the cluster as it is besides."""
        return tuple(
            one
            for one in self.results
            if one.target == hop.target or (one.target is None and hop.is_first)
        )

    @property
    def words(self) -> str:
        """The verdict in a few words: ``1.34 → 1.36 is blocked by 3``."""
        way = f"{self.server.minor} → {self.target}" if self.target else f"{self.server.minor}"
        match self.verdict:
            case Verdict.BLOCKED:
                return f"{way} is blocked by {len(self.blocked_by)}"
            case Verdict.WARNINGS:
                return f"{way} is ready, with warnings"
            case _:
                return f"{way} is ready"


def verdict_of(results: Iterable[Result]) -> Verdict:
    """What results come to; what is unknown is a warning at least."""
    results = tuple(results)
    if any(result.blocks for result in results):
        return Verdict.BLOCKED
    worst = max((result.status for result in results), default=Status.UNKNOWN)
    return Verdict.WARNINGS if worst >= Status.WARN else Verdict.READY


def assess(
    facts: Facts, hops: Sequence[Hop], checks: Iterable[Check], *, known_as_of: date
) -> Assessment:
    """Ask all checks."""
    checks = tuple(checks)
    start = facts.server.minor
    here = hops[0] if hops else Hop(start=start, target=start)
    now = [judged(one, facts, here) for one in checks if one.scope is Scope.NOW]
    then = [judged(one, facts, hop) for hop in hops for one in checks if one.scope is Scope.HOP]
    return Assessment(
        at=facts.at,
        server=facts.server,
        hops=tuple(hops),
        results=(*now, *then),
        known_as_of=known_as_of,
    )
