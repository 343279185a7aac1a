"""Which packages are held, which are half installed, and does somebody install just now?

An interrupted dpkg stops every later upgrade, and the simulation of one says nothing about it.

Limits: a lock is told by its inode in /proc/locks, which needs no root; the process that holds
it cannot be told inside a container.

Source: dpkg-query(1), ``db:Status-Abbrev``; dpkg 1.21 and 1.22.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from opsd.hosts.packages.answers import Unreadable, number, pairs
from opsd.hosts.packages.pending import KUBERNETES
from opsd.hosts.script import Probe

WANTED = (*sorted(KUBERNETES), "containerd", "containerd.io", "unattended-upgrades")

# Only what is not simply installed, and a few that matter by name: a thousand lines stay there.
PACKAGES = Probe(
    name="dpkg",
    command=r"""command -v dpkg-query >/dev/null 2>&1 || exit 0
dpkg-query -W -f='${db:Status-Abbrev}|${Package}|${Version}|${Architecture}\n' |
  awk -F'|' -v wanted=" @wanted linux-image-$(uname -r) " '
    {n++} substr($1,2,1)=="c"||substr($1,2,1)=="n"{next}
    $1!="ii "||index(wanted," "$2" "){print} END{print "@packages=" n+0}'
for f in /var/lib/dpkg/updates/[0-9]*; do
  [ -e "$f" ] && { echo '@interrupted=yes'; break; }
done
now=$(cut -d. -f1 /proc/uptime)
for f in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock; do
  inode=$(stat -c %i "$f" 2>/dev/null) || continue
  pid=$(awk -v i=":$inode\$" '$2=="POSIX"&&$4=="WRITE"&&$6~i&&$5>0{print $5;exit}' /proc/locks)
  [ -n "$pid" ] || continue
  echo "@lock=$f"; echo "@lock_pid=$pid"; echo "@lock_name=$(cat /proc/$pid/comm)"
  start=$(sed 's/.*) //' /proc/$pid/stat | cut -d' ' -f20)
  echo "@lock_s=$((now - start / $(getconf CLK_TCK)))"; break
done
exit 0
""".replace("@wanted", " ".join(WANTED)),
)

_LINE = re.compile(r"(.)(.)(.)\|([^|]+)\|([^|]*)\|([^|]*)")
_TROUBLE = {
    "H": "half installed",
    "U": "unpacked and not configured",
    "F": "half configured",
    "W": "waiting for a trigger",
    "t": "with a trigger to run",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package of the system."""

    name: str
    version: str
    is_held: bool = False
    trouble: str = ""  #: why it is not simply installed


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Somebody works with packages."""

    path: str
    pid: int
    name: str  #: of the process
    held_s: int  #: age of the process


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What dpkg knows."""

    packages: tuple[Package, ...]  #: in trouble, held, or of interest by name
    is_interrupted: bool = False
    lock: Lock | None = None

    @property
    def held(self) -> frozenset[str]:
        """Names of the held ones."""
        return frozenset(package.name for package in self.packages if package.is_held)

    @property
    def broken(self) -> tuple[Package, ...]:
        """Those in trouble."""
        return tuple(package for package in self.packages if package.trouble)

    def version(self, name: str) -> str:
        """Of an installed package of interest; empty: it is not installed."""
        found = (package.version for package in self.packages if package.name == name)
        return next(found, "")


def read(answer: str) -> Installed:
    """What `PACKAGES` printed.

    Raises:
        Unreadable: dpkg knows no package at all.
    """
    facts = pairs(answer)
    if not number(facts.get("@packages", "")):
        raise Unreadable("dpkg lists no package")
    found = (_LINE.fullmatch(line) for line in answer.splitlines())
    return Installed(
        packages=tuple(_package(match) for match in found if match),
        is_interrupted="@interrupted" in facts,
        lock=_lock(facts),
    )


def _package(match: re.Match[str]) -> Package:
    wanted, status, error, name, version, _ = match.groups()
    trouble = "to be reinstalled" if error == "R" else _TROUBLE.get(status, "")
    return Package(name=name, version=version, is_held=wanted == "h", trouble=trouble)


def _lock(facts: dict[str, str]) -> Lock | None:
    pid = number(facts.get("@lock_pid", ""))
    if pid is None:
        return None
    return Lock(
        path=facts.get("@lock", ""),
        pid=pid,
        name=facts.get("@lock_name", "") or "a process that has ended",
        held_s=number(facts.get("@lock_s", "")) or 0,
    )
