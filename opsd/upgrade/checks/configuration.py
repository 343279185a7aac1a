"""Do kubeadm, and the programs it starts, still take the settings that they are given?

A removed feature gate, one that is locked to the other value, or a removed flag ends a program at
its start: the control plane does not come back from the upgrade, or the node from its restart.

Limits: of kubelets only what kubeadm keeps for all of them; `kubelet-gates` and `kubelet-flags`
look at the files of each node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsd.upgrade import gates as gatetable
from opsd.upgrade import releases
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
    SCHEDULER,
    Component,
    components,
    gates_of,
)
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.settings import KUBEADM, KUBELET, PROXY, gates, setting
from opsd.upgrade.version import Version

CONTROL_PLANE = (APISERVER, CONTROLLER_MANAGER, SCHEDULER)


def _kubeadm_config(facts: Facts, _: Hop) -> Iterator[Note]:
    where = "configmap kube-system/kubeadm-config"
    try:
        config = setting(facts, KUBEADM)
    except Unreadable as exc:
        if facts.config_maps.problem is not None:
            raise
        yield failed(exc.where, exc.why)
        return
    try:
        version = Version.parse(str(config.get("kubernetesVersion", "")))
    except ValueError as exc:
        yield failed(where, f"kubernetesVersion: {exc}")
        return
    if version != facts.server:
        yield warned(where, f"says {version}, the API server is {facts.server}: a half upgrade?")
    else:
        yield passed(where, f"kubernetesVersion {version}")


def _kubeadm_api(facts: Facts, hop: Hop) -> Iterator[Note]:
    where = "configmap kube-system/kubeadm-config"
    api = str(setting(facts, KUBEADM).get("apiVersion", "")).rpartition("/")[2]
    target = releases.table().of(hop.target)
    if target is None:
        yield unknown("releases", f"opsd does not know {hop.target}")
    elif api == "v1beta3" and target.kubeadm_config_gone == api:
        yield failed(where, f"{api}, which kubeadm {hop.target} does not read any more")
    elif api == "v1beta3":
        yield warned(where, f"{api}, which kubeadm 1.37 does not read any more")
    else:
        yield passed(where, api or "no apiVersion")


def _kubeadm_gates(facts: Facts, hop: Hop) -> Iterator[Note]:
    where = "configmap kube-system/kubeadm-config"
    table = gatetable.table()
    found = gates(setting(facts, KUBEADM))
    for gate in found:
        if reason := table.kubeadm_refusal(gate, target=hop.target):
            yield failed(where, f"featureGates.{gate}: {reason}")
    yield passed(where, f"{len(found)} feature gates of kubeadm")


def _gates(facts: Facts, hop: Hop) -> Iterator[Note]:
    def judge(one: Component) -> Iterator[Note]:
        found = gates_of(one.flags.get("feature-gates", ""))
        yield from _refused(one.where, found, hop)

    for name in CONTROL_PLANE:
        yield from each((name,), lambda name: each(components(facts, name), judge))
    for place in (KUBELET, PROXY):
        yield from each(
            (place,),
            lambda place: _refused(f"configmap kube-system/{place[0]}", _own(facts, place), hop),
        )


def _own(facts: Facts, place: tuple[str, str]) -> dict[str, bool]:
    if place == PROXY and facts.config_maps.value.get(PROXY[0]) is None:
        return {}  # another program does its work
    return gates(setting(facts, place))


def _refused(where: str, found: Mapping[str, bool], hop: Hop) -> Iterator[Note]:
    table = gatetable.table()
    for gate, value in found.items():
        if reason := table.refusal(gate, value=value, target=hop.target):
            yield failed(where, f"{gate}={str(value).lower()}: {reason}")
    yield passed(where, f"{len(found)} feature gates")


def _flags(facts: Facts, hop: Hop) -> Iterator[Note]:
    target = releases.table().of(hop.target)
    if target is None:
        yield unknown("releases", f"opsd does not know {hop.target}")
        return

    def judge(one: Component) -> Iterator[Note]:
        for gone in target.flags:
            if gone.component == one.name and gone.name in one.flags:
                yield failed(one.where, f"--{gone.name} is gone ({gone.source})")
        yield passed(one.where, f"{len(one.flags)} flags")

    for name in CONTROL_PLANE:
        yield from each((name,), lambda name: each(components(facts, name), judge))


def _proxy_mode(facts: Facts, hop: Hop) -> Iterator[Note]:
    where = "configmap kube-system/kube-proxy"
    if facts.config_maps.value.get(PROXY[0]) is None:
        yield skipped(where, "there is none: the network plug-in does its work")
        return
    mode = str(setting(facts, PROXY).get("mode") or "")
    target = releases.table().of(hop.target)
    if mode == "ipvs":
        yield warned(
            where,
            "mode ipvs is deprecated since 1.35 and off by default in 1.40",
            fix="plan the way to nftables (kernel 5.13 or newer) or iptables",
        )
    elif not mode and target and "kube_proxy_mode" in target.changes:
        yield warned(
            where, f"no mode is set: kube-proxy {hop.target} warns, kubeadm sets iptables"
        )
    else:
        yield passed(where, f"mode {mode or 'default'}")


def _kubelet_config(facts: Facts, hop: Hop) -> Iterator[Note]:
    where = "configmap kube-system/kubelet-config"
    config = setting(facts, KUBELET)
    target = releases.table().of(hop.target)
    changes = target.changes if target else {}
    if config.get("eventRecordQPS") == 0 and "event_record_qps" in changes:
        yield warned(
            where,
            f"eventRecordQPS: 0 means no limit at all from {hop.target} on",
            fix="set eventRecordQPS to 50 in the kubelet's configuration",
        )
    else:
        yield passed(where, "no field that changes its meaning")


CHECKS = (
    Check(
        id="kubeadm-config",
        title="kubeadm finds its own configuration, and it is that of this cluster",
        row=10,
        judge=_kubeadm_config,
        fix="finish or repeat the last upgrade; or upload it again: "
        "kubeadm init phase upload-config kubeadm --config FILE",
        source="kubeadm: upgrade reads this ConfigMap",
        unknown_blocks=True,
    ),
    Check(
        id="kubeadm-api",
        title="kubeadm still reads the version of its configuration",
        row=11,
        judge=_kubeadm_api,
        fix="with kubeadm 1.35: kubeadm config migrate --old-config FILE --new-config NEW, "
        "and upload it",
        source="kubernetes/kubernetes PR 136016",
        scope=Scope.HOP,
    ),
    Check(
        id="kubeadm-gates",
        title="kubeadm knows the feature gates in its configuration",
        row=12,
        judge=_kubeadm_gates,
        fix="remove them from featureGates: kubectl -n kube-system edit configmap kubeadm-config",
        source="release notes of the target; asked kubeadm itself",
        scope=Scope.HOP,
    ),
    Check(
        id="feature-gates",
        title="Control plane, kubelets and kube-proxy start with their feature gates",
        row=13,
        judge=_gates,
        fix="remove them from the extraArgs in kubeadm-config and from the manifests in "
        "/etc/kubernetes/manifests, or from the ConfigMap, before the upgrade",
        source="kubernetes/kubernetes pkg/features; asked the programs themselves",
        scope=Scope.HOP,
        unknown_blocks=True,
    ),
    Check(
        id="component-flags",
        title="The control plane has no flag that the next release refuses",
        row=14,
        judge=_flags,
        fix="remove it from the extraArgs in kubeadm-config and from /etc/kubernetes/manifests",
        source="release notes of the target",
        scope=Scope.HOP,
        unknown_blocks=True,
    ),
    Check(
        id="kube-proxy-mode",
        title="kube-proxy has a mode that stays",
        row=18,
        judge=_proxy_mode,
        fix="set mode: iptables or mode: nftables in configmap kube-system/kube-proxy",
        source="KEP-5495; kubernetes/kubernetes PR 139777",
        scope=Scope.HOP,
    ),
    Check(
        id="kubelet-config",
        title="No setting of the kubelets changes its meaning",
        row=43,
        judge=_kubelet_config,
        fix="set the value that is meant: kubectl -n kube-system edit configmap kubelet-config",
        source="kubernetes/kubernetes PR 117119",
        scope=Scope.HOP,
    ),
)
