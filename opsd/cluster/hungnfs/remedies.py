"""What helps a mount that hangs, short of a reboot, in the order in which to try it. Pure.

The order matters: each step is worse than the one before, and most end with the first. What
must not be done is said too, because it is what people find when they search for help.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from opsd.cluster.hungnfs.affected import Affected
from opsd.hosts.health.mounted import unescaped
from opsd.hosts.nfs.answers import Task
from opsd.hosts.nfs.judging import State, Verdict
from opsd.hosts.nfs.mounts import Mount

PAGE = "docs/hung-nfs.md"
_MOST_PIDS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do about mounts of one server on one machine."""

    steps: tuple[str, ...]  #: commands and short sentences, the first first
    never: str = ""  #: what would do harm here


def for_server(server: str) -> Plan:
    """A server that answers nobody: everything else waits for it."""
    return Plan(
        steps=(
            f"on {server}: systemctl status nfs-server; disks; network; restart no pod meanwhile",
            "hard mounts go on by themselves as soon as it answers",
        ),
        never="restart pods or nodes meanwhile: they would hang in unmounting",
    )


def for_machine(
    state: State, verdicts: Sequence[Verdict], affected: Affected, tasks: Sequence[Task]
) -> Plan:
    """Mounts of one server on one machine that share a state.

    Args:
        state: not OK.
        verdicts: of these mounts, at least one.
        affected: who is on them.
        tasks: processes of the machine that cannot be interrupted.
    """
    machine, mount = verdicts[0].machine, verdicts[0].mount
    match state:
        case State.SERVER_DOWN:
            return Plan(
                steps=(f"bring {mount.server} back; hard mounts go on by themselves then",)
            )
        case State.PATH_BROKEN:
            return Plan(steps=_to_the_server(machine, mount), never=_never(affected, mount, tasks))
        case State.STALE:
            return Plan(steps=_anew(machine, mount, affected))
        case State.ERRORS:
            return Plan(steps=_after_errors(machine, mount, affected))
        case State.HUNG:
            steps = _freeing(machine, mount, affected, tasks)
            return Plan(steps=steps, never=_never(affected, mount, tasks))
    return Plan(steps=(f"on {mount.server}: uptime; iostat -x 5 2; ip -s link",))


def _to_the_server(machine: str, mount: Mount) -> tuple[str, ...]:
    return (
        f"on {machine}: ip route get {mount.address}; ping -c 3 {mount.address}; cable and switch",
        f"on {mount.server} and between: the firewall, TCP port {mount.port} from {machine}",
    )


def _anew(machine: str, mount: Mount, affected: Affected) -> tuple[str, ...]:
    """Mount it again: a pod's mounts are made when the pod is."""
    if affected.staying or affected.unnamed:
        return (
            _delete(machine, affected),
            f"if it comes back stale: does {mount.export} exist on {mount.server}? exportfs -v",
        )
    return tuple(f"on {machine}: {step}" for step in (_umount("-f", mount), _umount("-l", mount)))


def _after_errors(machine: str, mount: Mount, affected: Affected) -> tuple[str, ...]:
    steps = [f"on {machine}: dmesg | grep -i nfs | tail"]
    if mount.is_soft:
        steps.append("hard instead of soft in mountOptions of the class and the volume; new pods")
    if affected.databases:
        steps.append(f"check {affected.databases[0]} for damage: a write may have got lost")
    return tuple(steps)


def _freeing(
    machine: str, mount: Mount, affected: Affected, tasks: Sequence[Task]
) -> tuple[str, ...]:
    steps: list[str] = []
    if affected.staying or affected.unnamed:
        steps.append("wait two minutes: a hard mount goes on by itself when its server does")
        steps.append(_delete(machine, affected))
    steps.append(f"on {machine}, when its pods are leaving: {_umount('-f', mount)}")
    steps.append(f"on {machine}: {_umount('-l', mount)}")
    steps.append(f"on {machine}: sudo systemctl restart kubelet")
    if pids := _pids(tasks):
        steps.append(f"on {machine}, of pods that are leaving only: sudo kill -9 {pids}")
    steps.append(f"on {machine}, as a shutdown would hang: echo b | sudo tee /proc/sysrq-trigger")
    return tuple(steps)


def _delete(machine: str, affected: Affected) -> str:
    if not affected.staying:
        pods = f"kubectl get pods -A --field-selector spec.nodeName={machine}"
        return f"find who is on it ({pods}), and delete these pods"
    user, more = affected.staying[0], len(affected.staying) - 1 + affected.unnamed
    others = f"; and {more} more" if more else ""
    return f"kubectl -n {user.namespace} delete pod {user.name} --wait=false{others}"


def _umount(how: str, mount: Mount) -> str:
    return f"sudo umount {how} {shlex.quote(unescaped(mount.paths[0]))}"


def _never(affected: Affected, mount: Mount, tasks: Sequence[Task]) -> str:
    running = [user for user in affected.databases if not user.is_leaving]
    if running:
        return f"{_umount('-f', mount)} while {running[0]} runs: its writes end in errors"
    if affected.unnamed:
        return f"{_umount('-f', mount)} while a database on it runs: its writes end in errors"
    if pids := _pids(tasks):
        return f"umount -l, and its pods elsewhere, while processes wait to write: {pids}"
    return ""


def _pids(tasks: Sequence[Task]) -> str:
    return " ".join(str(task.pid) for task in tasks[:_MOST_PIDS])
