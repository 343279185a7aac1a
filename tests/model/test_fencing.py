from __future__ import annotations

import pytest

from tests.model.checker import explore
from tests.model.fencing import Act, Fencing

STANDS_STILL = (
    "replica 0: check the lease",
    "time passes",
    "replica 1: take the lease",
    "replica 1: check the lease",
    "replica 0: act",
    "replica 1: act",
)


def test_an_act_that_asks_for_its_slot_happens_once_whatever_the_clocks_say() -> None:
    explored = explore(Fencing())

    assert (explored.broken, explored.trace) == ("", ())


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_act_that_asks_for_its_slot_happens_once_within_wider_bounds() -> None:
    explored = explore(Fencing(apart=2, lasts=4, faults=3))

    assert (explored.broken, explored.trace) == ("", ())


@pytest.mark.parametrize("faults", [0, 2])
def test_who_checks_its_lease_and_then_acts_may_have_lost_it_in_between(faults: int) -> None:
    explored = explore(Fencing(act=Act.NOTHING, records_at_once=True, faults=faults))

    assert explored.broken == "a slot has two results"
    assert explored.trace[-6:] == STANDS_STILL


def test_an_act_that_asks_for_the_lease_is_safe_if_its_record_is_the_same_write() -> None:
    explored = explore(Fencing(act=Act.LEASE, records_at_once=True))

    assert (explored.broken, explored.trace) == ("", ())


def test_an_act_that_asks_for_the_lease_is_repeated_if_its_record_comes_later() -> None:
    explored = explore(Fencing(act=Act.LEASE))

    assert explored.broken == "a slot has two results"
    assert explored.trace[-4:] == (
        "replica 0: act",
        "replica 1: take the lease",
        "replica 1: check the lease",
        "replica 1: act",
    )
