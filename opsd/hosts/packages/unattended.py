"""Does the machine install updates by itself, does that work, and may it reboot for them?

A machine of a cluster that reboots by itself does so without moving its pods away first.

Limits: unattended-upgrades of Debian and Ubuntu. Its own dry run is never asked: it writes.

Source: /usr/lib/apt/apt.systemd.daily; /etc/apt/apt.conf.d/50unattended-upgrades.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from opsd.hosts.packages.answers import moment
from opsd.hosts.script import Probe

LOG = "/var/log/unattended-upgrades/unattended-upgrades.log"
ROOT = f"tail -n 100 {LOG}"

SETTINGS = Probe(
    name="unattended",
    command=r"""command -v apt-config >/dev/null 2>&1 || exit 0
apt-config dump | grep -E '^(APT::Periodic|Unattended-Upgrade)::'
command -v unattended-upgrade >/dev/null 2>&1 && echo '@installed'
if command -v systemctl >/dev/null 2>&1; then
  echo "@timer $(systemctl is-enabled apt-daily-upgrade.timer 2>/dev/null)"
fi
stat -c '@ran %Y' /var/lib/apt/periodic/unattended-upgrades-stamp 2>/dev/null
exit 0
""",
)
LATEST = Probe(
    name="unattended-log",
    command=f"""command -v unattended-upgrade >/dev/null 2>&1 || exit 0
tail -n 100 {LOG} 2>/dev/null || $root {ROOT}
""",
)

_SETTING = re.compile(r'^([\w:-]+) "(.*)";$', re.MULTILINE)
_SPARED = re.compile(r'^Unattended-Upgrade::Package-Blacklist:: "(.+)";$', re.MULTILINE)
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ([A-Z]+) (.*)$", re.MULTILINE)
_YES = ("true", "yes", "1", "on", "with", "enable")  # as apt reads a boolean
_OFF = ("0", "", "no", "false", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unattended:
    """How the machine keeps itself up to date."""

    is_installed: bool
    is_enabled: bool = False
    reboots: bool = False  #: by itself, when an update asks for it
    reboots_at: str = ""  #: ``02:00``; ``now``: at once
    ran_at: datetime | None = None  #: by the machine's clock
    spared: tuple[str, ...] = ()  #: patterns of packages that they leave alone

    def spares(self, name: str) -> bool:
        """Whether they leave a package alone."""
        return any(_matches(pattern, name) for pattern in self.spared)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.match(pattern, name) is not None
    except re.error:
        return False


def read(answer: str) -> Unattended:
    """What `SETTINGS` printed."""
    lines = answer.splitlines()
    settings = {name.lower(): value for name, value in _SETTING.findall(answer)}
    timers = [line.removeprefix("@timer").strip() for line in lines if line.startswith("@timer")]
    ran = [line.removeprefix("@ran ") for line in lines if line.startswith("@ran ")]
    is_installed = "@installed" in lines
    return Unattended(
        is_installed=is_installed,
        is_enabled=is_installed
        and settings.get("apt::periodic::enable", "1") not in _OFF
        and settings.get("apt::periodic::unattended-upgrade", "0") not in _OFF
        and not (timers and timers[0] in ("disabled", "masked")),
        reboots=settings.get("unattended-upgrade::automatic-reboot", "").lower() in _YES,
        reboots_at=settings.get("unattended-upgrade::automatic-reboot-time", "now"),
        ran_at=moment(ran[0]) if ran else None,
        spared=tuple(_SPARED.findall(answer)),
    )


def failure(log: str) -> str:
    """The last complaint of its last run; empty: it had none."""
    found = ""
    for level, message in _LINE.findall(log):
        if message.startswith("Starting unattended upgrades script"):
            found = ""
        elif level in ("ERROR", "CRITICAL"):
            found = message
    return found
