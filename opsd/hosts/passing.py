"""One pass over machines: log in to each once, ask, and log out; once to the machine between.

Nothing here is shared between passes: the next one logs in anew, and believes anew.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from opsd.clock import Deadline
from opsd.errors import OpsdError
from opsd.hosts.fleet import Visit
from opsd.hosts.machine import Machine
from opsd.hosts.roster import Access
from opsd.hosts.script import BEGIN, END, Script

if TYPE_CHECKING:
    from opsd.clients.ssh.connection import Connection
    from opsd.clients.ssh.keys import ClientKey
    from opsd.clients.ssh.known import HostKey, KnownHosts
    from opsd.clients.ssh.login import Target

_SILENCE_S = 10.0  # beyond the longest question, before a machine counts as hanging
_ENDING_S = 5.0  # beyond what all questions may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The key that a machine shows."""

    machine: Machine
    key: HostKey | None = None
    believed: tuple[HostKey, ...] = ()  #: those that opsd would believe of it
    problem: OpsdError | None = None  #: why there is no key


@dataclass(slots=True)
class _Jump:
    """A machine between, to which the first that needs it logs in for all."""

    lock: threading.Lock
    connection: Connection | None = None
    problem: OpsdError | None = None


class Pass:
    """One pass over machines."""

    def __init__(
        self,
        *,
        access: Access,
        key: ClientKey,
        known: KnownHosts,
        machines: dict[str, Machine],
        deadline: Deadline,
    ) -> None:
        self.access = access
        self.key = key
        self.known = known
        self.machines = machines
        self.deadline = deadline
        self._jumps = {name: _Jump(threading.Lock()) for name in machines}
        self._open: list[Connection] = []

    def close(self) -> None:
        """Hang up everywhere; what is under way ends."""
        for connection in list(self._open):
            connection.close()

    def visit(self, machine: Machine, script: Script) -> Visit:
        """Log in, run the script, log out."""
        from opsd.clients.ssh.running import Order, run  # noqa: PLC0415 - loads paramiko

        clock = self.deadline.clock
        began_s = clock.monotonic()
        try:
            connection = self.connect(machine)
        except OpsdError as exc:
            return Visit(machine=machine, problem=exc, blocked_by=self._blocker(machine))
        login_s = clock.monotonic() - began_s
        order = Order(
            text=script.text.encode(),
            mark=script.mark,
            first=BEGIN.encode(),
            last=END.encode(),
            silence_s=script.silence_s + _SILENCE_S,
        )
        try:
            got = run(connection, order, deadline=self._within(script.longest_s + _ENDING_S))
        except OpsdError as exc:
            return Visit(machine=machine, problem=exc, login_s=login_s)
        finally:
            connection.close()
        stdout = bytes(got.stdout)
        return Visit(
            machine=machine,
            sections=script.read(stdout, bytes(got.stderr)),
            problem=got.problem,
            login_s=login_s,
            clock_offset_s=_offset_s(script.clock_s(stdout), got.began_at),
        )

    def show(self, machine: Machine) -> Shown:
        """Ask for its key; nobody logs in, but to a machine between."""
        from opsd.clients.ssh.connection import host_key  # noqa: PLC0415 - loads paramiko

        believed = self.known.keys_of(machine.name, address=machine.address, port=machine.port)
        try:
            key = host_key(
                target_of(machine),
                known=self.known,
                deadline=self._within(self.access.connect_timeout_s),
                through=self._between(machine),
            )
        except OpsdError as exc:
            return Shown(machine=machine, believed=believed, problem=exc)
        return Shown(machine=machine, key=key, believed=believed)

    def connect(self, machine: Machine) -> Connection:
        """Log in, through another machine if need be.

        Raises:
            TransientError, PermanentError, DeadlineExceeded: as `opsd.clients.ssh.connection`.
        """
        from opsd.clients.ssh.connection import connect  # noqa: PLC0415 - loads paramiko

        connection = connect(
            target_of(machine),
            key=self.key,
            known=self.known,
            deadline=self._within(self.access.connect_timeout_s),
            through=self._between(machine),
        )
        self._open.append(connection)
        return connection

    def _between(self, machine: Machine) -> Connection | None:
        """The login through which a machine is reached; None: directly."""
        if not machine.jump:
            return None
        return self._jump(self.machines[machine.jump])

    def _jump(self, machine: Machine) -> Connection:
        jump = self._jumps[machine.name]
        with jump.lock:
            if jump.connection is None and jump.problem is None:
                try:
                    jump.connection = self.connect(replace(machine, jump=""))
                except OpsdError as exc:
                    jump.problem = exc
        if jump.connection is None:
            raise jump.problem or AssertionError
        return jump.connection

    def _blocker(self, machine: Machine) -> str:
        """The machine between that could not be logged in to."""
        jump = self._jumps.get(machine.jump)
        return machine.jump if jump and jump.problem else ""

    def _within(self, seconds: float) -> Deadline:
        return sooner(self.deadline, seconds)


def target_of(machine: Machine) -> Target:
    """A machine as the client knows it."""
    from opsd.clients.ssh.login import Target  # noqa: PLC0415 - loads paramiko

    return Target(name=machine.name, address=machine.address, port=machine.port, user=machine.user)


def _offset_s(shown_s: int | None, at: datetime | None) -> float | None:
    """A clock that shows whole seconds, against ours: right by half a second."""
    return None if shown_s is None or at is None else shown_s + 0.5 - at.timestamp()


def longest_s(access: Access, script: Script | None = None) -> float:
    """Seconds that one machine may take, the login of the one between included."""
    asking_s = script.longest_s + _ENDING_S if script else 0.0
    return 2 * access.connect_timeout_s + asking_s


def sooner(deadline: Deadline, seconds: float) -> Deadline:
    """That time from now, or `deadline` if that is earlier."""
    own = Deadline.after(seconds, deadline.clock)
    return own if own.at < deadline.at else deadline
