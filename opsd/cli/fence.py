"""`opsd fence`: say that a lost node is off, see what opsd does about nodes, ask for one back.

What is said is written on the Node object, where every opsd and kubectl sees it; the job
node-remedy acts on it at its next run.

Limits: a person is believed. Whoever may annotate nodes may also say that one is off.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from opsd.cli.calling import LazyGroup, load_config, log_as, wants_json
from opsd.cli.expiry import for_option, reason_option, required, until_text
from opsd.cli.render import Screen, Tone, print_json
from opsd.clock import Deadline, SystemClock
from opsd.errors import PermanentError

if TYPE_CHECKING:
    from opsd.cli.wiring import Wiring
    from opsd.clients.kube.client import Kube
    from opsd.clients.kube.objects import Node
    from opsd.cluster.remedy.nfsfence import List
    from opsd.cluster.remedy.record import Record

CALL_S = 30.0  # all questions of one command together
READY = "True"


@click.group(cls=LazyGroup, name="fence")
def fence() -> None:
    """Say that a lost node is off; see and undo what opsd did about nodes."""


@fence.command()
@click.argument("node")
@for_option("confirm")
@reason_option("confirm")
def confirm(node: str, span: timedelta | None, reason: str) -> None:
    """Say that NODE is off, and stays off for a while: nothing on it runs or writes.

    Then node-remedy may move what is allowed from it. It counts until NODE is heard of again.
    """
    from opsd.cluster.nodeloss.reading import ready_of  # noqa: PLC0415 - not for --help
    from opsd.cluster.remedy.record import (  # noqa: PLC0415 - likewise
        CONFIRMED,
        Confirmation,
        written,
    )

    example = f'opsd fence confirm {node} --for 2h --reason "unplugged"'
    length = required(span, reason, example=example)
    wiring, kube = _wired()
    seen = _node(kube, node)
    if ready_of(seen) == READY:
        raise PermanentError(
            f"confirm that {node} is off: it is ready; look again: is it this one?"
        )
    now = kube.server_time()
    confirmation = Confirmation(
        by=_person(),
        reason=reason,
        at=now,
        until=now + length,
        node_uid=seen.uid,
        boot_id=seen.status.node_info.boot_id,
        lease=_lease(kube, node),
    )
    changed = kube.patch_merge(
        seen, {"metadata": {"annotations": {CONFIRMED: written(confirmation)}}}
    )
    if wants_json():
        print_json({"nodes": list(_as_json([changed]))})
        return
    until = until_text(confirmation.until, now, wiring.config.timezone)
    screen = Screen()
    screen.line(f"{node} counts as off until {until}, or until it is heard of again.")
    screen.line("Do not turn it on before its pods run elsewhere: opsd fence list", Tone.WARNING)


@fence.command(name="list")
def list_() -> None:
    """List the nodes that somebody confirmed to be off, or that opsd does something about.

    File servers that are fences are asked whom they keep out.
    """
    from opsd.clients.kube.objects import Node  # noqa: PLC0415 - not for --help

    wiring, kube = _wired()
    nodes = [node for node in kube.list(Node) if _is_marked(node)]
    asked = list(_lists(wiring))
    if wants_json():
        servers = [
            {
                "server": one.server,
                "keeps_out": {node: sorted(own) for node, own in one.nodes.items()},
                "problem": one.problem,
            }
            for one in asked
        ]
        print_json({"nodes": list(_as_json(nodes)), "file_servers": servers})
        return
    screen, now = Screen(), kube.server_time()
    for node in nodes:
        for line in _lines(node, wiring, now):
            screen.line(line)
    if not nodes:
        screen.line("Nothing is under way, and no node is confirmed to be off.")
    for one in asked:
        for text, tone in _of_server(one, nodes):
            screen.line(text, tone)


@fence.command()
@click.argument("node")
@click.option("--reason", default="", metavar="TEXT", help="Why; needed.")
def lift(node: str, reason: str) -> None:
    """Take back what was said of NODE, and have opsd give it back even without a reboot.

    Only when nothing from before can write any more: a machine that was only cut off goes on
    where it stopped, and may write over what was written since.
    """
    from opsd.cluster.remedy.record import (  # noqa: PLC0415 - not for --help
        CONFIRMED,
        LIFT,
        LiftWish,
        read,
        written,
    )

    if not reason.strip():
        raise click.UsageError(
            f'--reason is missing, for instance: opsd fence lift {node} --reason "disk removed"'
        )
    _, kube = _wired()
    seen = _node(kube, node)
    record = read(seen)
    if not _is_marked(seen):
        raise PermanentError(f"lift the fence of {node}: nothing is under way there")
    annotations: dict[str, str | None] = {CONFIRMED: None}
    if record.plan is not None:
        wish = LiftWish(by=_person(), reason=reason, at=kube.server_time())
        annotations[LIFT] = written(wish)
    changed = kube.patch_merge(seen, {"metadata": {"annotations": annotations}}, unchanged=True)
    if wants_json():
        print_json({"nodes": list(_as_json([changed]))})
    elif record.plan is None:
        Screen().line(f"{node} does not count as off any more.")
    else:
        Screen().line(f"node-remedy gives {node} back at its next run, once it is ready again.")


def _lists(wiring: Wiring) -> Iterator[List]:
    """What the file servers say of themselves."""
    from opsd.cluster.remedy.nfsfence import lists  # noqa: PLC0415 - not for --help
    from opsd.cluster.remedy.settings import RemedySettings  # noqa: PLC0415 - likewise

    for entry in wiring.config.jobs.values():
        if isinstance(entry.settings, RemedySettings):
            deadline = Deadline.after(CALL_S, wiring.clock)
            yield from lists(entry.settings.fences, wiring.fleet(deadline).until, deadline)


def _of_server(one: List, nodes: list[Node]) -> Iterator[tuple[str, Tone]]:
    """Whom it keeps out, and whether that is what is written."""
    from opsd.cluster.remedy.record import read  # noqa: PLC0415 - not for --help

    if one.problem:
        yield f"{one.server} cannot be asked whom it keeps out: {one.problem}", Tone.WARNING
    recorded = {node.name for node in nodes if (plan := read(node).plan) and plan.fence}
    for node, addresses in sorted(one.nodes.items()):
        told = f"{one.server} keeps out {node} ({', '.join(sorted(addresses))})"
        if node in recorded:
            yield f"{told}.", Tone.PLAIN
        else:
            lift = f"ssh {one.server} sudo opsd-fence lift {node}"
            yield f"{told}, and nothing is recorded about it; if it is well: {lift}", Tone.WARNING


def _wired() -> tuple[Wiring, Kube]:
    from opsd.cli.wiring import Wiring  # noqa: PLC0415 - not for --help

    config = load_config()
    log_as(config, quiet_on_terminal=True)
    wiring = Wiring(config, SystemClock())
    return wiring, wiring.kube(Deadline.after(CALL_S, wiring.clock))


def _node(kube: Kube, name: str) -> Node:
    from opsd.clients.kube.objects import Node  # noqa: PLC0415 - not for --help

    found = kube.find(Node, name)
    if found is None:
        known = ", ".join(one.name for one in kube.list(Node))
        raise PermanentError(f"there is no node {name}; there are: {known}")
    return found


def _lease(kube: Kube, node: str) -> str:
    from opsd.clients.kube.objects import Lease  # noqa: PLC0415 - not for --help
    from opsd.cluster.nodeloss.reading import version_of  # noqa: PLC0415 - likewise
    from opsd.cluster.nodeloss.survey import LEASES  # noqa: PLC0415 - likewise

    found = kube.find(Lease, node, namespace=LEASES)
    return version_of(found) if found else ""


def _person() -> str:
    """Who says so, as the operating system knows him."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def _is_marked(node: Node) -> bool:
    from opsd.cluster.remedy.record import CONFIRMED, PLAN  # noqa: PLC0415 - not for --help

    return bool({CONFIRMED, PLAN} & set(node.annotations))


