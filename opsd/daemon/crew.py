"""The threads of the daemon, by name: one for each job that runs, one for the messages.

A thread waits for a child process; it does no work of its own. One that is busy much longer
than its child may live is overdue: the child, or the machine, does not do what it should.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from opsd.clock import Clock


@dataclass(frozen=True, slots=True)
class _Member:
    thread: threading.Thread
    late_at: float  # on the monotonic clock


class Crew:
    """Starts threads and knows which are busy. Safe for several threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._members: dict[str, _Member] = {}

    def start(self, name: str, work: Callable[[], None], *, within_s: float) -> None:
        """Do `work` in a thread; after `within_s` seconds it is overdue."""
        # Not joined at exit: a child that cannot be killed must not keep the daemon.
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._members[name] = _Member(thread, self._clock.monotonic() + within_s)
        thread.start()

    def is_busy(self, name: str) -> bool:
        """Whether the work that was started under `name` is under way."""
        member = self._members.get(name)
        return member is not None and member.thread.is_alive()

    def busy(self) -> tuple[str, ...]:
        """Names of all that are under way."""
        return tuple(name for name in tuple(self._members) if self.is_busy(name))

    def overdue(self) -> tuple[str, ...]:
        """Names of those that should have ended."""
        now = self._clock.monotonic()
        return tuple(name for name in self.busy() if now > self._members[name].late_at)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until all have ended, at most `timeout_s` seconds."""
        until = None if timeout_s is None else self._clock.monotonic() + timeout_s
        for member in tuple(self._members.values()):
            left = None if until is None else max(0.0, until - self._clock.monotonic())
            member.thread.join(left)
