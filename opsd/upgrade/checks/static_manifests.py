"""Are the static pods of the control plane all there, and are they as kubeadm wrote them?

kubeadm writes these files anew with every upgrade. What somebody changed by hand is lost then,
unless it is in kubeadm's own configuration too; and a copy that was left in the folder is a
second pod.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from opsd.hosts import yamltext
from opsd.hosts.kubeadm import manifests
from opsd.hosts.kubeadm.manifests import StaticPod
from opsd.upgrade.answers import partly_understood
from opsd.upgrade.check import (
    Check,
    Hop,
    Note,
    Scope,
    each,
    failed,
    passed,
    skipped,
    unknown,
    warned,
)
from opsd.upgrade.components import (
    APISERVER,
    CONTROLLER_MANAGER,
    ETCD,
    SCHEDULER,
    flags_of,
    found_components,
)
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.rendered import is_own
from opsd.upgrade.version import Minor

_WANTED = (APISERVER, CONTROLLER_MANAGER, SCHEDULER)
_ETCD_CLIENT = "etcd-servers"
_LOCAL = "https://127.0.0.1:2379"  # with which kubeadm's API server reaches its own etcd
_SECTIONS = {
    APISERVER: ("apiServer",),
    CONTROLLER_MANAGER: ("controllerManager",),
    SCHEDULER: ("scheduler",),
    ETCD: ("etcd", "local"),
}
_REFERENCES_REFUSED = Minor(1, 34)


def _pods(machine: MachineFacts) -> tuple[StaticPod, ...]:
    return partly_understood(machine, manifests.PROBE, manifests.read)


def _judge(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        pods = _pods(machine)
        yield from _broken(machine, pods)
        yield from _missing(machine, pods)
        yield from _not_in_use(machine, pods, facts)
        yield passed(f"{machine.name}: {manifests.FOLDER}", f"{len(pods)} static pods")

    yield from each(facts.control_plane, judge)


def _broken(machine: MachineFacts, pods: Sequence[StaticPod]) -> Iterator[Note]:
    names = Counter(pod.name for pod in pods if pod.name)
    for pod in pods:
        where = f"{machine.name}: {pod.path}"
        if pod.problem:
            yield failed(where, pod.problem)
        elif names[pod.name] > 1:
            value = f"one of {names[pod.name]} files for the pod {pod.name}; the kubelet reads all"
            yield failed(where, value, fix=f"move copies out of {manifests.FOLDER}")


def _missing(machine: MachineFacts, pods: Sequence[StaticPod]) -> Iterator[Note]:
    found = {pod.component: pod for pod in pods}
    wanted = list(_WANTED)
    api = found.get(APISERVER)
    if api and flags_of(api.words).get(_ETCD_CLIENT, "").startswith(_LOCAL):
        wanted.append(ETCD)
    for component in wanted:
        if component not in found:
            yield failed(f"{machine.name}: {manifests.FOLDER}/{component}.yaml", "it is missing")


def _not_in_use(machine: MachineFacts, pods: Sequence[StaticPod], facts: Facts) -> Iterator[Note]:
    """The pod that runs is not the one in the file: the kubelet did not, or could not, follow."""
    for pod in pods:
        running = {one.node: one for one in found_components(facts, pod.component)}
        mirror = running.get(machine.name) if pod.component else None
        where = f"{machine.name}: {pod.path}"
        if mirror is None:
            if pod.component in _SECTIONS:
                yield failed(where, f"the cluster has no such pod on {machine.name}")
            continue
        if pod.image != mirror.image:
            yield failed(where, f"the file says {pod.image}, and {mirror.image} runs")
        changed = _differing(flags_of(pod.words), mirror.flags)
        if changed:
            value = f"the pod that runs has other flags: {', '.join(changed)}"
            yield failed(where, value, fix="systemctl restart kubelet there, and look at its log")


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _judge_edits(facts: Facts, _hop: Hop) -> Iterator[Note]:
    config = _cluster_configuration(facts)

    def judge(machine: MachineFacts) -> Iterator[Note]:
        for pod in _pods(machine):
            if pod.component in _SECTIONS and not pod.problem:
                yield _edits(machine, pod, config)

    yield from each(facts.control_plane, judge)


def _edits(machine: MachineFacts, pod: StaticPod, config: Mapping[str, object]) -> Note:
    where = f"{machine.name}: {pod.path}"
    kept = _extra_args(config, _SECTIONS[pod.component])
    set_here = flags_of(pod.words)
    by_hand = sorted(
        name
        for name, value in set_here.items()
        if (name in kept and value not in kept[name])
        or (name not in kept and not is_own(pod.component, name, value))
    )
    gone = sorted(name for name in kept if name not in set_here)
    if not by_hand and not gone:
        return passed(where, "as kubeadm writes it")
    added = [f"--{name}={set_here[name]}" for name in by_hand]
    value = ", ".join([*added, *(f"no --{name}" for name in gone)])
    fix = (
        f"put it into {'.'.join(_SECTIONS[pod.component])}.extraArgs: kubectl -n kube-system edit "
        "configmap kubeadm-config"
    )
    return warned(
        where, f"not in kubeadm's configuration, so the upgrade undoes it: {value}", fix=fix
    )


def _cluster_configuration(facts: Facts) -> dict[str, object]:
    where = "configmap kube-system/kubeadm-config"
    found = facts.config_maps.value.get("kubeadm-config")
    if found is None:
        raise Unreadable(where, "it is not there")
    try:
        return yamltext.mapping(found.data.get("ClusterConfiguration", ""))
    except ValueError as exc:
        raise Unreadable(where, f"ClusterConfiguration: {exc}") from exc


def _extra_args(config: Mapping[str, object], path: Sequence[str]) -> dict[str, set[str]]:
    """Both ways to write them: a mapping until v1beta3, since then a list of name and value."""
    section: object = config
    for name in path:
        section = yamltext.inner(section, name)
    extra = section.get("extraArgs") if isinstance(section, dict) else None
    if isinstance(extra, dict):
        return {str(name): {str(value)} for name, value in extra.items()}
    values: dict[str, set[str]] = {}
    for entry in extra if isinstance(extra, list) else ():
        if isinstance(entry, dict):
            values.setdefault(str(entry.get("name")), set()).add(str(entry.get("value", "")))
    return values


def _judge_references(facts: Facts, hop: Hop) -> Iterator[Note]:
    if hop.target < _REFERENCES_REFUSED:
        yield skipped("static pods", f"refused only from {_REFERENCES_REFUSED} on")
        return

    def judge(machine: MachineFacts) -> Iterator[Note]:
        pods = _pods(machine)
        if machine.is_control_plane and not pods:
            yield unknown(f"{machine.name}: {manifests.FOLDER}", "there is no static pod at all")
        for pod in pods:
            where = f"{machine.name}: {pod.path}"
            if pod.references:
                yield failed(where, f"it names {', '.join(pod.references)}")
            else:
                yield passed(where, "it names no object of the API")
        yield passed(f"{machine.name}: {manifests.FOLDER}", "read")

    yield from each(facts.machines.value, judge)


MANIFESTS = Check(
    id="static-manifests",
    title="The static pods are all there, and what runs is what the files say",
    row=32,
    judge=_judge,
    fix="kubeadm init phase control-plane all (or etcd local) writes them anew",
    source="kubeadm preflight: StaticPodManifest; kubernetes/kubernetes issue 118034",
    probes=(manifests.PROBE,),
)
EDITS = Check(
    id="static-manifest-edits",
    title="Nothing in the static pods would be undone by the upgrade",
    row=32,
    judge=_judge_edits,
    fix="put what was changed into kubeadm's configuration",
    source="kubeadm documentation: customizing components",
    probes=(manifests.PROBE,),
)
REFERENCES = Check(
    id="static-pod-references",
    title="No static pod names an object of the API",
    row=33,
    judge=_judge_references,
    fix="mount the content from the host instead, or run the pod by a DaemonSet",
    source="kubernetes/kubernetes PR 131837 and PR 140226",
    probes=(manifests.PROBE,),
    scope=Scope.HOP,
)
