"""A dead file server is one message, not one for each machine, mount and pod. Pure.

Whatever follows from a server that answers nobody names it as its cause. All mounts of one
server on one machine that share a state are one finding.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from opsd.clients.rpc import Answer
from opsd.cluster.hungnfs.affected import Affected, Cluster, affected
from opsd.cluster.hungnfs.remedies import PAGE, Plan, for_machine, for_server
from opsd.hosts.machine import Machine
from opsd.hosts.nfs.answers import Answers, Sight, Task
from opsd.hosts.nfs.judging import OPSD, Health, Server, State, Verdict
from opsd.hosts.nfs.mounts import server_of
from opsd.hosts.nfs.probes import RIGHT
from opsd.model import Fact, Finding, Severity, Unseen
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120
_MOST_NAMES = 8
_TWO_LOOKS = timedelta(minutes=4)  # of five minutes: what is over at the next look is not told
_LASTING = timedelta(minutes=14)

_STEADY = {State.SLOW: _LASTING, State.HUNG: _TWO_LOOKS, State.PATH_BROKEN: _TWO_LOOKS}
#: Names of the checks. What hangs as its server is down is still a mount that hangs.
_CHECKS = {
    State.SLOW: "nfs.slow",
    State.SERVER_DOWN: "nfs.hung",
    State.PATH_BROKEN: "nfs.path_broken",
    State.HUNG: "nfs.hung",
    State.STALE: "nfs.stale",
    State.ERRORS: "nfs.errors",
}
#: The worst first, as the table of machines says it.
_WORDS = {
    State.SERVER_DOWN: "hang, server down",
    State.PATH_BROKEN: "hang, no way to the server",
    State.HUNG: "hang",
    State.STALE: "stale",
    State.ERRORS: "give errors",
    State.SLOW: "slow",
    State.UNKNOWN: "unknown",
}


def about_server(
    server: Server, verdicts: Iterable[Verdict], cluster: Cluster
) -> Iterator[Finding | Unseen]:
    """What is to be said of a file server; nothing when it is well.

    Args:
        server: which.
        verdicts: of its mounts on all machines.
        cluster: the names of who is on them.
    """
    subject = f"nfs/{printable(server.name)}"
    if server.health is Health.ALIVE:
        return
    calls = sorted(server.calls.items(), key=lambda one: (one[0] != OPSD, one[0]))
    told = [f"{place}: {call.detail or call.outcome}" for place, call in calls]
    if server.health is Health.UNKNOWN:
        yield _unanswered(subject, server, told)
        yield Unseen(subject=subject)
        return
    waiting = affected((one.mount for one in verdicts), cluster)
    machines = sorted({one.machine for one in verdicts})
    who = f": {waiting} wait{'' if _is_plural(waiting) else 's'} for it" if str(waiting) else ""
    is_stuck = server.health is Health.STUCK
    what = "answers calls, but none of its mounts does" if is_stuck else "does not answer"
    yield _finding(
        "nfs.server_down",
        subject,
        Severity.CRITICAL,
        f"file server {server.name} {what}{who}",
        plan=for_server(server.name),
        facts={
            **_names(waiting, cluster),
            "hangs_on": ", ".join(machines),
            "asked_from": ", ".join(told),
        },
    )


def about_machine(
    machine: Machine, answers: Answers, verdicts: Sequence[Verdict], cluster: Cluster
) -> Iterator[Finding | Unseen]:
    """What is to be said of the mounts of one machine, and its line in the table.

    Args:
        machine: which.
        answers: what it said.
        verdicts: of its mounts.
        cluster: the names of who is on them.
    """
    groups: dict[tuple[str, State], list[Verdict]] = defaultdict(list)
    for one in verdicts:
        groups[one.mount.server, one.state].append(one)
    for (server, state), same in sorted(groups.items(), key=_rank):
        if state is State.UNKNOWN:
            # What is open about the mounts of this server stays open.
            yield Unseen(subject=_subject(machine, server))
        elif state is not State.OK:
            yield _about_mounts(machine, state, same, answers, cluster)
    if unreadable := _unreadable(answers, verdicts):
        yield _unknown(machine, unreadable)
        if answers.unreadable:
            yield Unseen(subject=f"{machine.subject}/nfs")
    yield _state(machine, answers, verdicts)


def _rank(group: tuple[tuple[str, State], list[Verdict]]) -> tuple[str, int]:
    (server, state), _ = group
    return server, list(State).index(state)


def _about_mounts(
    machine: Machine,
    state: State,
    same: Sequence[Verdict],
    answers: Answers,
    cluster: Cluster,
) -> Finding:
    waiting = affected((one.mount for one in same), cluster)
    mount = same[0].mount
    pods = {pod for one in same for pod in one.mount.pods}
    stuck = [task for task in answers.tasks if task.pod in pods]
    is_bad = state is not State.SLOW and (state is not State.ERRORS or bool(waiting.databases))
    return _finding(
        _CHECKS[state],
        _subject(machine, mount.server),
        Severity.CRITICAL if is_bad else Severity.WARNING,
        _summary(machine.name, state, same, waiting),
        plan=for_machine(state, same, waiting, stuck),
        facts={**_names(waiting, cluster), **_evidence(same, answers), **_processes(stuck)},
        cause=f"nfs/{printable(mount.server)}" if state is State.SERVER_DOWN else "",
        steady_for=_STEADY.get(state, timedelta(0)),
    )


def _summary(machine: str, state: State, same: Sequence[Verdict], waiting: Affected) -> str:
    server, count = same[0].mount.server, len(same)
    mounts = f"{count} mounts of {server}" if count > 1 else f"a mount of {server}"
    verb = "" if count > 1 else "s"
    on = f": {waiting}" if str(waiting) else ""
    match state:
        case State.SERVER_DOWN:
            return f"{mounts} hang{verb} on {machine}{on}"
        case State.PATH_BROKEN:
            return f"{machine} does not reach file server {server}, which others do{on}"
        case State.STALE:
            are = "are" if count > 1 else "is"
            return f"{mounts} on {machine} {are} stale{on}"
        case State.ERRORS:
            return f"{mounts} on {machine} give{verb} errors: {same[0].look.detail}{on}"
        case State.SLOW:
            slowest_s = max(one.look.seconds for one in same)
            return f"{server} took {slowest_s:.1f} s to answer {machine}{on}"
    call = same[0].call
    why = ", though its server answers" if call and call.is_alive else ""
    return f"{mounts} hang{verb} on {machine}{why}{on}"


def _evidence(same: Sequence[Verdict], answers: Answers) -> dict[str, Fact]:
    first = same[0]
    options = ("hard", "soft", "softerr", "vers", "timeo", "retrans")
    told = first.mount.options
    shown = [f"{key}={told[key]}" if told[key] else key for key in options if key in told]
    facts: dict[str, Fact] = {
        "exports": _some(one.mount.export for one in same),
        "path": first.mount.paths[0],
        "look": first.look.detail or f"answered in {first.look.seconds:.2f} s",
        "options": ",".join(shown),
    }
    if first.call is not None:
        facts["server_call"] = _said(first.call)
    if first.traffic is not None:
        facts["requests_unanswered"] = first.traffic.unanswered
        facts["answers_during_look"] = first.traffic.received
    if (logged := answers.log.get(server_of(first.mount.source))) and not logged.is_well:
        ago = f", {logged.ago_s:.0f} s ago" if logged.ago_s is not None else ""
        facts["kernel"] = f"not responding{ago}"
    return {key: value for key, value in facts.items() if value != ""}


def _said(call: Answer) -> str:
    detail = f", {call.detail}" if call.detail else ""
    return f"{call.outcome.value} in {call.seconds:.2f} s{detail}"


def _processes(stuck: Sequence[Task]) -> dict[str, Fact]:
    if not stuck:
        return {}
    return {
        "processes_waiting": len(stuck),
        "processes": _some(
            f"{one.pid} {one.name}{f' in {one.wchan}' if one.wchan else ''}" for one in stuck
        ),
    }


def _names(waiting: Affected, cluster: Cluster) -> dict[str, Fact]:
    facts: dict[str, Fact] = {
        "databases": _some(map(str, waiting.databases)),
        "pods": _some(str(user) for user in waiting.users if not user.is_database),
        "pods_without_name": waiting.unnamed,
        "claims": _some(waiting.claims),
        "names_unknown": cluster.problem,
    }
    return {key: value for key, value in facts.items() if value}


def _unanswered(subject: str, server: Server, told: Sequence[str]) -> Finding:
    return _finding(
        "nfs.unknown",
        subject,
        Severity.WARNING,
        f"file server {server.name} did not answer, and nobody else could be asked: "
        + "; ".join(told),
        plan=Plan(steps=(f"on {server.name}: systemctl status nfs-server; opsd nodes check",)),
        facts={"asked_from": ", ".join(told)},
        steady_for=_TWO_LOOKS,
    )


def _unreadable(answers: Answers, verdicts: Sequence[Verdict]) -> list[str]:
    """What of a machine's mounts is not known, and why."""
    unknown = [one for one in verdicts if one.state is State.UNKNOWN]
    told = list(answers.unreadable)
    if unknown and not told:
        reasons = sorted({one.look.detail for one in unknown})
        count = f"{len(unknown)} of {len(verdicts)} mounts"
        told.append(f"{count} could not be looked at: {'; '.join(reasons)}")
    if any(one.look.sight is Sight.REFUSED for one in unknown):
        told.append("sudoers")
    return told


