"""What machines answer about their packages: a healthy one, and changes to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from opsd.hosts import lifetimes
from opsd.hosts.fleet import Visit
from opsd.hosts.machine import Machine, Role
from opsd.hosts.packages.judge import judge, script
from opsd.hosts.packages.look import Shared, together
from opsd.hosts.script import Section
from opsd.model import Finding, Unseen

FIXTURES = Path(__file__).parent / "fixtures/packages"
NOW = datetime(2026, 11, 23, 6, 40, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
HOUR_S, DAY_S = 3600, 86400
NODE = Machine(name="rpi3", address="192.0.2.3", roles=frozenset({Role.NODE}))
CONTROL = Machine(
    name="rpi1", address="192.0.2.1", roles=frozenset({Role.NODE, Role.CONTROL_PLANE})
)
ROUTER = Machine(name="gate", address="192.0.2.9", roles=frozenset({Role.ROUTER}))

Answers = Mapping[str, str | Section]

NOTHING_PENDING = "0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n@policy\n"


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text()


def system(os_release: str, *, manager: str = "apt-get", tables: str = "") -> str:
    facts = f"kernel=6.12.48+deb13-amd64\nnow_s={NOW_S}\nuptime_s={40 * DAY_S}\nboot_id=b-1"
    return f"{facts}\nmanager={manager}\n@os-release\n{os_release}{tables}"


def lists(*, age_s: int = HOUR_S, valid_until: str = "", security: bool = True) -> str:
    head = f"@now {NOW_S}\n@stamp {NOW_S - age_s} /var/lib/apt/lists/partial\n@packages\n"
    main = (
        "@release deb.example_debian_dists_trixie_InRelease\n"
        "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: trixie\n"
    )
    fixes = (
        "@release deb.example_debian-security_dists_trixie-security_InRelease\n"
        "Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\n"
        "Codename: trixie-security\n"
    )
    until = f"Valid-Until: {valid_until}\n" if valid_until else ""
    return head + main + (fixes + until if security else "")


def kernel(running: str = "6.12.48+deb13-amd64", *, installed: Sequence[str] = ()) -> str:
    every = "".join(f"@installed {one}\n" for one in (running, *installed))
    return f"running={running}\nbuild=#1 SMP\nmodular=yes\nhas_modules=yes\n{every}"


HEALTHY: Answers = {
    "system": system(fixture("os-release_debian13.txt")),
    "dpkg": "@packages=226\n",
    "lists": lists(),
    "apt": NOTHING_PENDING,
    **dict.fromkeys(("dnf", "zypper", "apk", "pacman"), ""),
    "unattended": 'APT::Periodic::Unattended-Upgrade "0";\n',
    "unattended-log": "",
    "keys": "",
    "kernel": kernel(),
    "services": "",
}


def section(answer: str | Section, name: str = "") -> Section:
    if isinstance(answer, Section):
        return answer
    return Section(name=name, stdout=answer, stderr="", status=0)


def failed(stderr: str, *, status: int = 1, stdout: str = "") -> Section:
    return Section(name="", stdout=stdout, stderr=stderr, status=status)


def visit(changes: Mapping[str, str | Section | None], machine: Machine = NODE) -> Visit:
    answers = {**HEALTHY, **changes}
    return Visit(
        machine=machine,
        sections={
            name: section(answer, name) for name, answer in answers.items() if answer is not None
        },
    )


def told(
    machine: Machine = NODE,
    *,
    kubelet: str = "",
    at: datetime = NOW,
    **changes: str | Section | None,
) -> list[Finding | Unseen]:
    """Everything that is told of the healthy machine with `changes`; ``_`` in names is ``-``."""
    named = {name.replace("_", "-"): answer for name, answer in changes.items()}
    return judged(visit(named, machine), at=at, kubelet=kubelet)


def judged(seen: Visit, *, at: datetime = NOW, kubelet: str = "") -> list[Finding | Unseen]:
    """Everything that is told of a visit."""
    assert set(seen.sections) <= {probe.name for probe in script().probes}
    told_now = list(judge(seen, at=at, lifetimes=lifetimes.table(), kubelet=kubelet))
    alone = [one for one in told_now if not isinstance(one, Shared)]
    return [*alone, *together(one for one in told_now if isinstance(one, Shared))]


def findings(observed: Sequence[Finding | Unseen]) -> dict[str, Finding]:
    """By their checks, without the line for the table."""
    found = [one for one in observed if isinstance(one, Finding)]
    assert len({one.key for one in found}) == len(found)
    return {one.check: one for one in found if one.check != "patches.state"}


def state(observed: Sequence[Finding | Unseen]) -> Finding:
    (found,) = (
        one for one in observed if isinstance(one, Finding) and one.check == "patches.state"
    )
    return found


def unseen(observed: Sequence[Finding | Unseen]) -> list[str]:
    return [one.subject for one in observed if isinstance(one, Unseen)]
