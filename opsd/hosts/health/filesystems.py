"""A disk that fills up stops databases; one that became read-only is dying.

Limits: network file systems are not asked, so that nothing hangs (`nfs-health` does). Space is
judged by percent, as the kubelet does when it throws pods off; a disk for data with 100 GiB
available is not full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from opsd.hosts.health.counters import WEEK, Count, counted
from opsd.hosts.health.look import Answer, Look, Part, Unknown
from opsd.hosts.health.mounted import PROBE, PROBES, Mount, Mounts, parse
from opsd.hosts.machine import Role
from opsd.model import Fact, Finding, Severity

MIB = 2**20
PLENTY_BYTES = 100 * 1024 * MIB
BOOT = ("/boot", "/boot/firmware")
BOOT_BYTES = 50 * MIB  # a kernel and its initramfs
EFI = "/boot/efi"  # small, and nothing grows there
BACK_PERCENT = 2.0  # above its limit
INODES_PERCENT, NO_INODES_PERCENT = 10.0, 3.0


@dataclass(frozen=True, slots=True)
class _Level:
    """How bad it is, after what it was."""

    before: int

    def of(self, percent: float, *, little: float, none: float) -> Severity:
        for severity, limit in ((Severity.CRITICAL, none), (Severity.WARNING, little)):
            if percent < (limit + BACK_PERCENT if self.before >= severity else limit):
                return severity
        return Severity.INFO


def read(look: Look) -> Answer:
    """Judge every local file system."""
    mounts = parse(look.text(PROBE, what="file systems"))
    found: list[Finding] = []
    levels: dict[str, int] = {}
    errors: dict[str, Count] = {}
    for mount in mounts.mounts:
        about = _About(mount, mounts, look)
        told = list(about.findings())
        found.extend(told)
        levels.update({f"{one.check} {mount.path}": int(one.severity) for one in told})
        errors[mount.path] = about.errors
    unread = [one.path for one in mounts.mounts if one.space is None]
    return Answer(
        findings=tuple(found),
        facts=_facts(mounts),
        kept={
            "levels": levels,
            "errors": {path: count.kept for path, count in errors.items()},
            "written": sorted(_written(look, mounts)),
        },
        unknown=_unknown(look, mounts, unread),
    )


def _unknown(look: Look, mounts: Mounts, unread: list[str]) -> tuple[Unknown, ...]:
    if not mounts.mounts:
        return (Unknown(what="file systems", why="none was found, not even /"),)
    if not unread:
        return ()
    why = f"{', '.join(unread)}: {look.sections[PROBE].complaint()}"
    return (Unknown(what="space", why=why),)


def _facts(mounts: Mounts) -> dict[str, Fact]:
    asked = [(one.space, one.path) for one in mounts.mounts if one.space]
    if not asked:
        return {}
    space, path = min(asked, key=lambda one: one[0].available_percent)
    facts: dict[str, Fact] = {
        "fullest": path,
        "fullest_available_percent": round(space.available_percent, 1),
    }
    if root := next((space for space, path in asked if path == "/"), None):
        facts["root_available_percent"] = round(root.available_percent, 1)
    return facts


def _written(look: Look, mounts: Mounts) -> set[str]:
    """Paths that were writable once, of what is mounted."""
    before = set(look.kept.get("written") or ())
    return {one.path for one in mounts.mounts if not one.is_read_only or one.path in before}


class _About:
    """One file system, after what was kept of it."""

    def __init__(self, mount: Mount, mounts: Mounts, look: Look) -> None:
        self._mount, self._mounts, self._look = mount, mounts, look
        count, self._at_s = mounts.errors.get(mount.device, (0, 0))
        kept = (look.kept.get("errors") or {}).get(mount.path)
        self.errors = counted(kept, count, at_s=look.at_s, period=WEEK)
        self._subject = look.subject() + (mount.path if mount.path.startswith("/") else "")

    def _level(self, check: str) -> _Level:
        levels = self._look.kept.get("levels") or {}
        return _Level(int(levels.get(f"{check} {self._mount.path}", 0)))

    def findings(self) -> Iterator[Finding]:
        yield from self._damage()
        yield from self._read_only()
        if self._mount.space is not None and not self._mount.is_read_only:
            yield from self._full()
            yield from self._inodes()

    def _finding(self, check: str, severity: Severity, summary: str, remedy: str) -> Finding:
        space = self._mount.space
        facts: dict[str, Fact] = {"device": self._mount.source, "kind": self._mount.kind}
        if holds := ", ".join(self._holds()):
            facts["holds"] = holds
        if space is not None:
            facts["available_mib"] = space.available_bytes // MIB
            facts["size_mib"] = space.size_bytes // MIB
            facts["inodes_free"] = space.inodes_free
        return Finding(
            check=check,
            subject=self._subject,
            severity=severity,
            summary=summary[:120],
            remedy=f"on {self._look.machine.name}: {remedy}",
            facts=facts,
        )

    def _holds(self) -> Iterator[str]:
        """What Kubernetes keeps there."""
        roles = self._look.machine.roles
        paths = ["/var/lib/etcd"] if Role.CONTROL_PLANE in roles else []
        paths += ["/var/lib/containerd", "/var/lib/kubelet"] if Role.NODE in roles else []
        for path in paths:
            if self._mounts.holder(path) is self._mount:
                yield path

    @property
    def _name(self) -> str:
        return f"{self._mount.path} of {self._look.machine.name}"

    def _read_only(self) -> Iterator[Finding]:
        mount = self._mount
        was_writable = mount.path in (self._look.kept.get("written") or ())
        if mount.is_read_only and (was_writable or mount.path in self._mounts.writable):
            yield self._finding(
                "health.read_only",
                Severity.CRITICAL,
                f"{self._name} became read-only: its disk, or card, may be dying",
                f"dmesg | grep -iE 'error|remount' | tail; save its data, then check "
                f"{mount.source} unmounted (fsck), or replace it",
            )

    def _damage(self) -> Iterator[Finding]:
        if not self.errors.value:
            return
        age_s = self._look.at_s - self._at_s
        is_fresh = bool(self.errors.risen_by) or 0 <= age_s < WEEK.total_seconds()
        days = f", the last {age_s / 86400:.0f} days ago" if age_s >= 86400 * 2 else ""
        times = "once" if self.errors.value == 1 else f"{self.errors.value} times"
        yield self._finding(
            "health.filesystem_errors",
            Severity.CRITICAL if is_fresh else Severity.WARNING,
            f"{self._name} was found damaged {times}{days}",
            f"dmesg | grep EXT4-fs; have a fresh backup, then check {self._mount.source}: "
            "once with fsck.mode=force in the kernel command line, or e2fsck -f unmounted",
        )

    def _full(self) -> Iterator[Finding]:
        mount, space, limits = self._mount, self._mount.space, self._look.thresholds
        if space is None or mount.path == EFI:
            return
        left = f"{space.available_bytes // MIB} MiB left ({space.available_percent:.0f} %)"
        if mount.path in BOOT:
            if space.available_bytes < BOOT_BYTES:
                yield self._finding(
                    "health.boot_full",
                    Severity.WARNING,
                    f"{self._name} has {left}: the next kernel does not fit",
                    "sudo apt-get autoremove --purge; ls -la /boot",
                )
            return
        if space.available_bytes >= PLENTY_BYTES and not list(self._holds()):
            return
        severity = self._level("health.disk_full").of(
            space.available_percent,
            little=limits.space_percent,
            none=limits.no_space_percent,
        )
        if severity > Severity.INFO:
            yield self._finding(
                "health.disk_full",
                severity,
                f"{self._name} has {left}",
                f"sudo du -xhd2 {mount.path} | sort -h | tail",
            )

    def _inodes(self) -> Iterator[Finding]:
        space = self._mount.space
        if space is None or not space.inodes:
            return
        severity = self._level("health.inodes_full").of(
            space.inodes_free_percent, little=INODES_PERCENT, none=NO_INODES_PERCENT
        )
        if severity > Severity.INFO:
            yield self._finding(
                "health.inodes_full",
                severity,
                f"{self._name} can hold {space.inodes_free} more files "
                f"({space.inodes_free_percent:.0f} %)",
                f"sudo du --inodes -xd2 {self._mount.path} | sort -n | tail",
            )


PART = Part(name="filesystem", probes=PROBES, read=read)