def _as_json(nodes: list[Node]) -> Iterator[Mapping[str, Any]]:
    from opsd.cluster.remedy.record import read  # noqa: PLC0415 - not for --help

    for node in nodes:
        record = read(node)
        yield {
            "node": node.name,
            "confirmed": _confirmation_json(record),
            "plan": _plan_json(record),
            "unreadable": list(record.unreadable),
        }


def _confirmation_json(record: Record) -> Mapping[str, Any] | None:
    one = record.confirmation
    if one is None:
        return None
    return {"by": one.by, "reason": one.reason, "at": one.at, "until": one.until}


def _plan_json(record: Record) -> Mapping[str, Any] | None:
    plan = record.plan
    if plan is None:
        return None
    return {
        "phase": plan.phase.value,
        "proof": plan.proof.name.lower(),
        "fence": plan.fence,
        "began_at": plan.began_at,
        "means": plan.means.value,
        "pods": [pod.place for pod in plan.pods],
        "run_id": plan.run_id,
        "lift": record.lift.reason if record.lift else "",
    }


def _lines(node: Node, wiring: Wiring, now: datetime) -> Iterator[str]:
    from opsd.cluster.remedy.record import read  # noqa: PLC0415 - not for --help

    record = read(node)
    if one := record.confirmation:
        until = until_text(one.until, now, wiring.config.timezone)
        yield f"{node.name} is off until {until}, says {one.by}: {one.reason}"
    if plan := record.plan:
        pods = ", ".join(pod.place for pod in plan.pods) or "nothing yet"
        proof = plan.proof.name.lower().replace("_", " ")
        by = f" by {plan.fence}" if plan.fence else ""
        yield f"{node.name} is {plan.phase.value}{by}; proof: {proof}; pods: {pods}"
    for key in record.unreadable:
        yield f"{node.name}: {key} cannot be read, so nothing is done about this node"
