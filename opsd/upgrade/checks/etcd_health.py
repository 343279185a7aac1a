"""Is etcd well, and is there a fresh copy of it elsewhere?

An upgrade restarts etcd, and on a single control plane there is no second member: what is wrong
with it before is worse after, and the snapshot is the only way back.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from opsd.hosts.kubeadm import etcd, manifests
from opsd.hosts.kubeadm.etcd import Member
from opsd.upgrade.answers import partly_understood, understood
from opsd.upgrade.check import Check, Hop, Note, each, failed, passed, skipped, warned
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Unreadable

SNAPSHOTS = "etcd"  # what their subjects begin with
_FRESH = timedelta(hours=24)
_FULL = 0.6  # of the quota
_LOOSE = 0.5  # share of the file that is in use
_LOOSE_FROM_BYTES = 100 << 20  # below it nothing is gained
_SLOW_S = 0.025  # for 99 of 100 writes
_MIB = 1 << 20
_DEFRAGMENT = "etcdctl defrag, one member after another (docs/upgrades.md#etcd)"


def _runs_etcd(machine: MachineFacts) -> bool:
    pods = partly_understood(machine, manifests.PROBE, manifests.read)
    if not pods:
        raise Unreadable(f"{machine.name}: {manifests.FOLDER}", "there is no static pod at all")
    return any(pod.component == "etcd" for pod in pods)


def _judge(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        where = f"{machine.name}: etcd"
        if not _runs_etcd(machine):
            yield skipped(where, "no static pod of etcd: it runs elsewhere")
            return
        health = understood(machine, etcd.HEALTH_PROBE, etcd.read_health)
        if not health.is_well:
            yield failed(where, health.reason or "it says that it is not well")
        member = understood(machine, etcd.METRICS_PROBE, etcd.read_metrics)
        yield from _member(where, member)
        yield passed(where, f"{member.version}, {_size(member)}")

    yield from each(facts.control_plane, judge)


def _size(member: Member) -> str:
    sizes = (member.used_bytes, member.size_bytes, member.quota_bytes)
    used, size, quota = (f"{one / _MIB:.0f}" for one in sizes)
    return f"{used} MiB in a file of {size} MiB, which may have {quota} MiB"


def _member(where: str, member: Member) -> Iterator[Note]:
    if not member.has_leader:
        yield failed(where, "no leader")
    if member.is_learner:
        yield failed(where, "it is a learner that was never promoted")
    if member.active_peers < member.known_peers:
        gone = member.known_peers - member.active_peers
        yield failed(where, f"{gone} of its {member.known_peers} peers are not connected")
    if member.size_bytes > _FULL * member.quota_bytes:
        yield warned(where, f"it is getting full: {_size(member)}", fix=_DEFRAGMENT)
    is_loose = member.used_bytes < _LOOSE * member.size_bytes
    if is_loose and member.size_bytes > _LOOSE_FROM_BYTES:
        yield warned(where, f"more than half of it is empty: {_size(member)}", fix=_DEFRAGMENT)
    if not member.version.startswith(f"{member.cluster_version}."):
        value = f"it is {member.version}, and the cluster works as {member.cluster_version}"
        yield warned(where, value, fix="finish the upgrade of etcd on all members first")
    if member.slow_write_s is not None and member.slow_write_s > _SLOW_S:
        took = f"{member.slow_write_s * 1000:.0f} ms"
        value = f"of a hundred writes to its disk one takes up to {took} or more"
        yield warned(where, value, fix="expect timeouts: an SD card or a busy disk is too slow")


def _judge_snapshot(facts: Facts, _hop: Hop) -> Iterator[Note]:
    made = {
        subject: at
        for subject, at in facts.backups.value.items()
        if subject.partition("/")[0] == SNAPSHOTS
    }
    if not made:
        yield failed("repositories", "there is no verified snapshot of etcd")
        return
    subject, at = max(made.items(), key=lambda one: one[1])
    age = facts.at - at
    value = f"the newest verified snapshot is of {at:%Y-%m-%d %H:%M} UTC"
    if age < -timedelta(minutes=5):
        raise Unreadable(subject, f"{value}, which is to come: is opsd's clock right?")
    if age <= _FRESH:
        yield passed(subject, value)
    else:
        yield failed(subject, f"{value}, {age.days} days and {age.seconds // 3600} hours ago")


HEALTH = Check(
    id="etcd-health",
    title="etcd is well",
    row=28,
    judge=_judge,
    fix="see docs/upgrades.md#etcd; an alarm stays until somebody disarms it",
    source="etcd documentation: maintenance; etcd issue 19557",
    probes=(manifests.PROBE, etcd.HEALTH_PROBE, etcd.METRICS_PROBE),
)
SNAPSHOT = Check(
    id="etcd-snapshot",
    title="A verified snapshot of etcd is younger than a day",
    row=29,
    judge=_judge_snapshot,
    fix="opsd run-job etcd-backup",
    source="kubeadm documentation: upgrading clusters, before you begin",
    unknown_blocks=True,
)
