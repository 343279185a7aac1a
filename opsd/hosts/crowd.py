"""Do the same to many machines, a few at once, so that a bad one delays no other.

Each piece of work has a time of its own. What is not back by then is given up: its thread is
left behind, holds nothing that others need, and ends with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from opsd.clock import Deadline

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_GRACE_S = 5.0  # beyond its time, before a piece of work counts as lost
_LOOK_S = 1.0


class Crowd(Generic[ItemT, ResultT]):
    """Work that is done for each of many items."""

    def __init__(
        self, work: Callable[[ItemT], ResultT], *, at_once: int, limit_s: Callable[[ItemT], float]
    ) -> None:
        """Nothing begins yet.

        Args:
            work: done in a thread of its own; what it raises spoils nothing for the others.
            at_once: how many at the same time.
            limit_s: how long it may take, in seconds.
        """
        self._work = work
        self._at_once = at_once
        self._limit_s = limit_s
        self._done: queue.SimpleQueue[tuple[int, ResultT | Exception]] = queue.SimpleQueue()

    def each(
        self, items: Iterable[ItemT], deadline: Deadline
    ) -> Iterator[tuple[ItemT, ResultT | Exception | None]]:
        """Items and results, or errors, as they end; None: it did not come back.

        Raises:
            DeadlineExceeded: the time of all of it is over.
        """
        waiting = list(enumerate(items))[::-1]
        running: dict[int, tuple[ItemT, float]] = {}
        while waiting or running:
            while waiting and len(running) < self._at_once:
                number, item = waiting.pop()
                running[number] = item, self._begin(number, item, deadline)
            yield from self._ended(running, deadline)

    def _begin(self, number: int, item: ItemT, deadline: Deadline) -> float:
        """Start it; when it counts as lost."""
        threading.Thread(
            target=self._do, args=(number, item), name=f"crowd-{number}", daemon=True
        ).start()
        return deadline.clock.monotonic() + self._limit_s(item) + _GRACE_S

    def _do(self, number: int, item: ItemT) -> None:
        try:
            self._done.put((number, self._work(item)))
        except Exception as exc:  # noqa: BLE001 - told as that of this item, by the caller
            self._done.put((number, exc))

    def _ended(
        self, running: dict[int, tuple[ItemT, float]], deadline: Deadline
    ) -> Iterator[tuple[ItemT, ResultT | Exception | None]]:
        try:
            number, result = self._done.get(timeout=min(_LOOK_S, deadline.remaining()))
        except queue.Empty:
            now = deadline.clock.monotonic()
            for number in [one for one, (_, lost_at) in running.items() if lost_at <= now]:
                yield running.pop(number)[0], None
            return
        if number in running:  # else it came back after it was given up
            yield running.pop(number)[0], result
