"""What waits on Debian, Ubuntu and Raspberry Pi OS, and which of it is a security fix?

`apt-get -s` succeeds and says "0 upgraded" when no package list was ever fetched, so this is read
only together with the lists (`lists`). What it names must be as many as it counts. Security fixes
are told by any newer version from a security archive: a point release may offer a still newer
version of the same package from elsewhere.

Limits: updates that a pin in apt's preferences forbids are not seen.

Source: apt-get(8), apt_preferences(5); outputs of apt 2.6 and 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.pending import KUBERNETES, Pending, Standing, Update
from opsd.hosts.script import Probe

APT_S = 120.0  # a Pi that has to build apt's cache takes half a minute

# One pass over the packages, then one over those that it named: apt loads its cache for each.
PENDING = Probe(
    name="apt",
    command=r"""command -v apt-get >/dev/null 2>&1 || exit 0
sim=$(nice -n 19 apt-get -s --with-new-pkgs -o Debug::NoLocking=1 \
  -o APT::Get::Show-User-Simulation-Note=false upgrade); status=$?
printf '%s\n@policy\n' "$sim"
[ "$status" = 0 ] || exit "$status"
names=$(printf '%s\n' "$sim" | awk '/^Inst /{print $2}
  /^The following .*(kept back|phasing)/{k=1;next}
  k&&/^  /{for(i=1;i<=NF;i++)print $i;next} {k=0}')
kube=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' @kubernetes 2>/dev/null |
  sed -n 's/ installed$//p')
