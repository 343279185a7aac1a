"""What a restored copy is compared with, and how it came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A restored copy held against what its manifest promises."""

    unit: Literal["tables", "files", "keys"]
    compared: int  #: how many were compared, in `unit`
    differences: tuple[str, ...] = ()  #: one line each, for people; empty when all is as promised
    notes: tuple[str, ...] = ()  #: what could not be compared, and why; never a difference
    nothing_promised: bool = False  #: the original was empty: there was nothing to compare

    @property
    def matches(self) -> bool:
        """Whether nothing differs, and something was compared if there was anything."""
        return (self.compared > 0 or self.nothing_promised) and not self.differences
