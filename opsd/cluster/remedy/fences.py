"""Cut a node off, and believe only what is read back afterwards: what every fence can do.

One kind is a program, with the contract of the fence agents: an action (``status``, ``off``,
``on``), options as ``name=value`` lines on stdin, exit status 0 for done (for ``status``: on), 2
for ``status`` of what is off, anything else for an error. Fence agents take the action from stdin
too, because they read no stdin when they have arguments; programs of your own may want ``-o off``.

Limits: a program that says off of what is on is believed. ``opsd check`` cannot try ``off``.

Source: ClusterLabs/fence-agents, lib/fencing.py.py and doc/FenceAgentAPI.md.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from opsd.clients import process
from opsd.clock import Deadline
from opsd.cluster.remedy.case import Fence
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.settings import FenceTable
from opsd.errors import OpsdError, TransientError
from opsd.secrets import Secret, redact
from opsd.text import shortened

log = structlog.get_logger()

_DONE, _IS_OFF = 0, 2  # exit statuses
_MOST_OUTPUT = 1 << 20  # bytes
_MOST_CHARACTERS = 200  # of its complaint


class FenceFailed(TransientError):
    """The program did not do it, or nobody knows whether it did."""


class Power(enum.Enum):
    """What a fence gives a node now."""

    ON = "on"
    OFF = "off"
    PARTLY = "partly"  #: it is not free, and nothing is proven


class Device(Protocol):
    """One configured fence, for one node."""

    @property
    def fence(self) -> Fence:
        """What it is to a decision."""
        ...

    @property
    def servers(self) -> frozenset[str] | None:
        """How volumes name the file servers that it keeps the node from; None: from all."""
        ...

    def status(self, deadline: Deadline) -> Power:
        """Whether the node has what the fence takes away.

        Raises:
            FenceFailed: that cannot be told.
            ConfigError: a secret cannot be read.
        """
        ...

    def cut(self, deadline: Deadline) -> None:
        """Take it away and read back that it is gone; nothing is done when it is gone already.

        Raises:
            FenceFailed: it is not gone, or nobody knows.
            ConfigError: a secret cannot be read.
        """
        ...

    def give_back(self, deadline: Deadline) -> None:
        """Give it back and read that back; raises as `cut`."""
        ...

    def rehearse(self, deadline: Deadline) -> None:
        """See whether it would work, without doing anything; raises as `cut`."""
        ...

    def shown(self, action: str) -> str:
        """The call for ``status``, ``off`` or ``on``, for people: without secrets."""
        ...


@dataclass(frozen=True, slots=True)
class Program:
    """A fence that is a program."""

    table: FenceTable
    node: str

    @property
    def fence(self) -> Fence:
        """What it is to a decision."""
        is_power = self.table.cuts == "power"
        return Fence(
            name=self.table.name,
            gives=Proof.POWER_OFF if is_power else Proof.STORAGE_CUT,
            turn_on=self.table.turn_on,
        )

    @property
    def servers(self) -> frozenset[str] | None:
        """Without power or network it reaches none."""
        return None

    def status(self, deadline: Deadline) -> Power:
        """What it says; see `Device.status`."""
        ended = self._call("status", deadline)
        if ended.returncode not in (_DONE, _IS_OFF):
            raise self._failed("status", ended)
        return Power.ON if ended.returncode == _DONE else Power.OFF

    def cut(self, deadline: Deadline) -> None:
        """Turn it off; see `Device.cut`."""
        self._turn("off", Power.OFF, deadline)

    def give_back(self, deadline: Deadline) -> None:
        """Turn it on; see `Device.give_back`."""
        self._turn("on", Power.ON, deadline)

    def rehearse(self, deadline: Deadline) -> None:
        """Only ask; see `Device.rehearse`."""
        self.status(deadline)

    def shown(self, action: str) -> str:
        """The call, for people: secrets stand as references."""
        argv = " ".join(self._argv(action))
        return f"{argv} <<< {' '.join(self._lines(action, reveal=str))!r}"

    def _turn(self, action: str, wanted: Power, deadline: Deadline) -> None:
        if self.status(deadline) is wanted:
            return
        ended = self._call(action, deadline)
        if ended.returncode != _DONE:
            raise self._failed(action, ended)
        if self.status(deadline) is not wanted:
            raise FenceFailed(
                f"fence {self.table.name}: {action} {self.node}: it reported success, "
                f"and its status is not {wanted.value}"
            )

    def _call(self, action: str, deadline: Deadline) -> process.Completed:
        own = Deadline.after(self.table.timeout.total_seconds(), deadline.clock)
        sooner = own if own.at < deadline.at else deadline
        stdin = "".join(f"{line}\n" for line in self._lines(action, reveal=_revealed)).encode()
        log.info("fence.called", fence=self.table.name, node=self.node, action=action)
        try:
            return process.run(
                self._argv(action), deadline=sooner, input=stdin, stdout_limit=_MOST_OUTPUT
            )
        except OpsdError as exc:
            deadline.remaining()  # the run's own end is told as such
            raise FenceFailed(f"fence {self.table.name}: {action} {self.node}: {exc}") from exc

    def _argv(self, action: str) -> Sequence[str]:
        by_argument = self.table.action_by == "argument"
        return (*(self.table.command or ()), *(("-o", action) if by_argument else ()))

    def _lines(self, action: str, *, reveal: Callable[[object], str]) -> list[str]:
        options = {key: self._filled(value) for key, value in self.table.options.items()}
        options |= {key: reveal(secret) for key, secret in self.table.secrets.items()}
        return [f"action={action}", *(f"{key}={value}" for key, value in options.items())]

    def _filled(self, value: str) -> str:
        return value.replace("{node}", self.node)

    def _failed(self, action: str, ended: process.Completed) -> FenceFailed:
        said = ended.complaint()
        if not ended.stderr.strip() and ended.stdout.strip():
            said = redact(ended.stdout.decode("utf-8", "backslashreplace").splitlines()[-1])
            said += f" (exit status {ended.returncode})"
        return FenceFailed(
            f"fence {self.table.name}: {action} {self.node}: {shortened(said, _MOST_CHARACTERS)}"
        )


def _revealed(secret: object) -> str:
    return secret.reveal() if isinstance(secret, Secret) else str(secret)
