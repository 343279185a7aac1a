"""SIGTERM and SIGINT as something that the main thread can wait for.

As process 1 of a container nothing is ended by a signal that it does not handle, so the daemon
handles them from its first moment on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from types import FrameType

#: Waits so many seconds for the order to stop and says whether it came.
ToldToStop = Callable[[float], bool]


@contextlib.contextmanager
def stop_signals() -> Iterator[ToldToStop]:
    """Catch both within the block. Only in the main thread."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def handle(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b"x")

    def told(timeout_s: float) -> bool:
        return bool(select.select([reading], [], [], timeout_s)[0])

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
