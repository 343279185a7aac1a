from __future__ import annotations

import pytest

from tests.model.checker import explore
from tests.model.outbox import Outbox

TWICE = "a message was sent once more without a reason"
NEVER = "a message is on record as delivered that a service never got"


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Outbox(), id="two processes, two faults"),
        pytest.param(Outbox(deliverers=3, faults=3), id="three processes, three faults"),
    ],
)
def test_every_message_reaches_every_service_and_none_twice_without_a_reason(
    model: Outbox,
) -> None:
    explored = explore(model)

    assert (explored.broken, explored.trace) == ("", ())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_message_reaches_every_service_within_wider_bounds() -> None:
    explored = explore(Outbox(targets=3, deliverers=3, faults=4))

    assert (explored.broken, explored.trace) == ("", ())


def test_two_processes_that_deliver_at_once_send_everything_twice() -> None:
    explored = explore(Outbox(faults=0, has_lease=False))

    assert explored.broken == TWICE
    assert explored.trace[-2:] == ("send 0 to 0", "send 0 to 0")


def test_a_message_that_is_marked_before_it_is_sent_is_lost_by_a_crash() -> None:
    explored = explore(Outbox(faults=1, marks_after=False))

    assert explored.broken == NEVER
    assert explored.trace[-5:] == (
        "killed",
        "lease",
        "choose 0",
        "all asked",
        "mark 0 delivered",
    )


def test_a_message_that_is_marked_only_as_a_whole_is_sent_again_to_those_who_have_it() -> None:
    explored = explore(Outbox(faults=1, marks_each=False))

    assert explored.broken == TWICE
    assert explored.trace[-3:] == ("lease", "choose 0", "send 0 to 0")


def test_a_message_that_is_dropped_when_a_service_refuses_it_is_lost() -> None:
    explored = explore(Outbox(faults=1, keeps_refused=False))

    assert explored.broken == NEVER
    assert explored.trace[-3:] == ("1 refuses 0", "all asked", "mark 0 delivered")
