"""Is etcd new enough for the etcd that kubeadm will bring?

The hops 3.5 to 3.6 and 3.6 to 3.7 are safe only from a certain patch on: an older one may leave
members behind that come back to life, or flags that the new one refuses.

Limits: an etcd outside of the cluster is not seen; its version must be looked up by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opsd.upgrade import releases
from opsd.upgrade.check import (
    Check,
    Hop,
    Note,
    Scope,
    Status,
    each,
    failed,
    passed,
    unknown,
    warned,
)
from opsd.upgrade.components import APISERVER, ETCD, Component, components, found_components
from opsd.upgrade.facts import Facts
from opsd.upgrade.releases import Release
from opsd.upgrade.version import Version


def _etcd(facts: Facts, hop: Hop) -> Iterator[Note]:
    target = releases.table().of(hop.target)
    if target is None:
        yield unknown("releases", f"opsd does not know {hop.target}")
        return
    members = found_components(facts, ETCD)
    if not hop.is_first:
        yield from each((hop,), lambda hop: _after_a_hop(members, hop, target))
        return
    if not members:
        yield unknown(
            "etcd",
            f"no pod of it: is it outside of the cluster? {_endpoints(facts)}",
            fix=f"kubeadm of {hop.target} wants etcd {target.etcd.minor}: look at yours",
        )
        return

    def judge(member: Component) -> Iterator[Note]:
        yield _version(member.where, member.version, target)

    yield from each(members, judge)


def _after_a_hop(members: Sequence[Component], hop: Hop, target: Release) -> Iterator[Note]:
    """What the hop before leaves; its newest patch may bring a newer one than opsd knows."""
    before = releases.table().of(hop.start)
    if before is None:
        yield unknown("releases", f"opsd does not know {hop.start}")
        return
    brought = max([before.etcd, *(member.version for member in members)])
    note = _version(f"etcd after the hop to {hop.start}", brought, target)
    is_bad = note.status is Status.FAIL
    look_again = f"{note.value}; take the newest patch of {hop.start}, then look again"
    yield warned(note.where, look_again, fix=note.fix) if is_bad else note


def _version(where: str, version: Version, target: Release) -> Note:
    if target.etcd.minor - version.minor > 1:
        return failed(where, f"{version}: {target.etcd} is more than one minor release ahead")
    least = target.etcd_from.get(version.minor)
    if version.minor < target.etcd.minor and least and version < least:
        return failed(
            where,
            f"{version}: must be {least} at least before etcd {target.etcd.minor}",
            fix=f"go to the newest patch of the release that runs, whose kubeadm brings etcd "
            f"{least} or newer; else set etcd.local.imageTag in kubeadm-config "
            f"({target.etcd_source})",
        )
    return passed(where, f"{version}, next {target.etcd}")


def _endpoints(facts: Facts) -> str:
    servers = components(facts, APISERVER)
    return f"the API server asks {servers[0].flags.get('etcd-servers', 'nobody knows whom')}"


def _flags(facts: Facts, hop: Hop) -> Iterator[Note]:
    target = releases.table().of(hop.target)
    if target is None:
        yield unknown("releases", f"opsd does not know {hop.target}")
        return

    def judge(member: Component) -> Iterator[Note]:
        gone = [
            flag
            for flag in member.flags
            if any(flag.startswith(start) for start in target.etcd_flags_gone)
        ]
        if gone:
            flags = ", ".join(f"--{flag}" for flag in gone)
            yield failed(member.where, f"etcd {target.etcd.minor} refuses {flags}")
        else:
            yield passed(member.where, f"{len(member.flags)} flags, none of them gone")

    yield from each(components(facts, ETCD), judge)


CHECKS = (
    Check(
        id="etcd-version",
        title="etcd is new enough for the one that kubeadm brings",
        row=6,
        judge=_etcd,
        fix="upgrade etcd to the newest patch of its minor release first",
        source="etcd.io, upgrade guides 3.6 and 3.7; kubernetes/kubernetes PR 138746",
        scope=Scope.HOP,
        unknown_blocks=True,
    ),
    Check(
        id="etcd-flags",
        title="etcd has no flag that its next version refuses",
        row=14,
        judge=_flags,
        fix="remove them from etcd.local.extraArgs in kubeadm-config and from "
        "/etc/kubernetes/manifests/etcd.yaml; most lost their experimental- before",
        source="etcd changelog 3.7; asked etcd 3.7.3 itself",
        scope=Scope.HOP,
    ),
)
