"""Which file server, mount or way to it hangs, and which pods and databases wait for it?

Every five minutes each machine looks at its NFS mounts, in a way that cannot hang, and opsd
calls the file servers. Where a mount does not answer, the machine is used to call its server
too: so a dead server, a broken way and a stuck mount are told from each other. A dead server is
one incident, with all that waits for it. Nothing is changed on a machine.

Limits: docs/hung-nfs.md. A hang that is over within five minutes may not be seen. Who waits is
named by the cluster; while that is silent, pods are only counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, Field

from opsd.clients.rpc import Answer, null
from opsd.clock import Deadline
from opsd.cluster.hungnfs import affected
from opsd.cluster.hungnfs.affected import Cluster
from opsd.cluster.hungnfs.findings import about_machine, about_server
from opsd.config import Duration, Table
from opsd.errors import ConfigError, DeadlineExceeded, PermanentError, TransientError
from opsd.hosts.fleet import Roster
from opsd.hosts.machine import Machine
from opsd.hosts.nfs import answers, known
from opsd.hosts.nfs.answers import Answers, Look
from opsd.hosts.nfs.judging import (
    OPSD,
    Server,
    State,
    Verdict,
    is_suspect,
    judge_machine,
    judge_server,
)
from opsd.hosts.nfs.known import Known
from opsd.hosts.nfs.mounts import Mount, under_one_name
from opsd.hosts.nfs.probes import probes
from opsd.hosts.nfs.traffic import Traffic
from opsd.hosts.script import Script
from opsd.job import Context, Job, Observation
from opsd.model import Finding, Severity, Unseen
from opsd.text import printable, shortened

MEMORY = "servers.json"  # in the scratch directory
CALL_S = 3.0  # for a file server to answer NULL; a healthy one needs milliseconds
WAY_S = 8.0  # for the login to a machine from which a server is called, and the call
AT_ONCE = 8  # calls
WITNESSES = 3  # machines from which a server is called that does not answer opsd


def _kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    for kind in kinds:
        if not kind or not all(one.isalnum() or one in "._-" for one in kind):
            raise ValueError("expected names as /proc/mounts has them, such as nfs4")
    return kinds


class Settings(Table):
    """Settings of nfs-health."""

    slow: Duration = Field(
        timedelta(seconds=1), description="an answer that takes longer is told as slow"
    )
    kinds: Annotated[tuple[str, ...], AfterValidator(_kinds)] = Field(
        ("nfs", "nfs4"),
        min_length=1,
        description="types of file systems that are looked at, as /proc/mounts calls them",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the machines said."""

    answers: Mapping[Machine, Answers]
    missing: tuple[Machine, ...] = ()  #: that did not answer at all

    def mounts(self) -> Iterator[tuple[Machine, Answers, Mount]]:
        """Every mount of every machine."""
        for machine, said in self.answers.items():
            for mount in said.mounts:
                yield machine, said, mount


def run(ctx: Context, settings: Settings) -> Iterator[Observation]:
    """Look at all mounts, find out where the fault lies, and say who waits."""
    roster = ctx.fleet.roster()
    seen = _look(ctx, settings, roster)
    servers = _ask_servers(ctx, seen, _known(ctx, roster, seen))
    slow_s = settings.slow.total_seconds()
    verdicts = {
        machine: judge_machine(machine.name, said, servers=servers, slow_s=slow_s)
        for machine, said in seen.answers.items()
    }
    is_well = all(one.state is State.OK for some in verdicts.values() for one in some)
    cluster = Cluster() if is_well else _ask_cluster(ctx)
    yield from _tell(seen, servers, verdicts, cluster)
    yield from _tell_missing(roster, seen)


def _ask_cluster(ctx: Context) -> Cluster:
    """Who is on the mounts; that the cluster is away is no reason not to tell of them."""
    try:
        return affected.read(ctx.kube)
    except ConfigError as exc:
        return Cluster(problem=printable(str(exc)))


def _look(ctx: Context, settings: Settings, roster: Roster) -> _Seen:
    """Visit every machine."""
    script = Script.of(probes(settings.kinds))
    found: dict[Machine, Answers] = {}
    missing: list[Machine] = []
    for visit in ctx.fleet.visit(roster.machines, script):
        if visit.sections:
            found[visit.machine] = answers.read(visit)
        else:
            missing.append(visit.machine)
    names = under_one_name(mount for said in found.values() for mount in said.mounts)
    return _Seen(
        answers={machine: _renamed(said, names) for machine, said in found.items()},
        missing=tuple(missing),
    )


