from __future__ import annotations

import pytest

from tests.model.checker import explore
from tests.model.slots import Slots

BEGUN = ("daemon: consider 1", "daemon: start 1", "run of 1: lease", "run of 1: begin")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Slots(faults=0), id="two daemons and a person"),
        pytest.param(Slots(asks=0, faults=2), id="two daemons, two faults"),
        pytest.param(Slots(daemons=1, faults=2), id="a daemon and a person, two faults"),
        pytest.param(Slots(daemons=1, asks=0, slots=3, faults=2), id="three slots, two faults"),
    ],
)
def test_every_slot_ends_once_whatever_happens_when(model: Slots) -> None:
    explored = explore(model)

    assert (explored.broken, explored.trace) == ("", ())


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Slots(asks=0, faults=3), id="two daemons, three faults"),
        pytest.param(Slots(faults=1), id="two daemons and a person, one fault"),
        pytest.param(Slots(daemons=1, faults=3), id="a daemon and a person, three faults"),
    ],
)
def test_every_slot_ends_once_within_wider_bounds(model: Slots) -> None:
    explored = explore(model)

    assert (explored.broken, explored.trace) == ("", ())


def test_the_lease_alone_keeps_results_single_on_one_machine() -> None:
    explored = explore(Slots(daemons=1, faults=1, first_writer_wins=False))

    assert explored.broken == ""


def test_without_a_lease_a_living_run_is_taken_for_dead() -> None:
    explored = explore(Slots(faults=0, has_lease=False))

    assert explored.broken == "a living run is on record as ended"
    assert explored.trace == (
        *BEGUN,
        "somebody asks for a run",
        "run of 1.5: lease",
        "run of 1.5: record unfinished",
    )


def test_runs_that_are_settled_without_their_lease_may_be_alive() -> None:
    explored = explore(Slots(faults=0, settles_under_lease=False))

    assert explored.broken == "a living run is on record as ended"
    assert explored.trace[-2:] == ("run of 1.5: begin", "daemon: settle")


def test_a_daemon_that_gives_up_on_a_child_must_not_record_other_runs() -> None:
    explored = explore(Slots(daemons=1, faults=1, gives_up_one=False))

    assert explored.broken == "a living run is on record as ended"
    assert explored.trace[-2:] == ("run of 1.5: begin", "daemon: gives up on its run of 1")


def test_a_run_that_begins_off_the_record_is_missed_while_it_runs() -> None:
    explored = explore(Slots(faults=0, begins_first=False))

    assert explored.broken == "a slot has ended twice: missed, completed"
    assert "daemon: record missed 1" in explored.trace
    assert explored.trace[-1] == "run of 1: record completed"


def test_a_run_that_begins_off_the_record_leaves_data_that_nobody_may_delete() -> None:
    explored = explore(Slots(daemons=1, asks=0, faults=1, attempts=1, begins_first=False))

    assert explored.broken == "data lies about and nobody can prove its run dead"
    assert explored.trace[-2:] == (
        "run of 1: sweep and commit",
        "daemon: gives up on its run of 1",
    )


def test_a_message_in_a_transaction_of_its_own_is_lost() -> None:
    explored = explore(Slots(daemons=1, asks=0, faults=1, one_transaction=False))

    assert explored.broken == "a run that went wrong is not told"
    assert "run of 1: record failed, its messages not yet" in explored.trace


def test_a_run_that_is_not_known_by_its_id_is_told_twice() -> None:
    explored = explore(Slots(daemons=1, asks=0, known_by_id=False))

    assert explored.broken == "a run is told twice"
    assert explored.trace[-2:] == ("run of 1: record failed", "run of 1: last words")


def test_a_slot_that_only_memory_knows_is_lost_when_the_state_refuses() -> None:
    explored = explore(Slots(daemons=1, asks=0, due_from_ledger=False))

    assert explored.broken == "a slot has no end on record"
    assert explored.trace == (
        "daemon: consider 1",
        "daemon: start 1",
        "run of 1: killed",
        "daemon: the state refuses account 1",
    )


def test_a_run_that_somebody_asked_for_must_not_answer_a_slot() -> None:
    explored = explore(Slots(faults=0, asked_is_apart=False))

    assert explored.broken == "a slot has no end on record"
    assert explored.trace[0] == "somebody asks for a run"
    assert explored.trace[-1] == "run of 1.5: record completed"


def test_two_daemons_that_look_and_then_write_end_a_slot_twice() -> None:
    explored = explore(Slots(asks=0, faults=0, ends_once=False))

    assert explored.broken == "a slot has ended twice: missed, missed"
    assert explored.trace == (
        "daemon: consider 1",
        "daemon: consider 1",
        "time passes",
        "daemon: record missed 1",
        "daemon: record missed 1",
    )


def test_a_child_that_outlives_its_daemon_ends_a_slot_twice_if_it_does_not_look() -> None:
    explored = explore(Slots(daemons=1, asks=0, slots=1, faults=1, ends_once=False))

    assert explored.broken.startswith("a slot has ended twice: ")
    assert "daemon: killed, and its child goes on" in explored.trace
