"""What opsd asks for as root, command by command: the lines that docs/nodes.md gives for sudo.

Everything else is read without any right. A right that is missing costs only what it is for.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from opsd.hosts.health import disks, kernellog
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


_KUBE = "/etc/kubernetes"
_KUBELET = "/var/lib/kubelet"
_CONFS = ("admin", "super-admin", "controller-manager", "scheduler", "kubelet")
_FOLDERS = f"etc/kubernetes etc/systemd/system/kubelet.service.d {_KUBELET[1:]}/pki"
_NODES = frozenset({Role.NODE})
_CONTROL_PLANES = frozenset({Role.CONTROL_PLANE})
_NFS_SERVERS = frozenset({Role.NFS_SERVER})

RIGHTS: tuple[Right, ...] = (
    Right(
        command=reboot.ROOT,
        purpose="which services still run code that an update replaced; it restarts nothing",
    ),
    Right(command=unattended.ROOT, purpose="whether the last unattended upgrade failed"),
    Right(command=rpm.DNF_CHECK, purpose="which updates wait (Fedora, RHEL and its rebuilds)"),
    Right(command=rpm.DNF_LIST, purpose="which of these are security fixes (likewise)"),
    Right(command=kernellog.ROOT, purpose="what the kernel complained about"),
    Right(command=disks.ROOT, purpose="which disk is about to die"),
    Right(command=disks.ROOT.replace("/dev/", "-d sat /dev/"), purpose="the same of disks on USB"),
    Right(
        command=f"timeout -s KILL 5 stat -f -c %T -- {_KUBELET}/pods/uid/volumes/kind/name",
        purpose="whether the NFS mounts of pods hang",
        roles=_NODES,
    ),
    Right(
        command=f"grep -s . {_KUBELET}/config.yaml {_KUBELET}/kubeadm-flags.env"
        f" {_KUBELET}/instance-config.yaml",
        purpose="which settings of the kubelet an upgrade refuses",
        roles=_NODES,
    ),
    Right(
        command=f"sed -n '/BEGIN.CERT/,/END.CERT/p' {_KUBELET}/pki/kubelet-client-current.pem",
        purpose="until when the kubelet's certificate is good",
        roles=_NODES,
    ),
    Right(
        command="grep -s client-certificate " + " ".join(f"{_KUBE}/{one}.conf" for one in _CONFS),
        purpose="until when the logins of the control plane are good",
        roles=_NODES,
    ),
    Right(
        command="crictl images -o json", purpose="which images lie ready", roles=_CONTROL_PLANES
    ),
    Right(
        command=f"grep -r . {_KUBE}/manifests",
        purpose="which flags of the control plane an upgrade refuses",
        roles=_CONTROL_PLANES,
    ),
    Right(
        command="du -sxk /var/lib/etcd /etc/kubernetes/tmp",
        purpose="whether there is room for an upgrade",
        roles=_CONTROL_PLANES,
    ),
    Right(
        command=f"find {_FOLDERS} -size -513 ! -type d ! -path 'etc/kubernetes/tmp/*'",
        purpose="the files of etcd-backup besides the snapshot",
        roles=_CONTROL_PLANES,
    ),
    Right(
        command="tar -cf - -T -",
        purpose="the same; it reads every file, as the backup's keys would let anybody do",
        roles=_CONTROL_PLANES,
    ),
    Right(
        command="find /proc/fs/nfsd/clients -name info -exec cat {} +",
        purpose="when a lost node last wrote to the file server",
        roles=_NFS_SERVERS,
    ),
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
