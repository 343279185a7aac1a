"""The stores of the state. A second one joins by its factory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsd.state import State
from opsd.state.sqlite import SqliteState
from opsd.testing import FakeClock

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
Opener = Callable[[], State]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture(params=["sqlite"])
def open_state(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> Iterator[Opener]:
    """Opens the same store again and again, as several processes do."""
    factories = {"sqlite": lambda: SqliteState(tmp_path / "state" / "state.db", clock=clock)}
    opened: list[State] = []

    def open_one() -> State:
        opened.append(factories[request.param]())
        return opened[-1]

    yield open_one
    for state in opened:
        state.close()


@pytest.fixture
def state(open_state: Opener) -> State:
    return open_state()
