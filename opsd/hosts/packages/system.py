"""What runs on the machine, since when, and until when does it get security fixes?

The dates that the machine itself carries are believed before the table that comes with opsd:
they come with its updates.

Limits: a rolling release has no end. Raspberry Pi OS ends with the Debian that it is made from.

Source: os-release(5); distro-info-data.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from opsd.hosts.lifetimes import Lifetime, Lifetimes
from opsd.hosts.packages.answers import Unreadable, moment, number, pairs
from opsd.hosts.script import Probe

MANAGERS = ("apt-get", "dnf", "zypper", "apk", "pacman")
#: Their root file system is replaced as a whole: package managers say little there.
IMAGES = ("rpm-ostree", "transactional-update", "bootc")
ROLLING = frozenset({"arch", "archarm", "manjaro", "opensuse-tumbleweed", "gentoo", "void"})

SYSTEM = Probe(
    name="system",
    command=rf"""echo "kernel=$(uname -r)"; echo "now_s=$(date +%s)"
echo "uptime_s=$(cut -d. -f1 /proc/uptime)"; echo "boot_id=$(cat /proc/sys/kernel/random/boot_id)"
for m in {" ".join((*IMAGES, *MANAGERS))}; do
  command -v "$m" >/dev/null 2>&1 && {{ echo "manager=$m"; break; }}
done
echo '@os-release'; cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release
for f in debian ubuntu; do
  [ -r "/usr/share/distro-info/$f.csv" ] && echo "@$f" && cat "/usr/share/distro-info/$f.csv"
done
exit 0
""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One machine's operating system."""

    manager: str  #: of packages; empty: none that opsd knows
    kernel: str
    now: datetime  #: by its own clock
    uptime: timedelta
    boot_id: str
    product: str  #: as os-release calls it, ``debian`` for what is made of it
    version: str  #: ``12``, ``24.04``; empty: it has none
    name: str  #: for people
    codename: str = ""  #: ``trixie``
    is_raspbian: bool = False  #: its archive marks no security fixes
    support_end: date | None = None  #: as it says itself
    own: Lifetime | None = None  #: from its own distro-info data

    @property
    def is_rolling(self) -> bool:
        """Whether it has no releases that could end."""
        return self.product in ROLLING or (self.product == "debian" and not self.version)

    def lifetime(self, table: Lifetimes) -> Lifetime | None:
        """Until when it gets fixes; None: not known."""
        if self.own is not None:
            return self.own
        if self.support_end is not None:
            return Lifetime(product=self.product, release=self.version, eol=self.support_end)
        return table.of(self.product, self.version)


def read(answer: str) -> System:
    """What `SYSTEM` printed.

    Raises:
        Unreadable: it does not say what it is.
    """
    head, _, rest = answer.partition("@os-release\n")
    release, *tables = rest.split("\n@")
    facts, about = pairs(head), _unquoted(release)
    now = moment(facts.get("now_s", ""))
    if not about.get("ID") or now is None:
        raise Unreadable("/etc/os-release does not say what system this is")
    product = {"raspbian": "debian"}.get(about["ID"], about["ID"])
    rows = {table.partition("\n")[0]: table.partition("\n")[2] for table in tables}
    return System(
        manager=facts.get("manager", ""),
        kernel=facts.get("kernel", ""),
        now=now,
        uptime=timedelta(seconds=number(facts.get("uptime_s", "")) or 0),
        boot_id=facts.get("boot_id", ""),
        product=product,
        version=about.get("VERSION_ID", ""),
        name=about.get("PRETTY_NAME") or product,
        codename=about.get("VERSION_CODENAME", ""),
        is_raspbian=about["ID"] == "raspbian",
        support_end=_day(about.get("SUPPORT_END", "")),
        own=_own(product, about.get("VERSION_CODENAME", ""), rows.get(product, "")),
    )


def _unquoted(text: str) -> Mapping[str, str]:
    """os-release, whose values are quoted as for a shell."""

    def words() -> Iterator[tuple[str, str]]:
        for key, value in pairs(text).items():
            try:
                yield key, " ".join(shlex.split(value))
            except ValueError:
                yield key, value

    return dict(words())


def _own(product: str, codename: str, table: str) -> Lifetime | None:
    """The row of its own table for the release that it is."""
    for row in csv.DictReader(table.splitlines()):
        eol = _day(row.get("eol") or "")
        if codename and row.get("series") == codename and eol:
            return Lifetime(
                product=product,
                release=(row.get("version") or codename).removesuffix(" LTS"),
                eol=eol,
                extended=_day(row.get("eol-lts") or ""),
                by_subscription=_day(row.get("eol-esm") or ""),
            )
    return None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
