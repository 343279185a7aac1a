"""Which updates wait on a machine, for how long may that be believed, and what holds them back?

Security fixes are told as one finding. Where nothing marks them, any update may be one. What is
old is not believed: whoever has not asked for a week is not up to date, however few updates he
knows of.

Limits: an update that nobody marked as a security fix may still be one.
"""

from __future__ import annotations

from datetime import timedelta

from opsd.hosts.packages import apt, dpkg, lists, plain, rpm, system, unattended
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.lists import STALE_AFTER, USELESS_AFTER, Lists
from opsd.hosts.packages.look import NAMES_KEPT, NAMES_SHOWN, Look, Part, Report, count, days
from opsd.hosts.packages.pending import Pending, Standing, Update, names

UNATTENDED_GRACE = timedelta(days=2)  # the machine's own timer runs once a day, and may miss one

_OTHERS = {
    "dnf": (rpm.DNF, rpm.read_dnf),
    "zypper": (rpm.ZYPPER, rpm.read_zypper),
    "apk": (plain.APK, plain.read_apk),
    "pacman": (plain.PACMAN, plain.read_pacman),
}
_UPGRADE = {
    "apt-get": "apt upgrade",
    "dnf": "dnf upgrade",
    "zypper": "zypper patch",
    "apk": "apk upgrade",
    "pacman": "pacman -Syu",
}
_REFRESH = {
    "apt-get": "apt-get update",
    "dnf": "dnf makecache",
    "zypper": "zypper refresh",
    "apk": "apk update",
    "pacman": "pacman -Syu",
}


def judge(look: Look, report: Report) -> None:
    """Tell what waits."""
    about = system.read(look.text(system.SYSTEM.name))
    if about.manager in system.IMAGES:
        raise Unreadable(f"{about.manager} is not supported: its updates are whole images")
    if about.manager == "apt-get":
        pending = _of_apt(look, report, about)
    elif about.manager in _OTHERS:
        pending = _of_another(look, report, about)
    else:
        raise Unreadable("no package manager that opsd knows is installed")
    _note(report, pending)
    if pending.security or pending.advisories:
        _tell_security(look, report, pending, about.manager)
    elif pending.system and not pending.knows_security:
        _tell_unmarked(look, report, pending, about.manager)


def _of_apt(look: Look, report: Report, about: system.System) -> Pending:
    known = lists.read(look.text(lists.LISTS.name))
    _believe(look, report, known, manager="apt-get")
    held = dpkg.read(look.text(dpkg.PACKAGES.name)).held
    pending, _ = apt.read(
        look.text(apt.PENDING.name), held=held, security_archives=known.security_sources
    )
    has_security = any(archive.is_security for archive in known.archives)
    if not has_security and about.product in ("debian", "ubuntu") and not about.is_raspbian:
        report.tell(
            "patches.no_security_source",
            "no package list of a security archive: no security fix would be seen",
            f"on {look.machine.name}: add {about.codename or 'the release'}-security to "
            "/etc/apt/sources.list.d, then apt-get update",
        )
    return Pending(updates=pending.updates, knows_security=has_security)


def _of_another(look: Look, report: Report, about: system.System) -> Pending:
    probe, read = _OTHERS[about.manager]
    answer = look.text(probe.name, root=rpm.DNF_CHECK if about.manager == "dnf" else "")
    pending = read(answer)
    known = Lists(archives=(), fetched_at=rpm.filled_at(answer), read_at=about.now)
    _believe(look, report, known, manager=about.manager)
    return pending


