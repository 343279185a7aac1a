"""All machines together: who belongs to the fleet, and one visit to each of them.

A machine that cannot be visited is a visit too, with its problem: nobody is left out.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from opsd.errors import OpsdError
from opsd.hosts.machine import Machine
from opsd.hosts.script import Script, Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Who belongs to the fleet."""

    machines: tuple[Machine, ...]
    #: Why there may be others: the cluster could not be asked, so its nodes are those that it
    #: had when it last answered.
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """What one machine answered."""

    machine: Machine
    sections: Mapping[str, Section] = field(default_factory=dict)  #: those that arrived whole
    problem: OpsdError | None = None  #: why not all of them did
    blocked_by: str = ""  #: name of the machine between that could not be logged in to
    login_s: float | None = None  #: until opsd was in; None: it never was
    clock_offset_s: float | None = None  #: its clock minus ours, exact to a second; None: unknown


class Way(Protocol):
    """What a machine reaches."""

    def __call__(self, host: str, port: int) -> socket.socket:
        """An ordinary socket that leads there, as the machine knows it; close it when done.

        Raises:
            TransientError: the machine cannot reach it, or does not answer.
            PermanentError: it does not forward.
            DeadlineExceeded: no time is left.
        """
        ...


class Fleet(Protocol):
    """The machines of the configuration and of the cluster."""

    def roster(self) -> Roster:
        """Who belongs to it; the cluster is asked once.

        Raises:
            ConfigError: no way to log in is configured.
        """
        ...

    def visit(self, machines: Iterable[Machine], script: Script) -> Iterator[Visit]:
        """Run the script on each of them, a few at once; one visit for each, as they end.

        Raises:
            ConfigError: the key to log in with cannot be read.
            DeadlineExceeded: the run's own time is over.
        """
        ...

    def way(self, machine: Machine) -> AbstractContextManager[Way]:
        """Log in to a machine once, to open sockets from there until the end of the context.

        Raises:
            ConfigError: no way to log in is configured.
            TransientError, PermanentError: it cannot be logged in to.
            DeadlineExceeded: the run's own time is over.
        """
        ...
