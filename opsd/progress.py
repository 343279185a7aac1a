"""Where work says how far it is. A terminal draws it; everything else ignores it."""

from __future__ import annotations

from typing import Literal, Protocol

Unit = Literal["bytes", "files", "rows"]


class Progress(Protocol):
    """Safe to call from several threads and as often as convenient. Never raises."""

    def update(
        self, step: str, *, done: int | None = None, total: int | None = None, unit: Unit = "bytes"
    ) -> None:
        """Say where `step` is; each step is drawn as one line.

        Args:
            step: what is going on, e.g. ``dump main/app``.
            done: so far, in `unit`; None while it cannot be told.
            total: expected in all, in `unit`; None when unknown.
            unit: what `done` and `total` count.
        """
        ...

    def finish(self, step: str) -> None:
        """Take the line of `step` away."""
        ...


class NoProgress:
    """Nobody watches."""

    def update(
        self, step: str, *, done: int | None = None, total: int | None = None, unit: Unit = "bytes"
    ) -> None:
        """Do nothing."""

    def finish(self, step: str) -> None:
        """Do nothing."""
