"""Does a promise hold whatever happens when? Try everything, in every order.

A model says what may happen next in a state. The checker visits every state that can be
reached, nearest first, so the trace that it returns when a promise breaks is a shortest one.
That a process may stand still at any point (SIGSTOP, a slow disk) needs no step of its own:
all orders of the steps are tried, and in some of them all others go on without it.

Limits: a promise is proven for the model and its bounds, not for the code.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)
Steps = Iterator[tuple[str, S]]

NO_REST = "no way leads to rest"


class Model(Protocol[S]):
    """What may happen, and what must hold. States are hashable values."""

    def initial(self) -> S:
        """The state before anything happened."""
        ...

    def steps(self, state: S) -> Steps[S]:
        """What the program may do next: the name of each step, and the state after it."""
        ...

    def events(self, state: S) -> Steps[S]:
        """What may happen to the program: faults, people, time. It must not need them."""
        ...

    def broken(self, state: S) -> str:
        """The promise that `state` breaks, empty when there is none."""
        ...

    def owed(self, state: S) -> str:
        """What is still missing in a state without further steps, empty when nothing is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What the exploration came to."""

    states: int
    at_rest: int  #: states in which the program has nothing left to do
    broken: str = ""  #: the first promise that was found broken
    trace: tuple[str, ...] = ()  #: a shortest way there


def explore(model: Model[S], *, most: int = 10_000_000) -> Explored:
    """Visit every state, or those up to the first broken promise.

    Besides what the model asks, every state must have a way to rest that needs no event:
    the program neither waits for itself nor runs in circles with no way out.

    Raises:
        RuntimeError: there are more than `most` states; the bounds are too wide.
    """
    return _Exploration(model, most).run()


class _Exploration(Generic[S]):
    """The states seen so far, by number, and how each was reached first."""

    def __init__(self, model: Model[S], most: int) -> None:
        self._model = model
        self._most = most
        self._states: list[S] = []
        self._numbers: dict[S, int] = {}
        self._parents = array("q")
        self._labels: list[str] = []
        self._from, self._to = array("q"), array("q")  # steps only, for the way to rest
        self._resting = bytearray()

    def run(self) -> Explored:
        self._reach(self._model.initial(), parent=-1, label="")
        number = 0
        while number < len(self._states):
            wrong = self._visit(number)
            if wrong:
                return self._found(number, wrong)
            number += 1
        restless = self._restless()
        return self._found(restless, NO_REST) if restless >= 0 else self._told()

    def _visit(self, number: int) -> str:
        model, state = self._model, self._states[number]
        wrong = model.broken(state)
        if wrong:
            return wrong
        resting = True
        for label, after in model.steps(state):
            reached = self._reach(after, parent=number, label=label)
            if reached != number:
                resting = False
                self._from.append(number)
                self._to.append(reached)
        self._resting.append(resting)
        for label, after in model.events(state):
            self._reach(after, parent=number, label=label)
        return model.owed(state) if resting else ""

    def _reach(self, state: S, *, parent: int, label: str) -> int:
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            if number >= self._most:
                raise RuntimeError(f"more than {self._most} states: narrow the bounds")
            self._states.append(state)
            self._parents.append(parent)
            self._labels.append(label)
        return number

    def _restless(self) -> int:
        """The first state from which no steps lead to rest, or -1."""
        calm, known = bytearray(self._resting), -1
        while calm.count(1) > known:
            known = calm.count(1)
            for place in reversed(range(len(self._from))):  # most steps lead to later states
                if calm[self._to[place]]:
                    calm[self._from[place]] = 1
        return calm.find(0)

    def _found(self, number: int, wrong: str) -> Explored:
        trace = []
        while self._parents[number] >= 0:
            trace.append(self._labels[number])
            number = self._parents[number]
        return self._told(broken=wrong, trace=tuple(reversed(trace)))

    def _told(self, *, broken: str = "", trace: tuple[str, ...] = ()) -> Explored:
        return Explored(
            states=len(self._states),
            at_rest=self._resting.count(1),
            broken=broken,
            trace=trace,
        )
