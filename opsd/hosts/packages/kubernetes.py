"""Do the packages of Kubernetes stay where they are, and does what is installed really run?

They are upgraded with the cluster, node by node. So they are held on purpose, and a machine on
which they are not is one `apt upgrade` away from a kubelet of another version.

Limits: holds are read from dpkg and from ``exclude=`` of a yum repository.
"""

from __future__ import annotations

from collections.abc import Mapping

from opsd.hosts.lifetimes import numbers_of
from opsd.hosts.packages import apt, dpkg, keys, rpm
from opsd.hosts.packages.look import Look, Part, Report, Shared
from opsd.hosts.packages.pending import KUBERNETES
from opsd.model import Severity

CLUSTER = "cluster/kubernetes"  # subject of what is told of all nodes together

#: Those whose version matters; the others follow them.
_VERSIONED = ("kubeadm", "kubelet", "kubectl")


def judge(look: Look, report: Report) -> None:
    """Tell what is wrong with them; nothing where they are not installed."""
    answer = look.text(dpkg.PACKAGES.name)
    if answer:
        installed = dpkg.read(answer)
        versions = {name: installed.version(name) for name in sorted(KUBERNETES)}
        versions = {name: version for name, version in versions.items() if version}
        held = installed.held
    else:
        answer = look.text(rpm.DNF.name) or look.text(rpm.ZYPPER.name)
        versions, held = rpm.installed(answer), frozenset(rpm.excluded(answer))
    if not {"kubelet", "kubeadm"} & set(versions):
        return  # no machine of a cluster, if perhaps one for its owner
    report.facts["kubelet"] = versions.get("kubelet", "")
    _tell_not_held(look, report, versions, held)
    _tell_mixed(look, report, versions)
    _tell_repository(look, report, versions)


def _tell_not_held(
    look: Look, report: Report, versions: Mapping[str, str], held: frozenset[str]
) -> None:
    free = [name for name in _VERSIONED if name in versions and name not in held]
    if free:
        report.tell(
            "patches.kubernetes_not_held",
            f"{', '.join(free)} not held: any upgrade of the system may replace "
            f"{'it' if len(free) == 1 else 'them'}",
            f"on {look.machine.name}: apt-mark hold {' '.join(free)}",
            facts={"not_held": ", ".join(free)},
        )


def _tell_mixed(look: Look, report: Report, versions: Mapping[str, str]) -> None:
    """What is installed, and what runs, are of one version."""
    kubelet, kubeadm = versions.get("kubelet", ""), versions.get("kubeadm", "")
    runs = numbers_of(look.kubelet)
    if kubelet and runs and numbers_of(kubelet) != runs:
        report.tell(
            "patches.kubernetes_mixed",
            f"kubelet {_short(kubelet)} is installed and {_short(look.kubelet)} runs",
            f"on {look.machine.name}: systemctl restart kubelet; for another minor, drain first",
            facts={"installed": kubelet, "running": look.kubelet},
        )
    elif kubelet and kubeadm and numbers_of(kubelet) != numbers_of(kubeadm):
        report.tell(
            "patches.kubernetes_mixed",
            f"kubelet is {_short(kubelet)} and kubeadm {_short(kubeadm)}: "
            "an upgrade was not finished",
            "finish it: https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade",
            facts={"kubelet": kubelet, "kubeadm": kubeadm},
        )


def _tell_repository(look: Look, report: Report, versions: Mapping[str, str]) -> None:
    """Its repository, where there is apt: the minor that it holds, and newer patches."""
    if not look.text(dpkg.PACKAGES.name):
        return
    if keys.is_legacy(look.text(keys.KEYS.name)):
        report.tell(
            "patches.kubernetes_repository",
            "apt still asks the Kubernetes repository that was closed in 2024",
            "move to pkgs.k8s.io: https://kubernetes.io/blog/2023/08/31/legacy-package-repository-deprecation",
        )
    _, policies = apt.read(look.text(apt.PENDING.name))
    for name in ("kubelet", "kubeadm"):
        policy, version = policies.get(name), versions.get(name, "")
        if policy is None or not version or numbers_of(policy.candidate) <= numbers_of(version):
            continue
        report.facts["kubernetes_available"] = policy.candidate
        if numbers_of(policy.candidate)[:2] == numbers_of(version)[:2]:
            _tell_patch(report, version, policy.candidate)
        elif not keys.is_legacy(look.text(keys.KEYS.name)):
            _tell_minor(look, report, version, policy.candidate)
        return


def _tell_patch(report: Report, version: str, candidate: str) -> None:
    report.share(
        Shared(
            check="patches.kubernetes_available",
            subject=CLUSTER,
            summary=f"Kubernetes {_short(candidate)} is available, {_short(version)} is installed",
            remedy=f"kubeadm upgrade apply v{_short(candidate)} on the control plane first",
            severity=Severity.INFO,
            facts={"installed": version, "available": candidate},
            machine=report.machine.name,
        )
    )


def _tell_minor(look: Look, report: Report, version: str, candidate: str) -> None:
    report.tell(
        "patches.kubernetes_repository",
        f"the repository holds Kubernetes {_short(candidate)}, and {_short(version)} is installed",
        f"on {look.machine.name}: point its source in /etc/apt/sources.list.d to "
        f"v{'.'.join(map(str, numbers_of(version)[:2]))} until the cluster is upgraded",
        facts={"installed": version, "available": candidate},
    )


def _short(version: str) -> str:
    """``1.35.3`` of ``1.35.3-1.1`` and of ``v1.35.3``."""
    return ".".join(map(str, numbers_of(version)))


PART = Part(
    name="kubernetes",
    what="whether the packages of Kubernetes are as they should be",
    probes=(dpkg.PACKAGES, apt.PENDING, keys.KEYS, rpm.DNF, rpm.ZYPPER),
    judge=judge,
    shared=CLUSTER,
)