def _believe(look: Look, report: Report, known: Lists, *, manager: str) -> None:
    """Tell that the lists are old.

    Raises:
        Unreadable: so old that nothing follows from them.
    """
    fix = _REFRESH[manager]
    age = known.age
    if age is None:
        raise Unreadable("nothing says when the package lists were fetched", fix=fix)
    report.facts["lists_age_h"] = max(0, round(age / timedelta(hours=1)))
    if expired := known.expired(look.at):
        until = f"{expired.valid_until:%Y-%m-%d}" if expired.valid_until else ""
        what = expired.label or expired.origin or expired.file
        raise Unreadable(f"the package list of {what} was valid until {until}", fix=fix)
    if age > USELESS_AFTER:
        raise Unreadable(f"the package lists are {days(age)} old", fix=fix)
    if age > STALE_AFTER:
        report.tell(
            "patches.lists_stale",
            f"the package lists are {days(age)} old: newer updates are not seen",
            f"on {look.machine.name}: {fix}"
            + "; systemctl status apt-daily.timer" * (manager == "apt-get"),
            facts={"age_h": report.facts["lists_age_h"]},
        )


def _note(report: Report, pending: Pending) -> None:
    """For the table: what a person would count."""
    marked = len(pending.security) + len(pending.advisories)
    report.facts |= {
        "pending": pending.count(Standing.READY),
        "security": marked if pending.knows_security or marked else None,
        "held": pending.count(Standing.HELD),
        "kept_back": pending.count(Standing.KEPT),
        "phased": pending.count(Standing.PHASED),
        "pending_names": names(pending.system, limit=NAMES_KEPT),
    }


def _tell_security(look: Look, report: Report, pending: Pending, manager: str) -> None:
    fixes = pending.security
    what = [Update(name=name) for name in pending.advisories] or list(fixes)
    stuck = [one for one in fixes if one.standing in (Standing.HELD, Standing.KEPT)]
    held = f"; {len(stuck)} of them held back" if stuck else ""
    first = sorted(what, key=_urgency)
    verb = "waits" if len(what) == 1 else "wait"
    report.tell(
        "patches.security_pending",
        f"{count(len(what), 'security fix').replace('fixs', 'fixes')} {verb}: "
        f"{names(first, limit=NAMES_SHOWN)}{held}",
        _remedy(look, stuck, is_all=len(stuck) == len(what), manager=manager),
        steady_for=_grace(look),
        facts={
            "security": len(what),
            "names": names(first, limit=NAMES_KEPT),
            "held_back": names(stuck, limit=NAMES_KEPT),
        },
    )


def _urgency(update: Update) -> tuple[bool, str]:
    """Kernels and what listens to the network first; then by name."""
    exposed = (
        "linux-image",
        "openssh",
        "libssl1",
        "libssl3",
        "openssl",
        "containerd",
        "runc",
        "libc6",
    )
    return (not update.name.startswith(exposed), update.name)


def _remedy(look: Look, stuck: list[Update], *, is_all: bool, manager: str) -> str:
    held = [one.name for one in stuck if one.standing is Standing.HELD]
    steps = [] if is_all else [_UPGRADE[manager]]
    if held:
        steps.append(f"apt-mark showhold: is the hold on {held[0]} still wanted?")
    elif stuck:
        steps.append(f"apt-get install {stuck[0].name}: see what it would remove")
    return f"on {look.machine.name}: {'; '.join(steps)}"


def _tell_unmarked(look: Look, report: Report, pending: Pending, manager: str) -> None:
    number = pending.count(Standing.READY, Standing.KEPT)
    if not number:
        return
    report.tell(
        "patches.updates_pending",
        f"{count(number, 'update')} pending, and nothing marks which are security fixes",
        f"on {look.machine.name}: {_UPGRADE[manager]}",
        steady_for=_grace(look),
        facts={"updates": number, "names": names(pending.system, limit=NAMES_KEPT)},
    )


def _grace(look: Look) -> timedelta:
    """What installs itself is told only when it did not."""
    try:
        habits = unattended.read(look.text(unattended.SETTINGS.name))
    except Unreadable:
        return timedelta(0)
    return UNATTENDED_GRACE if habits.is_enabled else timedelta(0)


PART = Part(
    name="updates",
    what="the pending updates",
    probes=(
        system.SYSTEM,
        dpkg.PACKAGES,
        lists.LISTS,
        apt.PENDING,
        *(probe for probe, _ in _OTHERS.values()),
        unattended.SETTINGS,
    ),
    judge=judge,
)
