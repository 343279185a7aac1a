"""A lost node may still write to the NFS server: let it in no more, and prove that it is so.

The program ``opsd-fence`` on the server (deploy/fence) drops what comes from the node's addresses
to the NFS port, connections that are open included, and does so again at each boot. It is
believed only when all of this is read back: the kernel drops each address, the rules are the
whole chain, they would come back after a reboot of the server, the server really has the
addresses by which volumes name it, and no connection of the node brings data any more.

Limits: IPv4. What the node does elsewhere goes on. NFS over RDMA does not pass the rules. A
client in a pod that comes with an address nobody knows is found on NFS 4 only, by its name. The
names of servers are looked up where opsd runs.
"""

from __future__ import annotations

import ipaddress
import shlex
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from opsd.clients.kube.objects import Node as KubeNode
from opsd.clock import Deadline
from opsd.cluster.nodeloss import around
from opsd.cluster.remedy.case import Fence
from opsd.cluster.remedy.fences import FenceFailed, Power
from opsd.cluster.remedy.proof import Proof
from opsd.cluster.remedy.settings import FenceTable
from opsd.errors import OpsdError
from opsd.hosts.fleet import Fleet, Visit
from opsd.hosts.machine import Machine
from opsd.hosts.script import Probe, Script, Section
from opsd.secrets import describe

log = structlog.get_logger()

OpenFleet = Callable[[Deadline], Fleet]

PROGRAM = "/usr/local/sbin/opsd-fence"
SETTLED = timedelta(milliseconds=900)  # a connection that was silent for so long is dead
SETTLE_S = 1  # between the cut and the look at connections
CHANGE_S, LOOK_S = 20.0, 5.0
OWN, LISTENS, STATUS, CHANGE, SETTLE = "addresses", "listens", "fence", "fence-change", "settle"
PAGE = "docs/remedy.md#the-fence-at-the-nfs-server"

