"""A mount hangs: is it the file server, the way to it, or this one mount? Pure.

The server is asked from opsd and from the machines whose mounts hang. It counts as down only
when nobody reached it from two places, and no mount of it answered anywhere. One that answers
the call, while all its mounts on several machines hang, waits for its own disk.

Limits: all that is known is of one moment. Where only one machine mounts a server, its stuck
disk looks like a stuck mount.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opsd.clients.rpc import Answer
from opsd.hosts.nfs.answers import Answers, Look, Sight
from opsd.hosts.nfs.mounts import Mount
from opsd.hosts.nfs.traffic import Traffic

OPSD = "opsd"  # the place that is no machine of the fleet
_PLACES = 2  # from which nobody must have reached a server that is down


class State(enum.StrEnum):
    """How a mount is."""

    OK = "ok"
    SLOW = "slow"
    SERVER_DOWN = "server_down"  #: hangs or fails, as its server is down or stuck
    PATH_BROKEN = "path_broken"  #: hangs or fails, as this machine does not reach the server
    HUNG = "hung"  #: its server answers, and the mount does not
    STALE = "stale"  #: its server no longer knows the directory
    ERRORS = "errors"  #: programs get errors from it
    UNKNOWN = "unknown"


class Health(enum.StrEnum):
    """How a file server is."""

    ALIVE = "alive"
    STUCK = "stuck"  #: it answers calls, and no mount of it answers anywhere
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is known of one file server."""

    name: str
    health: Health
    calls: Mapping[str, Answer] = field(default_factory=dict)  #: by place, `OPSD` among them
    answering: tuple[str, ...] = ()  #: machines on which a mount of it answered
    hanging: tuple[str, ...] = ()  #: machines on which one hung or failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one mount is, and by what that is known."""

    machine: str
    mount: Mount
    state: State
    look: Look
    traffic: Traffic | None = None
    call: Answer | None = (
        None  #: of the server from this machine; None: not tried, or not possible
    )


def is_suspect(look: Look, traffic: Traffic | None) -> bool:
    """Whether it must be found out where the fault lies."""
    is_stalled = traffic is not None and traffic.is_stalled
    return look.sight in {Sight.HUNG, Sight.ERROR} or (
        is_stalled and look.sight in {Sight.REFUSED, Sight.UNKNOWN}
    )


def judge_server(
    name: str, calls: Mapping[str, Answer], seen: Iterable[tuple[str, Look, Traffic | None]]
) -> Server:
    """How a file server is.

    Args:
        name: of the server.
        calls: what came of calling it, by place; places that could not call are left out.
        seen: looks at its mounts, each with the machine.
    """
    answering, hanging = set[str](), set[str]()
    for machine, look, traffic in seen:
        if is_suspect(look, traffic):
            hanging.add(machine)
        elif look.sight in {Sight.ANSWERED, Sight.STALE}:
            answering.add(machine)
    return Server(
        name=name,
        health=_health(calls, answering, hanging),
        calls=dict(calls),
        answering=tuple(sorted(answering)),
        hanging=tuple(sorted(hanging)),
    )


def _health(calls: Mapping[str, Answer], answering: set[str], hanging: set[str]) -> Health:
    # A mount that hangs stands for its machine where that could not call.
    failing = {place for place, call in calls.items() if not call.is_alive}
    if answering:
        return Health.ALIVE
    if any(call.is_alive for call in calls.values()):
        return Health.STUCK if len(hanging - failing) >= _PLACES else Health.ALIVE
    return Health.DOWN if len(failing | hanging) >= _PLACES else Health.UNKNOWN


def judge(
    look: Look,
    traffic: Traffic | None,
    *,
    server: Health,
    call: Answer | None,
    slow_s: float,
) -> State:
    """How a mount is.

    Args:
        look: at the mount.
        traffic: during the look; None: not known.
        server: how its server is.
        call: of the server from this machine; None: not tried, or not possible.
        slow_s: an answer that takes longer is slow.
    """
    if look.sight is Sight.ANSWERED:
        return State.SLOW if look.seconds > slow_s else State.OK
    if look.sight is Sight.STALE:
        return State.STALE
    if not is_suspect(look, traffic):
        return State.UNKNOWN
    if call is not None and not call.is_alive and server in {Health.ALIVE, Health.STUCK}:
        return State.PATH_BROKEN  # as others reach it
    if server in {Health.DOWN, Health.STUCK}:
        return State.SERVER_DOWN
    return State.ERRORS if look.sight is Sight.ERROR else State.HUNG


def judge_machine(
    machine: str,
    answers: Answers,
    *,
    servers: Mapping[str, Server],
    slow_s: float,
) -> Sequence[Verdict]:
    """How each mount of a machine is.

    Args:
        machine: its name.
        answers: what it said.
        servers: what is known of its servers, by name; a missing one is not known.
        slow_s: as `judge`.
    """
    return [_verdict(machine, mount, answers, servers, slow_s) for mount in answers.mounts]


def _verdict(
    machine: str, mount: Mount, answers: Answers, servers: Mapping[str, Server], slow_s: float
) -> Verdict:
    server = servers.get(mount.server)
    look, traffic = answers.look(mount), answers.traffic_of(mount)
    call = server.calls.get(machine) if server else None
    health = server.health if server else Health.UNKNOWN
    return Verdict(
        machine=machine,
        mount=mount,
        state=judge(look, traffic, server=health, call=call, slow_s=slow_s),
        look=look,
        traffic=traffic,
        call=call,
    )
