"""The settings that kubeadm keeps in ConfigMaps of kube-system, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opsd.hosts import yamltext
from opsd.upgrade.facts import Facts
from opsd.upgrade.reading import Unreadable

KUBEADM = ("kubeadm-config", "ClusterConfiguration")
KUBELET = ("kubelet-config", "kubelet")
PROXY = ("kube-proxy", "config.conf")


def text_of(facts: Facts, name: str, key: str) -> str:
    """One file in a ConfigMap of kube-system.

    Raises:
        Unreadable: it could not be read, or is not there.
    """
    found = facts.config_maps.value.get(name)
    where = f"configmap kube-system/{name}"
    if found is None:
        raise Unreadable(where, "it is not there: is this a cluster of kubeadm?")
    if key not in found.data:
        raise Unreadable(where, f"it has no key {key}")
    return found.data[key]


def setting(facts: Facts, place: tuple[str, str]) -> Mapping[str, Any]:
    """The same, parsed.

    Raises:
        Unreadable: likewise, or it is no YAML.
    """
    text = text_of(facts, *place)
    try:
        return yamltext.mapping(text)
    except ValueError as exc:
        raise Unreadable(f"configmap kube-system/{place[0]}", str(exc)) from exc


def gates(settings: Mapping[str, Any], key: str = "featureGates") -> dict[str, bool]:
    """The feature gates that are set; none, where there are none."""
    found = settings.get(key)
    return (
        {str(name): bool(value) for name, value in found.items()}
        if isinstance(found, dict)
        else {}
    )
