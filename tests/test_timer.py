from __future__ import annotations

import threading
from datetime import timedelta

from opsd.timer import Timer


def test_the_timer_calls_at_once_and_again_until_it_is_stopped() -> None:
    calls = threading.Semaphore(0)
    timer = Timer(calls.release, every=timedelta(seconds=0.05))

    timer.start()
    try:
        assert all(calls.acquire(timeout=10) for _ in range(3))
    finally:
        timer.stop()
