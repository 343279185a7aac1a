"""Until when does this release still get security fixes?

Read from a table that comes with opsd, so that it works without a network. The table has a date
of its own and grows old: ask `Lifetimes.is_old` before its silence is taken for good news.

Limits: what a project has not announced is not in the table, and `of` answers None: unknown.
"""

from __future__ import annotations

import enum
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from importlib import resources

OLD_AFTER = timedelta(days=180)  # releases of most products end about every four months
ANY_VERSION = "*"  # the row of a product that ended as a whole

_VERSION = re.compile(r"(?:[0-9]+:)?v?([0-9]{1,9}(?:\.[0-9]{1,9})*)")


class Phase(enum.StrEnum):
    """How well a release is looked after."""

    SUPPORTED = "supported"
    MAINTENANCE = "maintenance"  #: severe fixes only
    EXTENDED = "extended"  #: by somebody else, for fewer packages, without a subscription
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """Until when one release gets fixes."""

    product: str
    release: str  #: as the table calls it, e.g. ``1.35``; ``*`` for all of a product
    eol: date  #: last day of the fixes that everybody gets
    maintenance: date | None = None  #: from then on only severe ones
    extended: date | None = None  #: last day of longer support that is free, as Debian LTS
    by_subscription: date | None = None  #: last day of longer support that is not
    at_latest: bool = False  #: the release itself is not listed: it ended then or earlier

    def phase(self, today: date) -> Phase:
        """How well it is looked after on that day; a subscription is not assumed."""
        if today <= self.eol:
            is_kept_up = self.maintenance is None or today < self.maintenance
            return Phase.SUPPORTED if is_kept_up else Phase.MAINTENANCE
        is_extended = self.extended is not None and today <= self.extended
        return Phase.EXTENDED if is_extended else Phase.ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The table."""

    asof: date
    releases: Mapping[str, Mapping[str, Lifetime]]  #: by product, by release
    in_order: frozenset[str]  #: products whose releases end in their order

    def of(self, product: str, version: str) -> Lifetime | None:
        """The lifetime of the release that `version` belongs to, or None if it is not known.

        Args:
            product: as os-release calls a system (``debian``), else its usual name in lower
                case: ``kubernetes``, ``containerd``, ``etcd``, ``postgresql``, ``metallb``.
            version: with or without epoch, ``v``, patch and packaging: ``v1.35.3-1.1``.
        """
        rows = self.releases.get(product, {})
        parts = _parts(version)
        for length in range(len(parts), 0, -1):
            if found := rows.get(".".join(parts[:length])):
                return found
        if parts and product in self.in_order:
            return _ended_before(rows, numbers_of(version))
        return rows.get(ANY_VERSION)

    def is_old(self, today: date) -> bool:
        """Whether releases that ended since may not be listed."""
        return today - self.asof > OLD_AFTER


def numbers_of(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, which compare in its order; none: it has none."""
    return tuple(int(part) for part in _parts(version))


def _parts(version: str) -> list[str]:
    match = _VERSION.match(version.strip())
    return match[1].split(".") if match else []


def _ended_before(rows: Mapping[str, Lifetime], numbers: tuple[int, ...]) -> Lifetime | None:
    """Of a release that is not listed: the next newer one that is."""
    newer = [row for row in rows.values() if numbers_of(row.release) > numbers]
    if not newer:
        return None
    return replace(min(newer, key=lambda row: numbers_of(row.release)), at_latest=True)


@functools.cache
def table() -> Lifetimes:
    """The table that comes with this version of opsd."""
    return parse((resources.files("opsd.hosts") / "lifetimes.toml").read_text("utf-8"))


def parse(text: str) -> Lifetimes:
    """Read a table.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    content = tomllib.loads(text)
    asof: date = content.pop("asof")
    return Lifetimes(
        asof=asof,
        releases={
            product: {
                release: Lifetime(product=product, release=release, **dates)
                for release, dates in entry["releases"].items()
            }
            for product, entry in content.items()
        },
        in_order=frozenset(
            product for product, entry in content.items() if entry.get("ends_in_order")
        ),
    )
