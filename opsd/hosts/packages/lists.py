"""How old is what apt believes to be the newest? Old lists make every machine look patched.

The time of the last update is read from stamps that apt and its timers leave. The lists' own
times are no use: they are the server's. A security archive says until when its list may be
believed, and that is believed.

Limits: an archive without Valid-Until (most third-party ones) may have failed for weeks while
others were fetched; its key is looked at instead (`keys`).

Source: apt-secure(8); /usr/lib/apt/apt.systemd.daily.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from opsd.hosts.packages.answers import Unreadable, moment
from opsd.hosts.script import Probe

STALE_AFTER = timedelta(days=3)  # apt's own timer fetches twice a day
USELESS_AFTER = timedelta(days=7)  # as long as Debian's security lists are valid
FUTURE = timedelta(days=1)  # a stamp so far ahead says that a clock was wrong

_DIRECTORY = "/var/lib/apt/lists"

LISTS = Probe(
    name="lists",
    command=r"""command -v apt-get >/dev/null 2>&1 || exit 0
echo "@now $(date +%s)"
for f in /var/lib/apt/periodic/update-success-stamp /var/lib/apt/periodic/update-stamp \
  /var/lib/apt/lists /var/lib/apt/lists/partial; do stat -c '@stamp %Y %n' "$f" 2>/dev/null; done
for f in /var/lib/apt/lists/*_Packages*; do [ -e "$f" ] && { echo '@packages'; break; }; done
for f in /var/lib/apt/lists/*Release; do
  [ -r "$f" ] || continue
  echo "@release ${f##*/}"
  sed -n -e '/^\(MD5Sum\|SHA1\|SHA256\|SHA512\):/q' \
    -e '/^\(Origin\|Label\|Suite\|Codename\|Valid-Until\):/p' "$f"
done
exit 0
""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One repository of packages, as its Release file describes it."""

    file: str  #: in the directory of lists, e.g. ``host_debian_dists_trixie_InRelease``
    origin: str = ""
    label: str = ""
    suite: str = ""
    codename: str = ""
    valid_until: datetime | None = None

    @property
    def is_security(self) -> bool:
        """Whether security fixes come from it."""
        suites = (self.suite, self.codename)
        return self.label == "Debian-Security" or any(one.endswith("-security") for one in suites)

    @property
    def source(self) -> str:
        """``host/path suite`` as ``apt-cache policy`` would name it; empty for a flat one."""
        path, found, suite = self.file.rpartition("_dists_")
        suite = suite.removesuffix("_InRelease").removesuffix("_Release")
        return f"{path.replace('_', '/')} {suite.replace('_', '/')}" if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """What apt knows of the repositories."""

    archives: tuple[Archive, ...]
    fetched_at: datetime | None  #: by the machine's clock; None: never, or nobody noted it
    read_at: datetime  #: likewise

    @property
    def age(self) -> timedelta | None:
        """Since they were fetched."""
        return self.read_at - self.fetched_at if self.fetched_at else None

    @property
    def security_sources(self) -> frozenset[str]:
        """The security archives as ``apt-cache policy`` names them."""
        return frozenset(one.source for one in self.archives if one.is_security and one.source)

    def expired(self, now: datetime) -> Archive | None:
        """The archive whose list may not be believed any more for the longest time."""
        over = [one for one in self.archives if one.valid_until and one.valid_until < now]
        return min(over, key=lambda one: one.valid_until or now, default=None)


def read(answer: str) -> Lists:
    """What `LISTS` printed.

    Raises:
        Unreadable: there are no lists, or they come from the future.
    """
    if "@packages" not in answer.splitlines():
        raise Unreadable("no package list was ever fetched", fix="apt-get update")
    now = max(_moments(answer, "@now "), default=None)
    if now is None:
        raise Unreadable("the machine does not say what time it is")
    fetched_at = max(_moments(answer, "@stamp "), default=None)
    if fetched_at and fetched_at - now > FUTURE:
        raise Unreadable(
            f"the package lists were fetched on {fetched_at:%Y-%m-%d}, which is to come"
        )
    archives = (_archive(block) for block in answer.split("@release ")[1:])
    return Lists(archives=tuple(archives), fetched_at=fetched_at, read_at=now)


def _moments(answer: str, mark: str) -> Iterator[datetime]:
    for line in answer.splitlines():
        if line.startswith(mark) and (found := moment(line.split(" ")[1])):
            yield found


def _archive(block: str) -> Archive:
    file, *lines = block.splitlines() or [""]
    fields = dict(line.partition(": ")[::2] for line in lines)
    return Archive(
        file=file,
        origin=fields.get("Origin", ""),
        label=fields.get("Label", ""),
        suite=fields.get("Suite", ""),
        codename=fields.get("Codename", ""),
        valid_until=_date(fields.get("Valid-Until", "")),
    )


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
