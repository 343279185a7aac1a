from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.model.checker import NO_REST, Explored, Steps, explore

Edges = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A model whose states are numbers; its steps are named after where they lead."""

    edges: Edges
    faults: Edges = field(default_factory=dict)
    forbidden: frozenset[int] = frozenset()
    unfinished: frozenset[int] = frozenset()

    def initial(self) -> int:
        return 0

    def steps(self, state: int) -> Steps[int]:
        yield from ((str(after), after) for after in self.edges.get(state, ()))

    def events(self, state: int) -> Steps[int]:
        yield from ((f"fault {after}", after) for after in self.faults.get(state, ()))

    def broken(self, state: int) -> str:
        return "forbidden" if state in self.forbidden else ""

    def owed(self, state: int) -> str:
        return "unfinished" if state in self.unfinished else ""


def test_every_state_that_can_be_reached_is_visited_once() -> None:
    graph = Graph(edges={0: (1, 2), 1: (3,), 2: (3,), 4: (0,)}, faults={3: (5,)})

    assert explore(graph) == Explored(states=5, at_rest=2)


def test_the_trace_to_a_broken_promise_is_a_shortest_one() -> None:
    graph = Graph(edges={0: (1, 4), 1: (2,), 2: (3,), 4: (3,)}, forbidden=frozenset({3}))

    found = explore(graph)

    assert (found.broken, found.trace) == ("forbidden", ("4", "3"))


def test_a_promise_may_be_broken_by_a_fault_alone() -> None:
    graph = Graph(edges={0: (1,)}, faults={1: (2,)}, forbidden=frozenset({2}))

    assert explore(graph).trace == ("1", "fault 2")


def test_what_is_owed_is_owed_only_where_no_step_is_left() -> None:
    graph = Graph(edges={0: (1,), 1: (2,)}, unfinished=frozenset({0, 1}))

    assert explore(graph).broken == ""
    assert explore(Graph(edges={0: (1,)}, unfinished=frozenset({1}))).broken == "unfinished"


def test_a_fault_does_not_end_a_wait() -> None:
    graph = Graph(edges={}, faults={0: (1,)}, unfinished=frozenset({0}))

    assert explore(graph).broken == "unfinished"


def test_a_step_that_changes_nothing_is_rest() -> None:
    assert explore(Graph(edges={0: (0,)})) == Explored(states=1, at_rest=1)


def test_a_circle_with_a_way_out_is_allowed() -> None:
    assert explore(Graph(edges={0: (1,), 1: (0, 2)})).broken == ""


def test_a_circle_without_a_way_out_is_found() -> None:
    graph = Graph(edges={0: (1, 3), 1: (2,), 2: (1,)}, faults={1: (3,)})

    found = explore(graph)

    assert (found.broken, found.trace) == (NO_REST, ("1",))


def test_a_model_that_is_too_large_is_refused() -> None:
    graph = Graph(edges={0: (1,), 1: (2,)})

    assert explore(graph, most=3).states == 3
    with pytest.raises(RuntimeError, match="more than 2 states"):
        explore(graph, most=2)
