"""Are the add-ons ready for the target, and does anybody still mend them?

Found by the images that run, wherever they run. kubeadm brings CoreDNS and kube-proxy itself and
leaves all others alone.

Limits: which release of an add-on supports which Kubernetes is for its own page to say; opsd
knows until when it gets fixes, and only of those that are common in small clusters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from opsd.upgrade import releases
from opsd.upgrade.check import Check, Hop, Note, Scope, passed, skipped, unknown, warned
from opsd.upgrade.components import SYSTEM
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.settings import text_of
from opsd.upgrade.support import support
from opsd.upgrade.version import Version

#: The end of an image's name -> the product as `lifetimes` calls it.
PRODUCTS = {
    "ingress-nginx/controller": "ingress-nginx",
    "nginx-ingress-controller": "ingress-nginx",
    "metallb/controller": "metallb",
    "metallb/speaker": "metallb",
    "jetstack/cert-manager-controller": "cert-manager",
    "calico/node": "calico",
    "cilium/cilium": "cilium",
    "keycloak/keycloak": "keycloak",
}
_FIXES = {"ingress-nginx": "it was archived and gets no fixes: move to another ingress controller"}
_DEFAULT_PLUGINS = frozenset(
    ("errors", "health", "ready", "kubernetes", "prometheus", "forward", "cache", "loop", "reload")
) | {"loadbalance", "log"}


def _coredns(facts: Facts, hop: Hop) -> Iterator[Note]:
    found = [one for one in facts.deployments.value if one.namespace == SYSTEM]
    dns = next((one for one in found if one.name == "coredns"), None)
    if dns is None:
        yield skipped("deployment kube-system/coredns", "it is not there")
        return
    where = str(dns)
    target = releases.table().of(hop.target)
    images = [one.image for one in dns.spec.template.spec.containers if one.name == "coredns"]
    try:
        version = Version.of_image(images[0] if images else "")
    except ValueError as exc:
        raise Unreadable(where, str(exc)) from exc
    if target is None:
        yield unknown("releases", f"opsd does not know {hop.target}")
    elif version > target.coredns:
        yield warned(where, f"{version} is newer than {target.coredns}, which kubeadm brings")
    else:
        yield passed(where, f"{version}; kubeadm brings {target.coredns}")


def _corefile(facts: Facts, _: Hop) -> Iterator[Note]:
    where = "configmap kube-system/coredns"
    if facts.config_maps.value.get("coredns") is None:
        yield skipped(where, "it is not there")
        return
    own = sorted(_plugins(text_of(facts, "coredns", "Corefile")) - _DEFAULT_PLUGINS)
    if own:
        yield warned(
            where, f"was changed by hand ({', '.join(own)}): kubeadm may leave it as it is"
        )
    else:
        yield passed(where, "as kubeadm made it")


def _plugins(corefile: str) -> set[str]:
    """The plugins of the server blocks; more than one block counts as a plugin, too."""
    plugins: set[str] = set()
    depth = blocks = 0
    for line in corefile.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        if depth == 0:
            blocks += 1
        elif depth == 1 and words[0] != "}":
            plugins.add(words[0])
        depth += line.count("{") - line.count("}")
    return plugins | ({f"{blocks} server blocks"} if blocks > 1 else set())


def _addons(facts: Facts, _hop: Hop) -> Iterator[Note]:
    found: dict[tuple[str, str], str] = {}
    for pod in facts.pods.value:
        for container in pod.spec.containers:
            name, _colon, tag = container.image.partition("@")[0].rpartition(":")
            if product := _product(name):
                found.setdefault((product, tag), str(pod))
    if not found:
        yield skipped("pods", "none of the add-ons that opsd knows")
    for (product, tag), where in sorted(found.items()):
        note = support(f"{product} ({where})", product, tag, today=facts.at.date())
        yield dataclasses.replace(note, fix=_FIXES.get(product, ""))


def _product(image: str) -> str:
    return next((one for end, one in PRODUCTS.items() if image.endswith(end)), "")


CHECKS = (
    Check(
        id="coredns",
        title="CoreDNS is not newer than the one that kubeadm brings",
        row=7,
        judge=_coredns,
        fix="leave CoreDNS to kubeadm, or skip its phase: --skip-phases addon/coredns",
        source="kubeadm config images list",
        scope=Scope.HOP,
    ),
    Check(
        id="corefile",
        title="The Corefile is the one that kubeadm made",
        row=7,
        judge=_corefile,
        fix="keep a copy of the ConfigMap, and compare it after the upgrade",
        source="kubeadm, migration of the Corefile",
    ),
    Check(
        id="addons",
        title="The add-ons get fixes",
        row=42,
        judge=_addons,
        fix="upgrade the add-on to a release that supports the target",
        source="endoflife.date; the add-ons' own pages",
    ),
)
