"""What opsd asks for as root, command by command: the lines that docs/nodes.md gives for sudo.

Everything else is read without any right. A right that is missing costs only what it is for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from opsd.hosts.machine import Machine, Role
from opsd.hosts.packages import reboot, rpm, unattended
from opsd.hosts.script import Probe, Section

NAME = "rights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One command that only root may run."""

    command: str  #: an example of it, in words of the shell, the program without its path
    purpose: str  #: what is not known without it
    roles: frozenset[Role] = frozenset()  #: needed on machines with one of them; empty: on all

    def is_needed(self, machine: Machine) -> bool:
        """Whether opsd asks for it there."""
        return not self.roles or bool(self.roles & machine.roles)


RIGHTS: tuple[Right, ...] = (
    Right(
        command=reboot.ROOT,
        purpose="which services still run code that an update replaced; it restarts nothing",
    ),
    Right(command=unattended.ROOT, purpose="whether the last unattended upgrade failed"),
    Right(command=rpm.DNF_CHECK, purpose="which updates wait (Fedora, RHEL and its rebuilds)"),
    Right(command=rpm.DNF_LIST, purpose="which of these are security fixes (likewise)"),
)


def needed(machine: Machine) -> tuple[Right, ...]:
    """What opsd runs as root on a machine."""
    return tuple(right for right in RIGHTS if right.is_needed(machine))


def probe(rights: Iterable[Right]) -> Probe:
    """Ask sudo about each of them; nothing is run but ``sudo -l``.

    A line for each: ``allowed``, ``refused``, or ``absent`` when there is no such program.
    """
    lines = [f"ask {shlex.quote(right.command)} {right.command}" for right in rights]
    command = "\n".join((_ASK, *lines))
    return Probe(name=NAME, command=command)


_ASK = """\
ask() {
what=$1 program=$2
shift
if ! command -v "$program" >/dev/null 2>&1; then say=absent
elif [ "$(id -u)" = 0 ]; then say=allowed
elif sudo -n -l -- "$@" >/dev/null 2>&1; then say=allowed
else say=refused
fi
echo "$say $what"
}"""


def read(section: Section, rights: Iterable[Right]) -> tuple[list[Right], list[Right]]:
    """The rights that are there, and those that are not; programs that are absent need none."""
    said = dict(line.split(" ", 1)[::-1] for line in section.stdout.splitlines() if " " in line)
    allowed = [right for right in rights if said.get(right.command) == "allowed"]
    refused = [right for right in rights if said.get(right.command) == "refused"]
    return allowed, refused