def _unknown(machine: Machine, unreadable: Sequence[str]) -> Finding:
    reasons = [one for one in unreadable if one != "sudoers"]
    fix = "opsd nodes check; docs/nodes.md"
    if "sudoers" in unreadable:
        fix = f"sudoers: opsd ALL=(root) NOPASSWD: {RIGHT} (docs/nodes.md)"
    return _finding(
        "nfs.unknown",
        f"{machine.subject}/nfs",
        Severity.WARNING,
        f"NFS on {machine.name} is not known: {'; '.join(reasons)}",
        plan=Plan(steps=(fix,)),
        facts={"reasons": "; ".join(reasons)},
        cause=machine.subject,
        steady_for=_LASTING,
    )


def _state(machine: Machine, answers: Answers, verdicts: Sequence[Verdict]) -> Finding:
    """The machine's line in the table of `opsd nodes`."""
    count = Counter(one.state for one in verdicts)
    words = ", ".join(f"{count[state]} {text}" for state, text in _WORDS.items() if count[state])
    slowest_s = max((one.look.seconds for one in verdicts), default=0.0)
    well = f"{len(verdicts)} mounts answer" if len(verdicts) > 1 else "its mount answers"
    said = "no NFS mounts" if not verdicts else words or well
    if answers.unreadable:
        said = "not known"
    return _finding(
        "nfs.state",
        machine.subject,
        Severity.INFO,
        said,
        plan=Plan(steps=()),
        facts={
            "mounts": len(verdicts),
            **{state.value: count[state] for state in _WORDS if count[state]},
            "slowest_s": round(slowest_s, 3),
            "servers": _some(sorted({one.mount.server for one in verdicts})),
        },
    )


