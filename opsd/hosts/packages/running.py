"""Does the machine run what is installed on it, and is its system still looked after?

Three parts: the reboot that is needed and why, services that still run replaced code, and the
end of support of the release.

Limits: whether a reboot would succeed is asked by node-health.
"""

from __future__ import annotations

from datetime import date, timedelta

from opsd.hosts.lifetimes import Lifetime, Phase
from opsd.hosts.packages import dpkg, lists, reboot, system
from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.look import NAMES_KEPT, NAMES_SHOWN, Look, Part, Report, Shared, days
from opsd.hosts.packages.pending import Update, names
from opsd.model import Severity

RELEASE = "release"  # begins the subject of what is told of all machines with one release
ENDS_SOON = timedelta(days=60)
_WORTH_TELLING = timedelta(hours=1)


def judge_reboot(look: Look, report: Report) -> None:
    """Tell that it needs a reboot, and why."""
    kernels = reboot.read(look.text(reboot.KERNEL.name))
    if not kernels.running:
        raise Unreadable("the machine does not say which kernel runs")
    about = system.read(look.text(system.SYSTEM.name))
    report.facts |= {
        "kernel": kernels.running,
        "uptime_d": about.uptime // timedelta(days=1),
        "boot_id": about.boot_id,
    }
    why = _why(look, kernels)
    report.facts["reboot"] = why
    if kernels.is_without_modules:
        report.tell(
            "patches.modules_missing",
            f"the modules of its running kernel {kernels.running} are gone: "
            "a mount or a network rule may fail",
            f"{_drain(look)}, then reboot {look.machine.name}",
            facts={"kernel": kernels.running},
        )
    elif why:
        since = about.now - (kernels.noted_at or about.now)
        report.tell(
            "patches.reboot_needed",
            f"needs a reboot{f' for {days(since)}' if since >= _WORTH_TELLING else ''}: {why}",
            f"{_drain(look)}, then reboot {look.machine.name}",
            facts={
                "why": why,
                "running": kernels.running,
                "installed": kernels.newest,
                "packages": ", ".join(kernels.noted_for[:NAMES_KEPT]),
                "uptime_d": report.facts["uptime_d"],
            },
        )


def _why(look: Look, kernels: reboot.Kernels) -> str:
    """Empty: it needs none."""
    if kernels.newest:
        return f"kernel {kernels.newest} is installed, {kernels.running} runs"
    if build := _newer_build(look, kernels):
        return f"kernel package {build} is installed, its build {kernels.build} runs"
    if kernels.noted:
        wanted = [Update(name=name) for name in kernels.noted_for]
        return names(wanted, limit=NAMES_SHOWN) or f"{kernels.noted} says so"
    return ""


def _newer_build(look: Look, kernels: reboot.Kernels) -> str:
    """Version of the package of the running kernel, if it was replaced under the same name."""
    answer = look.text(dpkg.PACKAGES.name)
    if not answer or not kernels.build:
        return ""
    version = dpkg.read(answer).version(f"linux-image-{kernels.running}")
    return version if version and version != kernels.build else ""


def _drain(look: Look) -> str:
    node = look.machine.node_subject.removeprefix("node/")
    if not node:
        return "choose a moment when nobody needs it"
    return f"kubectl drain {node} --ignore-daemonsets --delete-emptydir-data"


def judge_services(look: Look, report: Report) -> None:
    """Tell which services still run replaced code, where needrestart is installed."""
    section = look.section(reboot.SERVICES.name, root=reboot.ROOT)
    if not section.stdout.startswith("NEEDRESTART-VER") and (section.stdout or not section.is_ok):
        raise Unreadable(f"needrestart failed: {section.complaint()}")
    services = reboot.read_services(section.stdout)
    if services.outdated:
        several = [Update(name=name.removesuffix(".service")) for name in services.outdated]
        report.tell(
            "patches.services_outdated",
            f"{names(several, limit=NAMES_SHOWN)} still run code that an update replaced",
            f"on {look.machine.name}: systemctl restart {several[0].name}; "
            "for containerd or kubelet, drain first",
            facts={"services": names(several, limit=NAMES_KEPT)},
        )
    if services.needs_microcode:
        report.tell(
            "patches.microcode",
            "newer processor microcode is installed and waits for a reboot",
            f"{_drain(look)}, then reboot {look.machine.name}",
            severity=Severity.INFO,
        )


def judge_release(look: Look, report: Report) -> None:
    """Tell when its release gets no more fixes."""
    about = system.read(look.text(system.SYSTEM.name))
    report.facts |= {"os": about.name, "manager": about.manager}
    lifetime = about.lifetime(look.lifetimes)
    if lifetime is None:
        if not about.is_rolling:
            raise Unreadable(f"until when {about.name} gets fixes is not known to this opsd")
        return
    end = _end(look, lifetime)
    report.facts["support_ends"] = end.isoformat()
    today = look.at.date()
    check, severity = "patches.release_ended", Severity.WARNING
    if today > end:
        text = f"{about.name} has had no security fixes since {end}"
    elif end - today <= ENDS_SOON:
        text = f"{about.name} gets no security fixes from {end + timedelta(days=1)} on"
    elif lifetime.phase(today) is Phase.EXTENDED:
        text = f"{about.name}: long-term support only, until {end}"
        check, severity = "patches.release_old", Severity.INFO
    else:
        return
    report.share(
        Shared(
            check=check,
            subject=f"{RELEASE}/{about.product}-{about.version}",
            summary=text,
            remedy="plan the upgrade to the next release, one machine at a time",
            severity=severity,
            facts={"release": about.name, "end": str(end), "eol": str(lifetime.eol)},
            machine=look.machine.name,
        )
    )


def _end(look: Look, lifetime: Lifetime) -> date:
    """The last day of fixes for this machine: longer with the subscription that it has."""
    ends = [lifetime.eol, lifetime.extended]
    if lifetime.by_subscription and _has_subscription(look):
        ends.append(lifetime.by_subscription)
    return max(end for end in ends if end is not None)


def _has_subscription(look: Look) -> bool:
    """Whether it fetches Ubuntu's lists for subscribers."""
    answer = look.text(lists.LISTS.name)
    return "@packages" in answer and any(
        archive.origin.startswith("UbuntuESM") for archive in lists.read(answer).archives
    )


PARTS = (
    Part(
        name="reboot",
        what="whether it needs a reboot",
        probes=(reboot.KERNEL, system.SYSTEM, dpkg.PACKAGES),
        judge=judge_reboot,
    ),
    Part(
        name="services",
        what="which services still run replaced code",
        probes=(reboot.SERVICES,),
        judge=judge_services,
        unknown=Severity.INFO,
    ),
    Part(
        name="release",
        what="until when its system gets fixes",
        probes=(system.SYSTEM, lists.LISTS),
        judge=judge_release,
        unknown=Severity.INFO,
        shared=RELEASE,
    ),
)
