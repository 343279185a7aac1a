"""Results as lines that a person can compare: every figure with the goal it is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measured figure."""

    what: str
    value: float
    unit: str  #: ``x`` for a ratio, ``MiB``, ``ms``, ``%``
    goal: float | None  #: at most this; None when it is shown for comparison only
    against: str  #: what a ratio divides by, or how the figure was taken

    @property
    def met(self) -> bool:
        """Whether the goal, if there is one, is reached."""
        return self.goal is None or self.value <= self.goal


def show(lines: Sequence[Line]) -> None:
    """Print the table; what misses its goal says so."""
    table = Table("what", "measured", "goal", "against")
    for line in lines:
        goal = "" if line.goal is None else f"≤ {line.goal:g} {line.unit}"
        mark = "" if line.met else " missed"
        table.add_row(line.what, f"{line.value:.2f} {line.unit}{mark}", goal, line.against)
    Console(width=140).print(table)