def _subject(machine: Machine, server: str) -> str:
    return f"{machine.subject}/nfs/{printable(server)}"


def _some(names: Iterable[str]) -> str:
    """The first few of them."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - _MOST_NAMES} more" if len(every) > _MOST_NAMES else ""
    return ", ".join(every[:_MOST_NAMES]) + more


def _is_plural(waiting: Affected) -> bool:
    return len(waiting.users) + waiting.unnamed > 1


def _finding(
    check: str,
    subject: str,
    severity: Severity,
    summary: str,
    *,
    plan: Plan,
    facts: Mapping[str, Fact],
    cause: str = "",
    steady_for: timedelta = timedelta(0),
) -> Finding:
    steps = {f"step_{number}": step for number, step in enumerate(plan.steps[1:], 2)}
    more = f"; then {PAGE}" if len(plan.steps) > 1 else ""
    never: dict[str, Fact] = {"never": plan.never} if plan.never else {}
    return Finding(
        check=check,
        subject=subject,
        severity=severity,
        summary=shortened(printable(summary), SUMMARY_CHARACTERS),
        remedy=printable(plan.steps[0]) + more if plan.steps else "",
        facts={
            key: printable(value) if isinstance(value, str) else value
            for key, value in {**facts, **steps, **never}.items()
        },
        cause=cause,
        steady_for=steady_for,
    )