[ -z "$names$kube" ] || apt-cache policy $(printf '%s\n' $names $kube | sort -u)
""".replace("@kubernetes", " ".join(sorted(KUBERNETES))),
    within_s=APT_S,
)

_INST = re.compile(r"Inst (\S+) (?:\[([^\]]*)\] )?\((\S+)(?: (.*?))? \[[^\]]+\]\)")
_SUMMARY = re.compile(
    r"^(\d{1,6}) upgraded, (\d{1,6}) newly installed, (?:(\d{1,6}) downgraded, )?\d+ to remove ",
    re.MULTILINE,
)
_POLICY = re.compile(r"^(\S+):$", re.MULTILINE)
_SOURCE = re.compile(r"\s+(-?\d+) (\S*/.*)")  # a priority of -1 or less: forbidden by a pin
_PHASED = re.compile(r"\(phased \d+%\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One row of a version table."""

    version: str
    sources: tuple[str, ...]  #: ``URL suite/component arch Packages``; negative priority: none
    is_phased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What apt knows of one package."""

    installed: str
    candidate: str
    newer: tuple[Version, ...]  #: than the installed one, the newest first


def read(
    answer: str, *, held: Iterable[str] = (), security_archives: Iterable[str] = ()
) -> tuple[Pending, Mapping[str, Policy]]:
    """What `PENDING` printed: what waits, and what apt knows of these and of Kubernetes.

    Args:
        answer: its whole output.
        held: names of the held packages.
        security_archives: ``host/path suite`` of the archives whose Release says security.

    Raises:
        Unreadable: it does not say what it would, or counts otherwise than it names.
    """
    simulation, _, table = answer.partition("@policy\n")
    policies = read_policies(table)
    archives = frozenset(security_archives)
    holds = frozenset(held)
    updates = [
        *_offered(simulation, policies, archives),
        *(_waiting(name, policies, holds, archives) for name in _listed(simulation, "kept back")),
        *(
            _update(name, policies, Standing.PHASED, archives)
            for name in _listed(simulation, "phasing")
        ),
    ]
    return Pending(updates=tuple(updates)), policies


def _offered(
    simulation: str, policies: Mapping[str, Policy], archives: frozenset[str]
) -> list[Update]:
    """What would be installed.

    Raises:
        Unreadable: nothing is counted, or another number.
    """
    summary = _SUMMARY.search(simulation)
    if summary is None:
        raise Unreadable("apt-get printed no summary")
    updates = []
    for line in simulation.splitlines():
        if match := _INST.match(line):
            name, installed, candidate, origin = match.groups("")
            updates.append(
                Update(
                    name=name,
                    installed=installed,
                    candidate=candidate,
                    standing=Standing.READY if installed else Standing.NEW,
                    is_security=bool(installed)
                    and (_is_labelled(origin) or _has_fix(policies.get(name), archives)),
                )
            )
    counted = sum(int(number or 0) for number in summary.groups())
    if counted != len(updates):
        raise Unreadable(f"apt-get counts {counted} updates and names {len(updates)}")
    return updates


def _listed(simulation: str, what: str) -> Iterator[str]:
    """The names of an indented block."""
    is_inside = False
    for line in simulation.splitlines():
        if line.startswith("The following ") and line.endswith(":"):
            is_inside = what in line
        elif is_inside and line.startswith("  "):
            yield from line.split()
        else:
            is_inside = False


def _waiting(
    name: str,
    policies: Mapping[str, Policy],
    holds: frozenset[str],
    archives: frozenset[str],
) -> Update:
    """What is kept back; older releases of apt count phased updates to it."""
    policy = policies.get(name)
    if name.partition(":")[0] in holds:
        standing = Standing.HELD
    elif policy and policy.newer and policy.newer[0].is_phased:
        standing = Standing.PHASED
    else:
        standing = Standing.KEPT
    return _update(name, policies, standing, archives)


def _update(
    name: str, policies: Mapping[str, Policy], standing: Standing, archives: frozenset[str]
) -> Update:
    policy = policies.get(name)
    return Update(
        name=name,
        installed=policy.installed if policy else "",
        candidate=policy.candidate if policy else "",
        standing=standing,
        is_security=_has_fix(policy, archives),
    )


def _is_labelled(origin: str) -> bool:
    """By ``Debian:12.15/oldstable, Debian-Security:12/oldstable-security``."""
    return any(
        one.startswith(("Debian-Security:", "UbuntuESM")) or one.endswith("-security")
        for one in origin.split(", ")
    )


def _has_fix(policy: Policy | None, archives: frozenset[str]) -> bool:
    """Whether any newer version comes from a security archive."""
    return policy is not None and any(
        is_security_source(source, archives)
        for version in policy.newer
        for source in version.sources
    )


def is_security_source(source: str, archives: frozenset[str]) -> bool:
    """Whether ``URL suite/component arch Packages`` is a security archive."""
    url, _, rest = source.partition(" ")
    suite = rest.partition(" ")[0].rpartition("/")[0]
    if suite.endswith(("-security", "/updates")):
        return True
    return f"{url.partition('://')[2].rstrip('/')} {suite}" in archives


def read_policies(table: str) -> dict[str, Policy]:
    """What ``apt-cache policy NAME...`` printed, by name."""
    parts = _POLICY.split(table)
    return {
        name: _policy(block.strip("\n").splitlines())
        for name, block in zip(parts[1::2], parts[2::2], strict=True)
    }


def _policy(lines: list[str]) -> Policy:
    facts = dict(line.strip().partition(": ")[::2] for line in lines[:2])
    installed = facts.get("Installed", "")
    return Policy(
        installed="" if installed == "(none)" else installed,
        candidate=facts.get("Candidate", ""),
        newer=tuple(_newer(lines)),
    )


def _newer(lines: list[str]) -> Iterator[Version]:
    """The rows above the installed version, which is marked by ``***``."""
    rows: list[tuple[str, bool, list[str]]] = []
    for line in lines[3:]:
        if source := _SOURCE.match(line):
            if rows and not source[1].startswith("-"):
                rows[-1][2].append(source[2])
        elif line.startswith(" *** "):
            break
        elif line.strip():
            rows.append((line.split()[0], _PHASED.search(line) is not None, []))
    for version, is_phased, sources in rows:
        yield Version(version=version, sources=tuple(sources), is_phased=is_phased)
