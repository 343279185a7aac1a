"""Until when a release of something gets fixes, as a note."""

from __future__ import annotations

from datetime import date

from opsd.hosts import lifetimes
from opsd.upgrade.check import Note, passed, unknown, warned


def support(where: str, product: str, version: str, *, today: date) -> Note:
    """What the table of lifetimes says; what is newer than all of it has no end yet."""
    table = lifetimes.table()
    life = table.of(product, version)
    if life is not None and today > life.eol:
        return warned(where, f"{version} gets no fixes since {life.eol}")
    if life is not None:
        return passed(where, f"{version} gets fixes until {life.eol}")
    rows = table.releases.get(product, {})
    known = max((lifetimes.numbers_of(name) for name in rows), default=())
    if known and lifetimes.numbers_of(version) > known and not table.is_old(today):
        return passed(where, f"{version}: no end was announced as of {table.asof}")
    return unknown(where, f"opsd does not know until when {version} gets fixes")