def _known(ctx: Context, roster: Roster, seen: _Seen) -> Mapping[str, Known]:
    """Every file server that is mounted somewhere, also by machines that are silent now."""
    place = ctx.scratch / MEMORY
    silent = frozenset(machine.name for machine in seen.missing)
    servers = known.merged(
        known.read(place),
        ((machine.name, mount) for machine, _, mount in seen.mounts()),
        silent=None if roster.unknown else silent,
    )
    known.write(place, servers)
    return servers


def _renamed(said: Answers, names: Mapping[str, str]) -> Answers:
    """The same with one name for each server."""
    return replace(
        said,
        mounts=tuple(
            replace(one, server=names.get(one.server, one.server)) for one in said.mounts
        ),
    )


def _ask_servers(ctx: Context, seen: _Seen, servers: Mapping[str, Known]) -> Mapping[str, Server]:
    """Call every server from here, and from the machines where it seems to hang."""
    looks: dict[str, list[tuple[str, Look, Traffic | None]]] = {name: [] for name in servers}
    suspects: dict[str, list[Machine]] = {name: [] for name in servers}
    others: dict[str, list[Machine]] = {name: [] for name in servers}
    for machine, said, mount in seen.mounts():
        look, traffic = said.look(mount), said.traffic_of(mount)
        looks[mount.server].append((machine.name, look, traffic))
        found = suspects if is_suspect(look, traffic) else others
        found[mount.server].append(machine)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="nfs") as pool:
        here = list(pool.map(partial(_call, ctx), servers.values()))
        calls = {name: {OPSD: answer} for name, answer in zip(servers, here, strict=True)}
        asked = [
            (name, machine)
            for name in servers
            for machine in dict.fromkeys(
                (
                    *suspects[name],
                    *(() if calls[name][OPSD].is_alive else others[name][:WITNESSES]),
                )
            )
        ]
        there = pool.map(lambda one: _call_from(ctx, one[1], servers[one[0]]), asked)
        for (name, machine), answer in zip(asked, there, strict=True):
            if answer is not None:
                calls[name][machine.name] = answer
    return {name: judge_server(name, calls[name], looks[name]) for name in servers}


def _call(ctx: Context, server: Known) -> Answer:
    deadline = Deadline.after(min(CALL_S, ctx.remaining()), ctx.clock)
    return null(server.address, server.port, version=server.version, deadline=deadline)


def _call_from(ctx: Context, machine: Machine, server: Known) -> Answer | None:
    """Call a server from a machine; None: it does not let us, or cannot be logged in to."""
    deadline = Deadline.after(min(WAY_S, ctx.remaining()), ctx.clock)
    try:
        with ctx.open_fleet(deadline).way(machine) as way:
            patience = Deadline.after(min(CALL_S, deadline.remaining()), ctx.clock)
            return null(
                server.address,
                server.port,
                version=server.version,
                deadline=patience,
                connect=way,
            )
    except (ConfigError, PermanentError, TransientError, DeadlineExceeded):
        return None


def _tell(
    seen: _Seen,
    servers: Mapping[str, Server],
    verdicts: Mapping[Machine, Sequence[Verdict]],
    cluster: Cluster,
) -> Iterator[Observation]:
    every = [one for some in verdicts.values() for one in some]
    for name, server in sorted(servers.items()):
        its = [one for one in every if one.mount.server == name]
        yield from about_server(server, its, cluster)
    for machine, said in seen.answers.items():
        yield from about_machine(machine, said, verdicts[machine], cluster)


def _tell_missing(roster: Roster, seen: _Seen) -> Iterator[Observation]:
    """Machines that said nothing: what is open about them stays open."""
    for machine in seen.missing:
        yield Unseen(subject=machine.subject)
        yield Finding(
            check="nfs.unknown",
            subject=f"{machine.subject}/nfs",
            severity=Severity.WARNING,
            summary=f"whether NFS hangs on {machine.name} is not known: it did not answer",
            remedy="opsd nodes check",
            cause=machine.subject,
            steady_for=timedelta(minutes=14),
        )
    if roster.unknown:
        text = printable(roster.unknown)
        yield Finding(
            check="nfs.unknown",
            subject="nfs",
            severity=Severity.WARNING,
            summary=shortened(f"which nodes there are is not known: {text}", 120),
            remedy="kubectl get nodes; opsd nodes check",
            facts={"problem": text},
            steady_for=timedelta(minutes=14),
        )
        yield Unseen(subject="machine")


JOB = Job(
    name="nfs-health",
    summary="tell which NFS mounts hang, why, and who waits for them",
    group="nodes",
    schedule="*/5 * * * *",
    timeout=timedelta(minutes=4),
    settings=Settings,
    run=run,
)
