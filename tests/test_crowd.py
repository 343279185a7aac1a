"""Many at once: a bad one delays no other."""

from __future__ import annotations

import threading

import pytest

from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded
from opsd.hosts import crowd
from opsd.hosts.crowd import Crowd


def soon(seconds: float = 30.0) -> Deadline:
    return Deadline.after(seconds, SystemClock())


def test_each_item_comes_back_once_with_its_own_result() -> None:
    results = dict(
        Crowd[int, int](lambda number: number * 2, at_once=3, limit_s=lambda _: 9.0).each(
            range(50), soon()
        )
    )

    assert results == {number: number * 2 for number in range(50)}


def test_no_more_are_at_work_than_may_be() -> None:
    lock, peak, now = threading.Lock(), [0], [0]
    gate = threading.Barrier(3, timeout=10)

    def work(_: int) -> None:
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        gate.wait()
        with lock:
            now[0] -= 1

    list(Crowd[int, None](work, at_once=3, limit_s=lambda _: 9.0).each(range(9), soon()))

    assert peak == [3]


def test_an_error_belongs_to_its_item() -> None:
    def work(number: int) -> int:
        return 6 // number

    results = dict(Crowd[int, int](work, at_once=2, limit_s=lambda _: 9.0).each([2, 0, 3], soon()))

    assert (results[2], results[3]) == (3, 2)
    assert isinstance(results[0], ZeroDivisionError)


def test_what_does_not_come_back_is_given_up_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd, "_GRACE_S", 0.0)
    monkeypatch.setattr(crowd, "_LOOK_S", 0.05)
    never = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            never.wait()
        return number

    one_by_one = Crowd[int, int](work, at_once=1, limit_s=lambda _: 0.1)
    results = list(one_by_one.each([0, 1, 2], soon()))
    never.set()

    assert results == [(0, None), (1, 1), (2, 2)]


def test_the_time_of_all_ends_it() -> None:
    never = threading.Event()
    hanging = Crowd[int, bool](lambda _: never.wait(), at_once=2, limit_s=lambda _: 99.0)

    with pytest.raises(DeadlineExceeded):
        list(hanging.each([1, 2, 3], soon(0.2)))
    never.set()
