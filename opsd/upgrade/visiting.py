"""Ask every node of the cluster the questions of all checks, in one visit each."""

from __future__ import annotations

from collections.abc import Iterable

from opsd.clients.kube.objects import Node
from opsd.errors import OpsdError
from opsd.hosts.fleet import Fleet
from opsd.hosts.machine import Machine, Role
from opsd.hosts.script import Script
from opsd.upgrade.check import Check
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.handshakes import CONTROL_PLANE
from opsd.upgrade.reading import Reading

NOT_CONFIGURED = "let opsd log in to the nodes: docs/nodes.md"


def read_machines(
    fleet: Fleet, checks: Iterable[Check], facts: Facts
) -> Reading[tuple[MachineFacts, ...]]:
    """What each node answered; a node that cannot be visited is there with its problem.

    Raises:
        DeadlineExceeded: the run's own time is over.
    """
    script = Script.of(probe for check in checks for probe in check.probes)
    try:
        roster = fleet.roster()
        machines = tuple(one for one in roster.machines if Role.NODE in one.roles)
        visited = {
            visit.machine.name: MachineFacts(
                machine=visit.machine,
                sections=visit.sections,
                problem=str(visit.problem) if visit.problem else "",
                clock_offset_s=visit.clock_offset_s,
            )
            for visit in fleet.visit(machines, script)
        }
    except OpsdError as exc:
        return Reading.failed("machines", str(exc), fix=NOT_CONFIGURED)
    if facts.nodes.problem is None:
        for node in facts.nodes.value:
            left_out = Machine(name=node.name, address="", roles=_roles(node))
            problem = "opsd does not log in to it: see [ssh] and [[machines]]"
            visited.setdefault(node.name, MachineFacts(machine=left_out, problem=problem))
    if not visited:
        return Reading.failed("machines", roster.unknown or "there is none", fix=NOT_CONFIGURED)
    return Reading.of(tuple(visited[name] for name in sorted(visited)))


def _roles(node: Node) -> frozenset[Role]:
    is_control_plane = CONTROL_PLANE in node.labels
    return frozenset((Role.NODE, Role.CONTROL_PLANE) if is_control_plane else (Role.NODE,))
