"""What is known about each minor release of Kubernetes: what it removes, needs and brings.

Read from a table that comes with opsd, so that nothing is asked of the internet. A target that is
not in the table cannot be judged, and a table that grew old is told with the report.

Limits: of flags it knows those that the release notes tell, and what comparing the programs of two
releases showed. Feature gates are known by `opsd.upgrade.gates`.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib import resources
from typing import Any

from opsd.upgrade.version import Minor, Version

OLD_AFTER = timedelta(days=150)  # a minor release comes about every four months


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A flag that a program no longer takes: it does not start with it."""

    name: str  #: without dashes
    component: str  #: ``kubelet``
    pr: int = 0  #: pull request in kubernetes/kubernetes; 0: not told by the release notes

    @property
    def source(self) -> str:
        """Where it is said."""
        return f"kubernetes/kubernetes PR {self.pr}" if self.pr else "release notes"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedApi:
    """A version of an API whose objects must be gone before."""

    group_version: str  #: ``scheduling.k8s.io/v1alpha2``
    resources: tuple[str, ...]  #: plurals
    pr: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a cluster meets that goes to this minor release."""

    minor: Minor
    etcd: Version  #: what kubeadm brings
    coredns: Version  #: likewise
    newest: Version | None = None  #: newest patch when the table was made
    etcd_from: Mapping[Minor, Version] = field(default_factory=dict)  #: least patch before
    etcd_source: str = ""
    etcd_flags_gone: tuple[str, ...] = ()  #: names or beginnings of names
    containerd: Mapping[Minor, Version] = field(default_factory=dict)  #: least recommended
    flags: tuple[Removal, ...] = ()
    apis: tuple[RemovedApi, ...] = ()
    kubeadm_config_gone: str = ""  #: version of kubeadm's own configuration: ``v1beta3``
    changes: Mapping[str, int] = field(default_factory=dict)  #: name of a change -> its PR


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """The table."""

    asof: date
    by_minor: Mapping[Minor, Release]
    removed_kinds: Mapping[str, Minor]  #: ``policy/v1beta1 PodDisruptionBudget`` -> removed at
    kernels: tuple[Minor, ...]  #: long-term kernels
    kernel_from: Minor  #: and everything from this one on

    def of(self, minor: Minor) -> Release | None:
        """One release; None: the table does not know it."""
        return self.by_minor.get(minor)

    @property
    def newest(self) -> Minor:
        """The newest minor release that it knows."""
        return max(self.by_minor)

    def is_old(self, today: date) -> bool:
        """Whether releases appeared since that it does not know."""
        return today - self.asof > OLD_AFTER

    def removed_at(self, api_version: str, kind: str) -> Minor | None:
        """Since when a kind of a manifest is not served; None: it is, or nobody knows."""
        found = self.removed_kinds.get(f"{api_version} {kind}")
        return found or self.removed_kinds.get(f"{api_version} *")


@functools.cache
def table() -> Releases:
    """The table that comes with this version of opsd."""
    return parse((resources.files("opsd.upgrade") / "releases.toml").read_text("utf-8"))


def parse(text: str) -> Releases:
    """Read a table.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    content = tomllib.loads(text)
    entries = {Minor.parse(name): entry for name, entry in content["to"].items()}
    return Releases(
        asof=content["asof"],
        by_minor={minor: _release(minor, entry) for minor, entry in entries.items()},
        removed_kinds={
            name: Minor.parse(minor)
            for minor, names in content["removed_kinds"].items()
            for name in names
        },
        kernels=tuple(Minor.parse(one) for one in content["kernel"]["supported"]),
        kernel_from=Minor.parse(content["kernel"]["from"]),
    )


def _release(minor: Minor, entry: Mapping[str, Any]) -> Release:
    changes = ("cgroup_v1", "git_repo", "flex_volume", "kube_proxy_mode", "event_record_qps")
    return Release(
        minor=minor,
        newest=Version.parse(entry["newest"]) if entry["newest"] else None,
        etcd=Version.parse(entry["etcd"]),
        coredns=Version.parse(entry["coredns"]),
        etcd_from=_least(entry.get("etcd_from", {})),
        etcd_source=entry.get("etcd_source", ""),
        etcd_flags_gone=tuple(entry.get("etcd_flags_gone", ())),
        containerd=_least(entry["containerd"]),
        flags=_removals(entry.get("flags", ())),
        apis=tuple(
            RemovedApi(
                group_version=api["group_version"],
                resources=tuple(api["resources"]),
                pr=api.get("pr", 0),
            )
            for api in entry.get("apis", ())
        ),
        kubeadm_config_gone=entry.get("kubeadm_config", {}).get("gone", ""),
        changes={name: entry[name]["pr"] for name in changes if name in entry},
    )


def _removals(entries: Any) -> tuple[Removal, ...]:
    return tuple(
        Removal(name=entry["name"], component=entry["component"], pr=entry.get("pr", 0))
        for entry in entries
    )


def _least(entries: Mapping[str, str]) -> dict[Minor, Version]:
    return {Minor.parse(name): Version.parse(version) for name, version in entries.items()}