_OWN = Probe(name=OWN, command="ip -o addr show", within_s=LOOK_S)
_LISTENS = Probe(
    name=LISTENS, command=f"ss -Hltn '( sport = :{around.NFS_PORT} )'", within_s=LOOK_S
)
_SETTLE = Probe(name=SETTLE, command=f"sleep {SETTLE_S}", within_s=SETTLE_S + LOOK_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the program on the server says."""

    boots: bool  #: it would be so again after a reboot of the server
    rules: bool  #: the chain is exactly as it should be
    dropped: frozenset[str]  #: those of the addresses asked for that are dropped
    nodes: Mapping[str, frozenset[str]]  #: by name: addresses, as they are kept on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class NfsFence:
    """The fence of one file server, for one node."""

    table: FenceTable
    node: str
    addresses: tuple[str, ...]  #: IPv4 addresses and networks, all that it may come from
    open_fleet: OpenFleet

    @property
    def fence(self) -> Fence:
        """What it is to a decision."""
        return Fence(name=self.table.name, gives=Proof.STORAGE_CUT, server=self.table.server)

    @property
    def servers(self) -> frozenset[str] | None:
        """As configured, and checked against the machine whenever it is asked."""
        return frozenset(self.table.serves)

    def status(self, deadline: Deadline) -> Power:
        """What the server says and shows; see `Device.status`."""
        answers = self._asked("status", deadline)
        kept = self._kept(answers, "status")
        if not kept.dropped and self.node not in kept.nodes:
            return Power.ON
        return Power.PARTLY if any(self._lacks(answers, kept)) else Power.OFF

    def cut(self, deadline: Deadline) -> None:
        """Have it dropped, unless it is proven to be already; see `Device.cut`."""
        answers = self._rehearsed("off", deadline)
        if not any(self._lacks(answers, self._kept(answers, "off"))):
            return
        change = self._changing("cut", self.node, *self.addresses)
        answers = self._asked("off", deadline, change, _SETTLE)
        self._check_changed("off", answers)
        lacks = list(self._lacks(answers, self._kept(answers, "off")))
        if lacks:
            raise self._failed("off", f"it reported success, and {'; '.join(lacks)}")

    def give_back(self, deadline: Deadline) -> None:
        """Have nothing of it dropped; see `Device.give_back`."""
        if self.status(deadline) is Power.ON:
            return
        answers = self._asked("on", deadline, self._changing("lift", self.node))
        self._check_changed("on", answers)
        kept = self._kept(answers, "on")
        if kept.dropped or self.node in kept.nodes:
            rest = ", ".join(sorted(kept.dropped)) or "it"
            raise self._failed("on", f"it reported success, and {rest} is still dropped")

    def rehearse(self, deadline: Deadline) -> None:
        """See what would keep it from working; see `Device.rehearse`."""
        self._rehearsed("status", deadline)

    def keeps_out(self, deadline: Deadline) -> Mapping[str, frozenset[str]]:
        """All nodes that the server has on its list, with their addresses; raises as `status`."""
        return self._kept(self._asked("status", deadline), "status").nodes

    def shown(self, action: str) -> str:
        """As a person would type it."""
        verb = {
            "off": f"cut {self.node} {' '.join(self.addresses)}",
            "on": f"lift {self.node}",
            "status": f"status {' '.join(self.addresses)}",
        }[action]
        return f"ssh {self.table.server} sudo {PROGRAM} {verb}"

    def _rehearsed(self, action: str, deadline: Deadline) -> Mapping[str, Section]:
        """Answers, when nothing is known that would keep a cut from being a proof."""
        if not self.addresses:
            raise self._failed(action, "no IPv4 address of it is known; set addresses")
        answers = self._asked(action, deadline)
        if not self._kept(answers, action).boots:
            raise self._failed(
                action,
                f"a reboot of {self.table.server} would let it in again: "
                f"systemctl enable --now opsd-fence ({PAGE})",
            )
        if not _output(answers, LISTENS).strip():
            raise self._failed(
                action, f"nothing listens on port {around.NFS_PORT} of {self.table.server}"
            )
        if wrong := next(self._wrong_server(answers), ""):
            raise self._failed(action, wrong)
        return answers

    def _lacks(self, answers: Mapping[str, Section], kept: Kept) -> Iterator[str]:
        """What is missing to a proof."""
        server = self.table.server
        if open_ := sorted(set(self.addresses) - kept.dropped):
            yield f"{server} does not drop {', '.join(open_)}"
        if not kept.rules:
            yield f"the rules on {server} are not those of opsd-fence"
        if set(self.addresses) - kept.nodes.get(self.node, frozenset()) or not kept.boots:
            yield f"a reboot of {server} would let it in again"
        yield from self._wrong_server(answers)
        yield from self._alive(answers)

    def _wrong_server(self, answers: Mapping[str, Section]) -> Iterator[str]:
        """Whether volumes are served by another machine, as far as names tell."""
        every = frozenset(_addresses_in(_output(answers, OWN)))
        own = {one for one in every if not ipaddress.ip_address(one).is_loopback}
        for name in self.table.serves:
            found = self._resolved(name)
            if not found or any(ipaddress.ip_address(one).version != 4 for one in found):  # noqa: PLR2004 - IPv4
                yield f"{name} is not an IPv4 address only, so not all ways to it are known"
            elif not found <= own:
                yield f"{name} is not an address of {self.table.server}"

    def _alive(self, answers: Mapping[str, Section]) -> Iterator[str]:
        """Whether the server still hears of the node."""
        seen = around.connections(answers.get(around.CONNECTIONS))
        if seen is None:
            yield f"the connections of {self.table.server} cannot be listed: install iproute2"
        for one in seen or ():
            if self._is_of_node(one.peer) and (one.silent < SETTLED or one.unread_bytes):
                yield f"a connection from {one.peer} still brings data"
        for client in around.clients(answers.get(around.CLIENTS)):
            is_named = self.node in client.name.replace("/", " ").split()
            if is_named and client.address and not self._is_of_node(client.address):
                yield f"it also comes from {client.address}: add that to addresses"

    def _is_of_node(self, address: str) -> bool:
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in ipaddress.ip_network(one) for one in self.addresses)

    def _resolved(self, name: str) -> frozenset[str]:
        try:
            return frozenset(str(one[4][0]) for one in socket.getaddrinfo(name, around.NFS_PORT))
        except (OSError, UnicodeError):
            return frozenset()

    def _kept(self, answers: Mapping[str, Section], action: str) -> Kept:
        section = answers[STATUS]
        if not section.is_ok:
            raise self._failed(action, _complaint(section))
        try:
            return read_status(section.stdout)
        except ValueError as exc:
            raise self._failed(action, f"it answered what is not understood: {exc}") from exc

    def _changing(self, *words: str) -> Probe:
        command = f"$root {PROGRAM} {shlex.join(words)}"
        return Probe(name=CHANGE, command=command, within_s=CHANGE_S)

    def _check_changed(self, action: str, answers: Mapping[str, Section]) -> None:
        if not answers[CHANGE].is_ok:
            raise self._failed(action, _complaint(answers[CHANGE]))

    def _asked(self, action: str, deadline: Deadline, *before: Probe) -> Mapping[str, Section]:
        """What the server answers to all questions, after what is to be done before."""
        status = f"$root {PROGRAM} {shlex.join(('status', *self.addresses))}"
        asked = (
            *before,
            Probe(name=STATUS, command=status, within_s=CHANGE_S),
            _OWN,
            _LISTENS,
            around.CONNECTIONS_PROBE,
            around.CLIENTS_PROBE,
        )
        if before:
            log.info("fence.called", fence=self.table.name, node=self.node, action=action)
        visit = self._visit(action, Script.of(asked), deadline)
        missing = [one.name for one in asked if one.name not in visit.sections]
        if visit.problem is not None or missing:
            why = str(visit.problem) if visit.problem else f"no answer about {missing[0]}"
            raise self._failed(action, why)
        return visit.sections

    def _visit(self, action: str, script: Script, deadline: Deadline) -> Visit:
        own = Deadline.after(self.table.timeout.total_seconds(), deadline.clock)
        try:
            fleet = self.open_fleet(own if own.at < deadline.at else deadline)
            machine = self._server_in(action, fleet.roster().machines)
            [visit] = fleet.visit((machine,), script)
        except FenceFailed:
            raise
        except OpsdError as exc:
            deadline.remaining()  # the run's own end is told as such
            raise self._failed(action, str(exc)) from exc
        return visit

    def _server_in(self, action: str, machines: tuple[Machine, ...]) -> Machine:
        for machine in machines:
            if machine.name != self.node and self._is_of_node(machine.address):
                raise self._failed(action, f"{machine.address} is {machine.name}, which stays")
        found = [machine for machine in machines if machine.name == self.table.server]
        if not found or self.table.server == self.node:
            raise self._failed(
                action, f"there is no machine {self.table.server} to do it; add [[machines]]"
            )
        return found[0]

    def _failed(self, action: str, why: str) -> FenceFailed:
        return FenceFailed(f"fence {self.table.name}: {action} {self.node}: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """Whom one file server keeps out, whatever is written in the cluster."""

    server: str
    nodes: Mapping[str, frozenset[str]] = field(default_factory=dict)  #: names and addresses
    problem: str = ""  #: why that is not known


def lists(
    tables: Iterable[FenceTable], open_fleet: OpenFleet, deadline: Deadline
) -> Iterator[List]:
    """Ask each file server that is a fence, once.

    Raises:
        DeadlineExceeded: no time is left.
    """
    servers = {table.server: table for table in tables if table.type == "nfs"}
    for server, table in servers.items():
        fence = NfsFence(table=table, node="", addresses=(), open_fleet=open_fleet)
        try:
            yield List(server=server, nodes=fence.keeps_out(deadline))
        except FenceFailed as exc:
            yield List(server=server, problem=describe(exc).partition(": ")[2])


def addresses_of(node: KubeNode, table: FenceTable) -> tuple[str, ...]:
    """All IPv4 addresses that a node may come from, as far as is known."""
    named = [
        one.address
        for one in node.status.addresses
        if one.type in ("InternalIP", "ExternalIP") and _is_ipv4(one.address)
    ]
    return tuple(dict.fromkeys((*named, *table.addresses.get(node.name, ()))))


def read_status(text: str) -> Kept:
    """Of ``opsd-fence status``.

    Raises:
        ValueError: a line is not understood, or one is missing.
    """
    words: dict[str, str] = {}
    dropped: set[str] = set()
    nodes: dict[str, frozenset[str]] = {}
    for line in filter(None, text.splitlines()):
        match line.split(" "):
            case ["boot" | "rule" as word, "yes" | "no" as value]:
                words[word] = value
            case ["in", address]:
                dropped.add(address)
            case ["kept", node, address]:
                nodes[node] = nodes.get(node, frozenset()) | {address}
            case _:
                raise ValueError(line)
    if set(words) != {"boot", "rule"}:
        raise ValueError(text.strip() or "nothing")
    return Kept(
        boots=words["boot"] == "yes",
        rules=words["rule"] == "yes",
        dropped=frozenset(dropped),
        nodes=nodes,
    )


def _addresses_in(text: str) -> Iterator[str]:
    """Of ``ip -o addr show``."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[2] in ("inet", "inet6"):  # noqa: PLR2004 - its fields
            yield fields[3].partition("/")[0]


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True


def _output(answers: Mapping[str, Section], name: str) -> str:
    section = answers[name]
    return section.stdout if section.is_ok else ""


def _complaint(section: Section) -> str:
    if "not found" in section.stderr:  # by sudo, or by the shell
        return f"{section.complaint()}: install it ({PAGE})"
    if section.is_refused:
        line = f"opsd ALL=(root) NOPASSWD: {PROGRAM}"
        return f"sudo refuses it; write to /etc/sudoers.d/opsd-fence: {line} ({PAGE})"
    return section.complaint()
