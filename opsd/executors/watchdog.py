"""The last resort against a run that hangs where no deadline reaches: inside the kernel.

A thread that reads from a dead file server cannot be stopped, not even by its own process.
So when a run overstays, the watchdog writes that down, kills every program that the run
started, and ends the whole process. A process that even so does not go (it waits in the
kernel) is left to the one that started it; what had to be recorded is recorded.

Limits: it counts real time that the machine is awake, and ends the process with `os._exit`:
no cleanup runs, so nothing may rely on one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from opsd.clients.groups import kill_all

log = structlog.get_logger()

LAST_WORDS_S = 30.0  # for `on_expire`: longer than a busy state file makes it wait
EXIT_STATUS = 1


class Watchdog:
    """Ends this process when the block is not left in time."""

    def __init__(self, *, after_s: float, on_expire: Callable[[], None]) -> None:
        """Watch for `after_s` seconds; `on_expire` records what happened."""
        self._on_expire = on_expire
        self._at = time.monotonic() + after_s
        self._ended = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def hurry(self, *, within_s: float) -> None:
        """Allow `within_s` more seconds at most. Safe in a signal handler."""
        # Not under the condition's lock: the interrupted thread may hold it. The watching
        # thread looks at least once a second.
        self._at = min(self._at, time.monotonic() + within_s)

    def _watch(self) -> None:
        with self._changed:
            while not self._ended and (left := self._at - time.monotonic()) > 0:
                self._changed.wait(min(1.0, left))
            if self._ended:
                return
        self._expire()

    def _expire(self) -> None:
        log.error("watchdog.expired")
        last_words = threading.Thread(target=self._on_expire, daemon=True)
        last_words.start()
        last_words.join(LAST_WORDS_S)
        kill_all()
        os._exit(EXIT_STATUS)
