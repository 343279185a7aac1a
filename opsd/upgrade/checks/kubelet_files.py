"""Would the kubelet of each node start again after the upgrade, with what is written there?

What kubeadm wrote is kept in order by kubeadm. What people wrote, to /etc/default/kubelet and into
drop-ins, is not: a flag or a gate that is gone keeps the kubelet, and with it the node, down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from opsd.hosts import yamltext
from opsd.hosts.kubeadm import kubelet, storage
from opsd.hosts.kubeadm.kubelet import CommandLine, KubeletFiles
from opsd.upgrade import gates, releases
from opsd.upgrade.answers import partly_understood, understood
from opsd.upgrade.check import Check, Hop, Note, Scope, each, failed, passed, unknown, warned
from opsd.upgrade.components import flags_of, gates_of
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Minor

_PROBES = (kubelet.FILES_PROBE, kubelet.UNIT_PROBE, kubelet.RUNNING_PROBE)
_CGROUP_V1_REFUSED = Minor(1, 35)
_CGROUP_V1_GONE = Minor(1, 38)
_CGROUPS = {"cgroup2fs": 2, "tmpfs": 1}  # type of the file system on /sys/fs/cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class _Set:
    """A feature gate or a flag, and who set it."""

    name: str
    value: str
    place: str


def _lines(machine: MachineFacts, files: KubeletFiles) -> tuple[CommandLine, ...]:
    unit = partly_understood(machine, kubelet.UNIT_PROBE, kubelet.read_unit)
    running = partly_understood(machine, kubelet.RUNNING_PROBE, kubelet.read_running)
    return tuple(one for one in (files.flags, *unit, running) if one is not None)


def _files(machine: MachineFacts) -> KubeletFiles:
    return partly_understood(machine, kubelet.FILES_PROBE, kubelet.read_files)


def _flags(machine: MachineFacts) -> Iterator[_Set]:
    for line in _lines(machine, _files(machine)):
        for name, value in flags_of(line.words).items():
            plain = name.replace("_", "-")  # the kubelet takes both
            yield _Set(name=plain, value=value, place=line.place)


def _gates(machine: MachineFacts) -> Iterator[_Set]:
    for gate, is_on in _files(machine).gates.items():
        yield _Set(name=gate, value=str(is_on).lower(), place=kubelet.CONFIG_FILE)
    for flag in _flags(machine):
        if flag.name == "feature-gates":
            for gate, is_on in gates_of(flag.value).items():
                yield _Set(name=gate, value=str(is_on).lower(), place=flag.place)


def _judge_gates(facts: Facts, hop: Hop) -> Iterator[Note]:
    table = gates.table()

    def judge(machine: MachineFacts) -> Iterator[Note]:
        found = tuple(_gates(machine))
        for one in found:
            where = f"{machine.name}: {one.place}"
            why = table.refusal(one.name, value=one.value == "true", target=hop.target)
            if why:
                fix = f"remove {one.name} from featureGates in {one.place} on {machine.name}"
                yield failed(where, f"{one.name}={one.value}: {why}", fix=fix)
            elif hop.target > table.newest:
                yield unknown(where, f"{one.name}: nothing is known of {hop.target}")
        yield passed(machine.name, f"{len(found)} feature gates are set")

    yield from each(facts.machines.value, judge)


def _judge_flags(facts: Facts, hop: Hop) -> Iterator[Note]:
    table = releases.table()
    if table.of(hop.target) is None:
        raise Unreadable("the table of releases", f"it knows nothing of {hop.target}")
    gone = {
        flag.name: (minor, flag.source)
        for minor, release in table.by_minor.items()
        if minor <= hop.target
        for flag in release.flags
        if flag.component == "kubelet"
    }

    def judge(machine: MachineFacts) -> Iterator[Note]:
        found = tuple(_flags(machine))
        for one in found:
            where = f"{machine.name}: {one.place}"
            if one.name in gone:
                minor, source = gone[one.name]
                fix = f"remove --{one.name} from {one.place} on {machine.name}"
                yield failed(where, f"--{one.name}: gone in {minor} ({source})", fix=fix)
            elif one.name == "config-dir":
                yield unknown(where, f"opsd does not read the drop-ins in {one.value}")
        yield passed(machine.name, f"{len(found)} flags are set")

    yield from each(facts.machines.value, judge)


def _judge_cgroup(facts: Facts, hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        where = f"{machine.name}: /sys/fs/cgroup"
        kind = understood(machine, storage.CGROUP_PROBE, str.strip)
        version = _CGROUPS.get(kind)
        if version is None:
            raise Unreadable(where, f"it is {kind or 'nothing'}, which is no cgroup")
        if version > 1:
            yield passed(where, "cgroup v2")
        elif hop.target < _CGROUP_V1_REFUSED:
            yield warned(where, f"cgroup v1, which {_CGROUP_V1_REFUSED} refuses")
        elif hop.target >= _CGROUP_V1_GONE:
            yield failed(where, f"cgroup v1, which may be gone from {_CGROUP_V1_GONE} on")
        elif _files(machine).config.get("failCgroupV1") is False:
            value = f"cgroup v1, allowed by failCgroupV1: false until {_CGROUP_V1_GONE}"
            yield warned(where, value)
        else:
            yield failed(where, f"cgroup v1, which the kubelet of {hop.target} refuses")

    yield from each(facts.machines.value, judge)


def _judge_swap(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        swaps = understood(machine, storage.SWAP_PROBE, storage.read_swaps)
        where = f"{machine.name}: /proc/swaps"
        if not swaps:
            yield passed(where, "no swap")
            return
        config = _files(machine).config
        named = ", ".join(f"{swap.device} {swap.size_bytes >> 20} MiB" for swap in swaps)
        if config.get("failSwapOn", True) is not False:
            fix = f"on {machine.name}: swapoff -a, and take it out of /etc/fstab or disable zram"
            yield failed(where, f"{named}, and the kubelet does not start with swap", fix=fix)
        else:
            behaviour = yamltext.inner(config, "memorySwap").get("swapBehavior", "NoSwap")
            yield passed(where, f"{named}, as failSwapOn: false allows ({behaviour})")

    yield from each(facts.machines.value, judge)


KUBELET_GATES = Check(
    id="kubelet-gates",
    title="No node sets a feature gate that its next kubelet refuses",
    row=13,
    judge=_judge_gates,
    fix="remove the gate where it is set, before the kubelet is upgraded",
    source="kubernetes/kubernetes issue 100988; the programs of both releases",
    probes=_PROBES,
    scope=Scope.HOP,
)
KUBELET_FLAGS = Check(
    id="kubelet-flags",
    title="No node gives its kubelet a flag that is gone",
    row=14,
    judge=_judge_flags,
    fix="remove the flag where it is set, before the kubelet is upgraded",
    source="release notes; kubernetes/kubeadm issue 3281",
    probes=_PROBES,
    scope=Scope.HOP,
)
CGROUP = Check(
    id="cgroup-version",
    title="Nodes use cgroup v2",
    row=15,
    judge=_judge_cgroup,
    fix="boot the node with cgroup v2: remove systemd.unified_cgroup_hierarchy=0 from the "
    "kernel's command line, or upgrade its system",
    source="kubernetes/kubernetes PR 134298; KEP-5573",
    probes=(storage.CGROUP_PROBE, kubelet.FILES_PROBE),
    scope=Scope.HOP,
)
SWAP = Check(
    id="swap",
    title="The kubelet will start with the swap that there is",
    row=37,
    judge=_judge_swap,
    fix="swapoff -a, and take it out of /etc/fstab",
    source="kubeadm documentation: before you begin",
    probes=(storage.SWAP_PROBE, kubelet.FILES_PROBE),
)
