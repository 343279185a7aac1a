"""Could the next packages be installed on every node, and would only the wanted ones be?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from opsd.hosts.packages import answers, apt, dpkg, keys, lists
from opsd.hosts.packages.apt import Policy
from opsd.hosts.packages.dpkg import Installed
from opsd.hosts.script import Probe
from opsd.upgrade.answers import understood
from opsd.upgrade.check import Check, Hop, Note, each, failed, passed, skipped, unknown, warned
from opsd.upgrade.facts import Facts, MachineFacts
from opsd.upgrade.reading import Unreadable
from opsd.upgrade.version import Version

_NAMES = ("kubeadm", "kubelet", "kubectl")
_OLD = timedelta(days=7)
_STUCK_S = 600  # no update takes that long
_PATCHES_BEHIND = 2

POLICY = Probe(
    name="upgrade-policy",
    command="command -v apt-cache >/dev/null || exit 0; apt-cache policy kubeadm",
    within_s=20.0,
)


def _judge(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        installed = understood(machine, dpkg.PACKAGES, dpkg.read)
        yield from _broken(machine, installed)
        yield from _not_held(machine, installed)
        yield from _mixed(machine, installed)
        yield from _keys(machine, facts)
        yield from _lists(machine)
        yield passed(f"{machine.name}: packages", "nothing is half installed")

    yield from each(facts.machines.value, judge)


def _broken(machine: MachineFacts, installed: Installed) -> Iterator[Note]:
    where = f"{machine.name}: packages"
    if installed.is_interrupted:
        yield failed(where, "dpkg was interrupted", fix=_on(machine, "dpkg --configure -a"))
    for package in installed.broken:
        fix = _on(machine, "dpkg --configure -a; apt-get -f install")
        yield failed(where, f"{package.name} is {package.trouble}", fix=fix)
    if lock := installed.lock:
        make = failed if lock.held_s > _STUCK_S else warned
        value = f"{lock.name} (process {lock.pid}) holds {lock.path} for {lock.held_s} s"
        yield make(where, value, fix="wait until it is done, or look why it hangs")


def _not_held(machine: MachineFacts, installed: Installed) -> Iterator[Note]:
    free = [name for name in _NAMES if installed.version(name) and name not in installed.held]
    if free:
        value = f"{', '.join(free)} not held: an upgrade of the system may take another version"
        fix = _on(machine, f"apt-mark hold {' '.join(free)}")
        yield warned(f"{machine.name}: packages", value, fix=fix)


def _mixed(machine: MachineFacts, installed: Installed) -> Iterator[Note]:
    versions = {name: installed.version(name) for name in ("kubeadm", "kubelet")}
    if all(versions.values()) and len(set(versions.values())) > 1:
        value = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield warned(f"{machine.name}: packages", value, fix="finish the upgrade before")


def _keys(machine: MachineFacts, facts: Facts) -> Iterator[Note]:
    for key in keys.read(machine.text(keys.KEYS.name)):
        if isinstance(key, answers.Unreadable):
            yield unknown(f"{machine.name}: repository keys", str(key), fix=key.fix)
        elif key.expires_at and key.expires_at - facts.at < keys.EXPIRES_SOON:
            word = "expired" if key.expires_at < facts.at else "expires"
            yield warned(
                f"{machine.name}: {key.path}",
                f"the repository's key {word} on {key.expires_at:%Y-%m-%d}",
                fix="fetch the repository's Release.key again",
            )


def _lists(machine: MachineFacts) -> Iterator[Note]:
    age = understood(machine, lists.LISTS, lists.read).age
    where = f"{machine.name}: package lists"
    if age is None:
        yield unknown(where, "nobody noted when they were fetched", fix="apt-get update")
    elif age > _OLD:
        yield warned(where, f"fetched {age.days} days ago", fix=_on(machine, "apt-get update"))


def _judge_source(facts: Facts, _hop: Hop) -> Iterator[Note]:
    def judge(machine: MachineFacts) -> Iterator[Note]:
        where = f"{machine.name}: kubeadm's repository"
        policies = understood(machine, POLICY, apt.read_policies)
        policy = policies.get("kubeadm")
        if policy is None:
            raise Unreadable(where, "only Debian's are read here, and apt says nothing of it")
        if not policy.installed:
            yield skipped(where, "kubeadm is not installed as a package")
            return
        yield _offer(where, policy)

    yield from each(facts.machines.value, judge)


def _offer(where: str, policy: Policy) -> Note:
    try:
        installed, offered = Version.parse(policy.installed), Version.parse(policy.candidate)
    except ValueError as exc:
        raise Unreadable(where, str(exc)) from exc
    value = f"kubeadm {installed} is installed, and {offered} is offered"
    ahead = offered.minor - installed.minor
    if ahead > 1:
        fix = f"let it point at v{installed.minor.next}"
        return failed(where, f"{value}: a minor release would be skipped", fix=fix)
    if ahead == 1:
        fix = "see that the packages are held, until the upgrade of this node"
        return warned(where, f"{value}: it is that of the next minor release already", fix=fix)
    behind = offered.patch - installed.patch
    if ahead == 0 and behind >= _PATCHES_BEHIND:
        fix = f"go to {offered} first: it has the fixes that the next step needs"
        return warned(where, f"{value}: {behind} patches behind", fix=fix)
    return passed(where, value)


def _on(machine: MachineFacts, command: str) -> str:
    return f"on {machine.name}: {command}"


PACKAGES = Check(
    id="packages",
    title="Packages can be installed, and those of Kubernetes are held",
    row=45,
    judge=_judge,
    fix="see docs/node-patches.md",
    source="kubeadm documentation; kubernetes/release issue 3818",
    probes=(dpkg.PACKAGES, lists.LISTS, keys.KEYS),
)
REPOSITORY = Check(
    id="newest-patch",
    title="Nodes have the newest patch of their minor, and a repository that fits",
    row=8,
    judge=_judge_source,
    fix="apt-get update, then upgrade to the newest patch of this minor release first",
    source="kubeadm documentation: upgrading clusters",
    probes=(POLICY,),
)
