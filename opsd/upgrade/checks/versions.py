"""Are the parts of the cluster close enough together, and still looked after?

Source: kubernetes.io, Version Skew Policy and Upgrading kubeadm clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from opsd.clients.kube.objects import Node, Pod
from opsd.hosts import lifetimes
from opsd.upgrade import releases
from opsd.upgrade.check import Check, Hop, Note, Scope, each, failed, passed, unknown, warned
from opsd.upgrade.components import (
    APISERVER,
    CONTROLLER_MANAGER,
    SCHEDULER,
    SYSTEM,
    Component,
    components,
)
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Minor, Version

SKEW = "kubernetes.io, Version Skew Policy"
KUBELET_MINORS = 3  # that a kubelet may be behind the API server
CONTROLLER_MINORS = 1
SUPPORT_ENDS_SOON = timedelta(days=60)


def _patch_level(facts: Facts, _: Hop) -> Iterator[Note]:
    known = releases.table().of(facts.server.minor)
    newest = known.newest if known else None
    where = "API server"
    if newest is None:
        yield unknown(where, f"opsd does not know the newest patch of {facts.server.minor}")
    elif facts.server < newest:
        yield warned(where, f"{facts.server}; {newest} or newer is out")
    else:
        yield passed(where, f"{facts.server}, not older than the newest that opsd knows")


def _kubelets(facts: Facts, hop: Hop) -> Iterator[Note]:
    def judge(node: Node) -> Iterator[Note]:
        version = _version(node.status.node_info.kubelet_version, f"kubelet on {node.name}")
        yield _skew(f"kubelet on {node.name}", version, facts, hop)

    yield from each(facts.nodes.value, judge)


def _proxies(facts: Facts, hop: Hop) -> Iterator[Note]:
    pods = [pod for pod in _system(facts) if pod.labels.get("k8s-app") == "kube-proxy"]
    if not pods:
        yield passed("kube-proxy", "there is none: the network plug-in does its work")
        return

    def judge(pod: Pod) -> Iterator[Note]:
        where = f"kube-proxy on {pod.spec.node_name or pod.name}"
        images = [one.image for one in pod.spec.containers if one.name == "kube-proxy"]
        yield _skew(where, _image_version(images[0] if images else "", where), facts, hop)

    yield from each(pods, judge)


def _skew(where: str, version: Version, facts: Facts, hop: Hop) -> Note:
    # Of a later hop only the floor is asked: what is newer than the API server now is told once.
    if hop.is_first and version > facts.server and version.minor > facts.server.minor:
        return failed(where, f"{version} is newer than the API server's {facts.server}")
    behind = hop.target - version.minor
    if behind > KUBELET_MINORS:
        return failed(where, f"{version} is {behind} minor releases behind {hop.target}; 3 may be")
    if hop.is_first and version != facts.server:
        return warned(where, f"{version}, the API server {facts.server}: finish this node first")
    return passed(where, str(version))


def _controllers(facts: Facts, _: Hop) -> Iterator[Note]:
    def judge(one: Component) -> Iterator[Note]:
        version = one.version
        behind = facts.server.minor - version.minor
        if behind < 0:
            yield failed(one.where, f"{version} is newer than the API server's {facts.server}")
        elif behind > CONTROLLER_MINORS:
            yield failed(one.where, f"{version} is {behind} minor releases behind; 1 may be")
        else:
            yield passed(one.where, str(version))

    for name in (CONTROLLER_MANAGER, SCHEDULER):
        yield from each((name,), lambda name: each(components(facts, name), judge))


def _api_servers(facts: Facts, _: Hop) -> Iterator[Note]:
    found = components(facts, APISERVER)
    versions = sorted({one.version for one in found})
    where = ", ".join(one.where for one in found)
    told = ", ".join(str(version) for version in versions)
    if versions[-1].minor - versions[0].minor > 1:
        yield failed(where, f"more than one minor release apart: {told}")
    elif len(versions) > 1:
        yield warned(where, f"an upgrade was not finished: {told}")
    else:
        yield passed(where, told)


def _support(facts: Facts, hop: Hop) -> Iterator[Note]:
    table, today = lifetimes.table(), facts.at.date()
    if table.is_old(today):
        yield unknown("table of lifetimes", f"it is of {table.asof}: too old to rely on")
    life = table.of("kubernetes", str(facts.server))
    where = f"Kubernetes {facts.server.minor}"
    if life is None:
        yield unknown(where, "opsd does not know when it ends")
    elif today > life.eol:
        yield warned(where, f"gets no fixes since {life.eol}: upgrade soon")
    elif life.eol - today < SUPPORT_ENDS_SOON:
        yield warned(where, f"gets fixes until {life.eol} only")
    else:
        yield passed(where, f"gets fixes until {life.eol}")
    yield from _target_support(hop.target, facts)


def _target_support(target: Minor, facts: Facts) -> Iterator[Note]:
    life = lifetimes.table().of("kubernetes", str(target))
    if life is not None and facts.at.date() > life.eol:
        yield warned(f"Kubernetes {target}", f"ended {life.eol}: go on to a newer one at once")


def _system(facts: Facts) -> Iterator[Pod]:
    return (pod for pod in facts.pods.value if pod.namespace == SYSTEM)


def _version(text: str, where: str) -> Version:
    return _parsed(Version.parse, text, where)


def _image_version(image: str, where: str) -> Version:
    return _parsed(Version.of_image, image, where)


def _parsed(parse: Callable[[str], Version], text: str, where: str) -> Version:
    try:
        return parse(text)
    except ValueError as exc:
        raise Unreadable(where, str(exc)) from exc


CHECKS = (
    Check(
        id="patch-level",
        title="The cluster runs the newest patch of its minor release",
        row=1,
        judge=_patch_level,
        fix="first go to the newest patch of the release that runs, on all nodes",
        source="kubernetes.io, Upgrading kubeadm clusters",
    ),
    Check(
        id="kubelet-skew",
        title="Every kubelet is at most three minor releases behind the target",
        row=2,
        judge=_kubelets,
        fix="bring the kubelets of these nodes to the version of the API server first",
        source=SKEW,
        scope=Scope.HOP,
        unknown_blocks=True,
    ),
    Check(
        id="kube-proxy-skew",
        title="Every kube-proxy is at most three minor releases behind the target",
        row=3,
        judge=_proxies,
        fix="kubeadm upgrade node on these nodes, or: "
        "kubectl -n kube-system rollout restart daemonset kube-proxy",
        source=SKEW,
        scope=Scope.HOP,
    ),
    Check(
        id="controller-skew",
        title="Controller manager and scheduler are not newer than the API server",
        row=4,
        judge=_controllers,
        fix="finish the last upgrade: kubeadm upgrade apply with the version of the API server",
        source=SKEW,
    ),
    Check(
        id="api-servers",
        title="All API servers run one version",
        row=5,
        judge=_api_servers,
        fix="finish the last upgrade: kubeadm upgrade node on the other control plane nodes",
        source=SKEW,
    ),
    Check(
        id="support-window",
        title="The release that runs still gets fixes",
        row=9,
        judge=_support,
        fix="upgrade before the date; security fixes end with it",
        source="kubernetes.io/releases",
    ),
)
