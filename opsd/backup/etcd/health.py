"""Is the etcd that is backed up well, and all of it? Judged from what the members say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opsd.clients.etcd.answers import Alarm, Member, Status
from opsd.errors import OpsdError
from opsd.model import Finding, Severity
from opsd.text import printable, shortened

SUMMARY_CHARACTERS = 120
_NONE = "0"  # the id of nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The cluster as one member sees it."""

    status: Status
    members: tuple[Member, ...]
    alarms: tuple[Alarm, ...]
    quota_bytes: int

    @property
    def names(self) -> tuple[str, ...]:
        """The members that have a name, sorted."""
        return tuple(sorted(printable(one.name) for one in self.members if one.name))


def unfit(status: Status) -> str:
    """Why this member is not the one to back up; empty when it is."""
    if status.leader == _NONE:
        return "it has no leader: most members are gone, or cannot reach each other"
    return "it is a learner, which has not all of the data" if status.is_learner else ""


def about(subject: str, view: View, *, percent: int) -> Iterator[Finding]:
    """What is not as it should be.

    Args:
        subject: of the cluster's etcd: ``etcd/main``.
        view: of the member that is backed up.
        percent: of the quota that are worth a warning.
    """
    names = {one.id: printable(one.name) or one.id for one in view.members}
    for alarm in view.alarms:
        yield _alarm(f"{subject}/{names.get(alarm.member_id, alarm.member_id)}", alarm)
    for member in view.members:
        if reason := _wrong_with(member):
            yield _unhealthy(f"{subject}/{names[member.id]}", reason, member_id=member.id)
    if view.status.errors:
        own = names.get(view.status.member_id, view.status.member_id)
        reason = printable("; ".join(view.status.errors))
        yield _unhealthy(f"{subject}/{own}", reason, member_id=view.status.member_id)
    yield from _space(subject, view, percent=percent)


def member_unreachable(subject: str, exc: OpsdError, *, cause: str) -> Finding:
    """One control plane could not be asked, and another was backed up instead.

    Args:
        subject: ``etcd/main/rpi2``.
        exc: why not.
        cause: subject of what it follows from, or empty.
    """
    text = printable(str(exc))
    return Finding(
        check="etcd.member_unreachable",
        subject=subject,
        severity=Severity.WARNING,
        summary=shortened(f"could not be asked: {text}", SUMMARY_CHARACTERS),
        remedy="docs/etcd.md#members; etcd goes on only while most members run",
        facts={"error": text},
        cause=cause,
    )


def _alarm(subject: str, alarm: Alarm) -> Finding:
    is_space = alarm.alarm == "NOSPACE"
    what = (
        "etcd is full and takes no writes: the cluster cannot be changed"
        if is_space
        else f"etcd raised the alarm {printable(alarm.alarm)}"
    )
    return Finding(
        check="etcd.alarm",
        subject=subject,
        severity=Severity.CRITICAL,
        summary=shortened(what, SUMMARY_CHARACTERS),
        remedy="docs/etcd.md#space" if is_space else "docs/etcd.md#alarms",
        facts={"alarm": printable(alarm.alarm)},
    )


def _wrong_with(member: Member) -> str:
    if not member.name:
        where = ", ".join(member.client_urls)
        return f"it was added and never started {where}".rstrip()
    return "it is still a learner and has no vote" if member.is_learner else ""


def _unhealthy(subject: str, reason: str, *, member_id: str) -> Finding:
    return Finding(
        check="etcd.member_unhealthy",
        subject=subject,
        severity=Severity.WARNING,
        summary=shortened(reason, SUMMARY_CHARACTERS),
        remedy="docs/etcd.md#members",
        facts={"member_id": f"{int(member_id):x}" if member_id.isdigit() else member_id},
    )


def _space(subject: str, view: View, *, percent: int) -> Iterable[Finding]:
    status, quota = view.status, view.quota_bytes
    if not quota or status.db_size * 100 < quota * percent:
        return
    used = round(100 * status.db_size / quota)
    free = status.db_size - status.db_size_in_use
    yield Finding(
        check="etcd.space_low",
        subject=subject,
        severity=Severity.WARNING,
        summary=f"etcd's database fills {used} % of its quota; when full, nothing can be changed",
        remedy="docs/etcd.md#space: defragment it"
        if free * 2 > status.db_size
        else "docs/etcd.md#space: find what fills it, or raise --quota-backend-bytes",
        facts={
            "db_size_bytes": status.db_size,
            "db_in_use_bytes": status.db_size_in_use,
            "quota_bytes": quota,
        },
    )
