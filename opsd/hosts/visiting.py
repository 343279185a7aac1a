"""The fleet over SSH: log in to each machine once, run the script, take its answers home."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import structlog

from opsd.clock import Deadline
from opsd.errors import ConfigError, OpsdError, PermanentError
from opsd.hosts import kept
from opsd.hosts.crowd import Crowd
from opsd.hosts.fleet import Roster, Visit, Way
from opsd.hosts.machine import Machine
from opsd.hosts.passing import Pass, Shown, longest_s, sooner
from opsd.hosts.roster import Access, machines_of, nodes_of, read, written
from opsd.hosts.script import Script
from opsd.hosts.trust import Trust

if TYPE_CHECKING:
    from opsd.clients.kube.client import Kube

log = structlog.get_logger()

REMEMBERED = "nodes of the cluster"  # what the file of them is called in errors
_CLUSTER_S = 20.0  # for asking the cluster: its nodes are known from the last time as well


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
                limit_s=lambda _: longest_s(self.access, script),
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
                limit_s=lambda _: longest_s(self.access),
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
    def _visiting(self) -> Iterator[Pass]:
        from opsd.clients.ssh import keys  # noqa: PLC0415 - loads paramiko

        access = self.access
        visiting = Pass(
            access=access,
            key=keys.load(access.key, access.passphrase),
            known=Trust(access, self._open_kube).known(sooner(self._deadline, _CLUSTER_S)),
            machines={machine.name: machine for machine in self.roster().machines},
            deadline=self._deadline,
        )
        try:
            yield visiting
        finally:
            visiting.close()

    def _asked(self) -> Roster:
        access = self.access
        if not access.nodes:
            return Roster(machines=machines_of(access, ()))
        from opsd.clients.kube.objects import Node  # noqa: PLC0415 - not for machines alone

        text = kept.read(access.remembered, what=REMEMBERED)
        try:
            nodes = nodes_of(self._open_kube(sooner(self._deadline, _CLUSTER_S)).list(Node))
        except OpsdError as exc:
            self._deadline.remaining()
            return Roster(machines=machines_of(access, read(text)), unknown=str(exc))
        if written(nodes) != text:
            kept.write(access.remembered, written(nodes), what=REMEMBERED)
        return Roster(machines=machines_of(access, nodes))


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
