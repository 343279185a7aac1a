"""Is anything in the way of the next upgrade, and what does the machine do on its own?

Three parts: the state of dpkg, the keys of the repositories, and unattended upgrades.

Limits: dpkg and apt only.
"""

from __future__ import annotations

from datetime import timedelta

from opsd.hosts.machine import Role
from opsd.hosts.packages import dpkg, keys, reboot, unattended
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.keys import EXPIRES_SOON, KeyFile
from opsd.hosts.packages.look import NAMES_KEPT, NAMES_SHOWN, Look, Part, Report, days
from opsd.hosts.packages.pending import Update, names
from opsd.model import Severity

LOCKED_LONG_S = 3600  # no upgrade of a healthy machine takes so long, not even on a Pi

#: When one of them goes down unannounced, everything that needs it stands still.
_NEEDED_BY_ALL = frozenset({Role.CONTROL_PLANE, Role.NFS_SERVER, Role.ROUTER})


def judge_packages(look: Look, report: Report) -> None:
    """Tell what is half installed."""
    answer = look.text(dpkg.PACKAGES.name)
    if not answer:
        return  # no dpkg
    installed = dpkg.read(answer)
    here = f"on {look.machine.name}:"
    if installed.broken:
        worst = installed.broken[0]
        several = [Update(name=package.name) for package in installed.broken]
        report.tell(
            "patches.packages_broken",
            f"{names(several, limit=NAMES_SHOWN)} {worst.trouble}: nothing can be upgraded",
            f"{here} dpkg --configure -a, then apt-get -f install",
            facts={"broken": names(several, limit=NAMES_KEPT), "trouble": worst.trouble},
        )
    elif installed.is_interrupted:
        report.tell(
            "patches.packages_broken",
            "dpkg was interrupted: nothing can be upgraded",
            f"{here} dpkg --configure -a",
        )
    if installed.lock and installed.lock.held_s >= LOCKED_LONG_S:
        lock, since = installed.lock, days(timedelta(seconds=installed.lock.held_s))
        report.tell(
            "patches.lock_held",
            f"{lock.name} has held the lock of the packages for {since}",
            f"{here} ps -fp {lock.pid}: does it wait for an answer?",
            facts={"process": lock.name, "pid": lock.pid, "held_s": lock.held_s},
        )
    report.facts["locked_by"] = installed.lock.name if installed.lock else ""


def judge_keys(look: Look, report: Report) -> None:
    """Tell which keys end.

    Raises:
        Unreadable: one of them cannot be told; the others are.
    """
    unread: list[Unreadable] = []
    for key in keys.read(look.text(keys.KEYS.name)):
        if isinstance(key, Unreadable):
            unread.append(key)
        elif key.expires_at is not None and key.expires_at - look.at < EXPIRES_SOON:
            _tell_key(look, report, key)
    if unread:
        raise unread[0]


def _tell_key(look: Look, report: Report, key: KeyFile) -> None:
    if key.expires_at is None:
        return
    is_over = key.expires_at <= look.at
    ends = (
        f"expired on {key.expires_at:%Y-%m-%d}"
        if is_over
        else (f"expires in {days(key.expires_at - look.at)}")
    )
    report.tell(
        "patches.key_expires",
        f"the key {key.name} {ends}: {'its' if is_over else 'then its'} updates are not seen",
        f"on {look.machine.name}: fetch the repository's new key into {key.path}",
        below=key.name,
        facts={"path": key.path, "expires": key.expires_at.isoformat()},
    )


def judge_unattended(look: Look, report: Report) -> None:
    """Tell where the machine acts against the cluster, or does not do what it should."""
    habits = unattended.read(look.text(unattended.SETTINGS.name))
    report.facts["unattended"] = habits.is_enabled
    if not habits.is_enabled:
        return
    if habits.reboots and look.machine.roles:
        _tell_reboots(look, report, habits)
    packages = look.text(dpkg.PACKAGES.name)
    installed = dpkg.read(packages) if packages else None
    if (
        installed
        and installed.version("kubelet")
        and installed.version("containerd")
        and "containerd" not in installed.held
        and not habits.spares("containerd")
    ):
        report.tell(
            "patches.runtime_unattended",
            "unattended upgrades may restart containerd under all pods at once",
            f"on {look.machine.name}: add containerd to Unattended-Upgrade::Package-Blacklist, "
            "and upgrade it when you drain",
        )


def _tell_reboots(look: Look, report: Report, habits: unattended.Unattended) -> None:
    at = "at once" if habits.reboots_at == "now" else f"at {habits.reboots_at}"
    waits = reboot.read(look.text(reboot.KERNEL.name)).noted != ""
    report.tell(
        "patches.automatic_reboot",
        f"reboots by itself {at} when an update asks for it, "
        f"without a drain{', and one asks now' if waits else ''}",
        f'on {look.machine.name}: set Unattended-Upgrade::Automatic-Reboot to "false" in '
        "/etc/apt/apt.conf.d",
        severity=(Severity.CRITICAL if look.machine.roles & _NEEDED_BY_ALL else Severity.WARNING),
        facts={"at": habits.reboots_at, "is_due": waits},
    )


def judge_log(look: Look, report: Report) -> None:
    """Tell when the last unattended upgrade failed."""
    habits = unattended.read(look.text(unattended.SETTINGS.name))
    if not habits.is_enabled:
        return
    section = look.section(unattended.LATEST.name, root=unattended.ROOT)
    if not section.is_ok and habits.ran_at is None:
        return  # it never ran, so there is no log
    if failure := unattended.failure(look.text(unattended.LATEST.name)):
        report.tell(
            "patches.unattended_failed",
            f"the last unattended upgrade failed: {failure}",
            f"on {look.machine.name}: less {unattended.LOG}",
            facts={"error": failure},
        )


PARTS = (
    Part(
        name="packages",
        what="whether packages are half installed",
        probes=(dpkg.PACKAGES,),
        judge=judge_packages,
    ),
    Part(
        name="keys",
        what="when the keys of the repositories expire",
        probes=(keys.KEYS,),
        judge=judge_keys,
    ),
    Part(
        name="unattended",
        what="what the machine does on its own",
        probes=(unattended.SETTINGS, dpkg.PACKAGES, reboot.KERNEL),
        judge=judge_unattended,
    ),
    Part(
        name="unattended-log",
        what="whether the last unattended upgrade succeeded",
        probes=(unattended.SETTINGS, unattended.LATEST),
        judge=judge_log,
        unknown=Severity.INFO,
    ),
)
