from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import pytest

from opsd.http.health import OLDEST_TICK_S, live


@dataclass
class Pulse:
    age_s: float = 0.0
    late: Sequence[str] = ()

    def tick_age_s(self) -> float:
        return self.age_s

    def overdue(self) -> Sequence[str]:
        return self.late


@pytest.mark.parametrize(
    ("age_s", "status"),
    [(OLDEST_TICK_S, HTTPStatus.OK), (OLDEST_TICK_S + 0.1, HTTPStatus.SERVICE_UNAVAILABLE)],
)
def test_a_daemon_lives_while_its_scheduler_ticks(age_s: float, status: HTTPStatus) -> None:
    assert live(Pulse(age_s=age_s)).status is status


def test_a_run_that_does_not_end_is_named() -> None:
    answer = live(Pulse(late=["nfs-backup"]))

    assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.body == "a run does not end: nfs-backup\n"
