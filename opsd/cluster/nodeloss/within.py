"""What runs on this machine, and is it the node that we think it is? Said by the machine. Pure.

A pod runs there as long as any process is in its control group, which needs neither root nor a
runtime that answers. What could not be told is None or empty, and never "nothing runs".

Limits: Linux with /proc. The state of the kubelet is told of systemd's unit ``kubelet`` only. On a
machine that hides other users' processes (hidepid) nothing is told of pods.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from opsd.cluster.nodeloss.facts import Inside, Means, Node, Sighting
from opsd.hosts.fleet import Visit
from opsd.hosts.script import Probe, Section

PROBE_S = 2.0
VANTAGE = "opsd"  # the look is ours, through the machine's own sshd
IDENTITY, BOOT, KUBELET, PODS = "identity", "boot-id", "kubelet", "pods"
ACTIVE = "active"  # state of the kubelet's unit
LOADED = "loaded"
_WALKED = "walked"  # the last line of a walk that saw all processes

PROBES = (
    Probe(
        name=IDENTITY,
        command="""\
printf 'machine-id %s\\n' "$(cat /etc/machine-id 2>/dev/null)"
printf 'host %s\\n' "$(uname -n)"
ip -o addr show | while read -r _ _ _ address _; do printf 'address %s\\n' "$address"; done""",
        within_s=PROBE_S,
    ),
    Probe(name=BOOT, command="cat /proc/sys/kernel/random/boot_id", within_s=PROBE_S),
    Probe(
        name=KUBELET,
        command="""\
[ -r /proc/1/comm ] || exit 3
if grep -qsx kubelet /proc/[0-9]*/comm; then echo process; fi
if command -v systemctl >/dev/null 2>&1; then
systemctl show kubelet.service --property=LoadState --property=ActiveState
fi""",
        within_s=PROBE_S,
    ),
    Probe(
        name=PODS,
        command=f"""\
[ -r /proc/1/cgroup ] || exit 3
for tree in /sys/fs/cgroup/kubepods* /sys/fs/cgroup/*/kubepods*; do
if [ -d "$tree" ]; then echo tree; break; fi
done
grep -hs kubepods /proc/[0-9]*/cgroup | sort -u
echo {_WALKED}""",
        within_s=PROBE_S,
    ),
)

_POD = re.compile(r"(?:[^/]*-)?pod([0-9a-f][0-9a-f_-]{7,})(?:\.slice)?(?::.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """By what a machine is told from others."""

    machine_id: str = ""
    host: str = ""
    addresses: frozenset[str] = frozenset()

    def is_of(self, node: Node) -> bool:
        """Whether it is this node's machine, by its id and one thing more.

        Machines that were set up from one image share their id; a configured address may be
        another machine's.
        """
        has_name = self.host.partition(".")[0].lower() == node.name.partition(".")[0].lower()
        has_address = bool(node.address) and _plain(node.address) in self.addresses
        if node.machine_id:
            return self.machine_id == node.machine_id and (has_name or has_address)
        return has_name and has_address


def sighting_of(visit: Visit, node: Node) -> Sighting:
    """What a visit to the machine of a node shows; only an `Inside` proves anything."""
    sections = visit.sections
    boot = _line(sections.get(BOOT))
    if not boot:
        return Sighting(vantage=VANTAGE, means=Means.SSH, alive=False, detail=_why(visit))
    if not (identity := read_identity(sections.get(IDENTITY))).is_of(node):
        detail = f"another machine answers there: {identity.host or 'it does not say its name'}"
        return Sighting(vantage=VANTAGE, means=Means.SSH, alive=False, detail=detail)
    kubelet, running = read_kubelet(sections.get(KUBELET)), read_pods(sections.get(PODS))
    pods = "its pods could not be told" if running is None else _count(len(running))
    return Inside(
        vantage=VANTAGE,
        means=Means.SSH,
        alive=True,
        detail=f"kubelet {kubelet or 'unknown'}, {pods}",
        boot_id=boot,
        kubelet=kubelet,
        running=running,
    )


def read_identity(section: Section | None) -> Identity:
    """Who it is; empty where that was not said."""
    said: dict[str, list[str]] = {}
    for line in section.stdout.splitlines() if section else ():
        word, _, value = line.partition(" ")
        said.setdefault(word, []).append(value.strip())
    return Identity(
        machine_id=next(iter(said.get("machine-id", ())), ""),
        host=next(iter(said.get("host", ())), ""),
        addresses=frozenset(_plain(one.partition("/")[0]) for one in said.get("address", ())),
    )


def read_kubelet(section: Section | None) -> str:
    """State of its unit; `ACTIVE` while its process runs, however it was started."""
    if section is None or not section.is_ok:
        return ""
    lines = section.stdout.split()
    if "process" in lines:
        return ACTIVE
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("ActiveState", "") if values.get("LoadState") == LOADED else ""


def read_pods(section: Section | None) -> frozenset[str] | None:
    """UIDs of the pods that have a process; None when that cannot be told."""
    lines = section.stdout.split("\n") if section and section.is_ok else []
    lines = [line for line in lines if line]
    if not lines or lines[-1] != _WALKED or "tree" not in lines:
        return None  # without a tree for pods they are somewhere else
    groups = [line for line in lines if "kubepods" in line]
    uids = [_uid_in(line) for line in groups]
    return frozenset(uids) if all(uids) else None


def _uid_in(line: str) -> str:
    """``0::/kubepods.slice/kubepods-pod0a1b_2c.slice/x.scope`` is of ``0a1b-2c``."""
    for part in line.split(":", 2)[-1].split("/"):
        if found := _POD.fullmatch(part):
            return found[1].replace("_", "-")
    return ""


def _line(section: Section | None) -> str:
    return section.stdout.strip() if section and section.is_ok else ""


def _count(pods: int) -> str:
    return "1 pod runs" if pods == 1 else f"{pods} pods run"


def _why(visit: Visit) -> str:
    return str(visit.problem) if visit.problem else "it did not say which boot this is"


def _plain(address: str) -> str:
    """One way of writing it."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
