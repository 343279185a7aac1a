"""Who is told that runs start and end, besides the state: a service outside, or nobody."""

from __future__ import annotations

from typing import Protocol

from opsd.model import Run


class Pings(Protocol):
    """Tells a service outside; neither call raises. Fulfilled by `opsd.alerts.pings`."""

    def started(self, job: str, run_id: str) -> None:
        """A run starts; returns at once."""
        ...

    def ended(self, run: Run) -> None:
        """A run is over and recorded; may take some seconds."""
        ...


class NoPings:
    """Tells nobody."""

    def started(self, job: str, run_id: str) -> None:
        """Nothing."""

    def ended(self, run: Run) -> None:
        """Nothing."""
