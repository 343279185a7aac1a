"""The fleet over SSH: log in to each machine once, run the script, take its answers home."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from opsd.clock import Deadline
from opsd.errors import ConfigError, DeadlineExceeded, OpsdError, PermanentError
from opsd.hosts import kept
from opsd.hosts.crowd import Crowd
from opsd.hosts.fleet import Roster, Visit, Way
from opsd.hosts.machine import Machine
from opsd.hosts.roster import Access, machines_of, nodes_of, read, written
from opsd.hosts.script import BEGIN, END, Script
from opsd.hosts.trust import Trust

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube
    from opsd.clients.ssh.connection import Connection, Target
    from opsd.clients.ssh.keys import ClientKey
    from opsd.clients.ssh.known import HostKey, KnownHosts

log = structlog.get_logger()

REMEMBERED = "nodes of the cluster"  # what the file of them is called in errors
_SILENCE_S = 10.0  # beyond the longest question, before a machine counts as hanging
_ENDING_S = 5.0  # beyond what all questions may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The key that a machine shows."""

    machine: Machine
    key: HostKey | None = None
    believed: tuple[HostKey, ...] = ()  #: those that opsd would believe of it
    problem: OpsdError | None = None  #: why there is no key


class SshFleet:
    """The machines of the configuration and of the cluster, over SSH."""

    def __init__(
        self,
        access: Access | None,
        *,
        open_kube: Callable[[Deadline], Kube],
        deadline: Deadline,
        roster: list[Roster] | None = None,
    ) -> None:
        """Nothing is asked or opened yet.

        Args:
            access: how to log in; None: it is not configured.
            open_kube: the cluster whose nodes are machines.
            deadline: of everything that is done with it.
            roster: the answer of another fleet of the same run; one place for all of them.
        """
        self._access = access
        self._open_kube = open_kube
        self._deadline = deadline
        self._roster: list[Roster] = [] if roster is None else roster

    def until(self, deadline: Deadline) -> SshFleet:
        """The same fleet until another time; the cluster is not asked again."""
        return SshFleet(
            self._access, open_kube=self._open_kube, deadline=deadline, roster=self._roster
        )

    @property
    def access(self) -> Access:
        """How to log in.

        Raises:
            ConfigError: it is not configured.
        """
        if self._access is None:
            raise ConfigError(
                "there is no table [ssh], so opsd cannot log in to machines; add "
                '[ssh] with key = "file:/etc/opsd/ssh_key" (docs/nodes.md)'
            )
        return self._access

    def roster(self) -> Roster:
        """Who belongs to it; see `Fleet.roster`."""
        if not self._roster:
            self._roster.append(self._asked())
        return self._roster[0]

    def visit(self, machines: Iterable[Machine], script: Script) -> Iterator[Visit]:
        """Run the script on each; see `Fleet.visit`."""
        with self._visiting() as visiting:
            crowd: Crowd[Machine, Visit] = Crowd(
                lambda machine: visiting.visit(machine, script),
                at_once=self.access.at_once,
                limit_s=lambda _: self._longest_s(script),
            )
            for machine, visit in crowd.each(machines, self._deadline):
                yield visit if isinstance(visit, Visit) else _lost(machine, visit)

    def show(self, machines: Iterable[Machine]) -> Iterator[Shown]:
        """The key that each of them shows, believed or not; as they answer.

        Raises:
            ConfigError, DeadlineExceeded: as `visit`.
        """
        with self._visiting() as visiting:
            crowd: Crowd[Machine, Shown] = Crowd(
                visiting.show,
                at_once=self.access.at_once,
                limit_s=lambda _: 2 * self.access.connect_timeout_s,
            )
            for machine, shown in crowd.each(machines, self._deadline):
                if isinstance(shown, Shown):
                    yield shown
                else:
                    yield Shown(machine=machine, problem=_lost(machine, shown).problem)

    @contextlib.contextmanager
    def way(self, machine: Machine) -> Iterator[Way]:
        """Log in to a machine once, to open sockets from there; see `Fleet.way`."""
        from opsd.clients.ssh.forwarding import opened  # noqa: PLC0415 - loads paramiko

        with self._visiting() as visiting:
            connection = visiting.connect(machine)
            with connection.until(self._deadline):
                yield lambda host, port: opened(connection, host, port, deadline=self._deadline)

    @contextlib.contextmanager
    def _visiting(self) -> Iterator[_Visiting]:
        from opsd.clients.ssh import keys  # noqa: PLC0415 - loads paramiko

        access = self.access
        visiting = _Visiting(
            access=access,
            key=keys.load(access.key, access.passphrase),
            known=Trust(access, self._open_kube).known(self._deadline),
            machines={machine.name: machine for machine in self.roster().machines},
            deadline=self._deadline,
        )
        try:
            yield visiting
        finally:
            visiting.close()

    def _longest_s(self, script: Script) -> float:
        # Twice: the login of the machine between may be waited for.
        return 2 * self.access.connect_timeout_s + script.longest_s + _ENDING_S

    def _asked(self) -> Roster:
        access = self.access
        if not access.nodes:
            return Roster(machines=machines_of(access, ()))
        from opsd.clients.kube.objects import Node  # noqa: PLC0415 - not for machines alone

        text = kept.read(access.remembered, what=REMEMBERED)
        try:
            nodes = nodes_of(self._open_kube(self._deadline).list(Node))
        except DeadlineExceeded:
            raise
        except OpsdError as exc:
            return Roster(machines=machines_of(access, read(text)), unknown=str(exc))
        if written(nodes) != text:
            kept.write(access.remembered, written(nodes), what=REMEMBERED)
        return Roster(machines=machines_of(access, nodes))


@dataclass(slots=True)
class _Jump:
    """A machine between, to which the first that needs it logs in for all."""

    lock: threading.Lock
    connection: Connection | None = None
    problem: OpsdError | None = None


class _Visiting:
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
        """That time from now, or until the end of all of it."""
        own = Deadline.after(seconds, self.deadline.clock)
        return own if own.at < self.deadline.at else self.deadline


def target_of(machine: Machine) -> Target:
    """A machine as the client knows it."""
    from opsd.clients.ssh.connection import Target  # noqa: PLC0415 - loads paramiko

    return Target(name=machine.name, address=machine.address, port=machine.port, user=machine.user)


def _offset_s(shown_s: int | None, at: datetime | None) -> float | None:
    """A clock that shows whole seconds, against ours: right by half a second."""
    return None if shown_s is None or at is None else shown_s + 0.5 - at.timestamp()


def _lost(machine: Machine, exc: Exception | None) -> Visit:
    """A visit that did not come back, or by an error that nobody foresaw."""
    from opsd.clients.ssh.errors import Stage, Unreachable  # noqa: PLC0415 - rarely needed

    what = f"log in to {machine.name} ({machine.address})"
    if exc is None:
        text = f"{what}: nothing came back in its time"
        return Visit(machine=machine, problem=Unreachable(text, stage=Stage.CONNECT))
    log.error("visit.failed", machine=machine.name, exc_info=exc)
    text = f"{what}: unexpected {type(exc).__name__}: {exc}; the log says where"
    return Visit(machine=machine, problem=PermanentError(text))
