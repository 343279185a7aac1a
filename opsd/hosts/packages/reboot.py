"""Does the machine run what is installed, or does it need a reboot first?

Distributions leave a note, and most of them only for kernels and only by one of their tools. So
the running kernel is also compared with the installed ones of its own flavour: on a Pi kernels
for other models lie beside it and are no reason to reboot.

Limits: what runs beside the kernel is told by needrestart, where that is installed.

Source: reboot-required of Debian and Ubuntu, reboot-needed of SUSE; needrestart README.batch.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from opsd.hosts.packages.answers import moment, pairs
from opsd.hosts.script import Probe

ROOT = (
    "needrestart -b -l -w -r l"  # services and microcode: its look at kernels is slow and unused
)

KERNEL = Probe(
    name="kernel",
    command=r"""running=$(uname -r)
echo "running=$running"; echo "build=$(uname -v)"
[ -e /proc/modules ] && echo 'modular=yes'
[ -d "/lib/modules/$running" ] && echo 'has_modules=yes'
for d in /lib/modules/*/; do
  [ -e "$d/modules.builtin" ] && { d=${d%/}; echo "@installed ${d##*/}"; }
done
for f in /run/reboot-required /run/reboot-needed; do
  [ -e "$f" ] && stat -c 'noted_s=%Y' "$f" && echo "note=$f" && break
done
[ -e /run/reboot-required.pkgs ] && sort -u /run/reboot-required.pkgs | sed 's/^/@for /'
if command -v dnf >/dev/null 2>&1; then
  timeout 20 dnf -q -C needs-restarting -r >/dev/null 2>&1; [ $? = 1 ] && echo 'says=dnf'
elif command -v zypper >/dev/null 2>&1; then
  timeout 20 zypper --non-interactive needs-rebooting >/dev/null 2>&1
  [ $? = 102 ] && echo 'says=zypper'
fi
exit 0
""",
    within_s=30.0,
)
# Lists only, restarts nothing. Takes seconds on a Pi.
SERVICES = Probe(
    name="services",
    command=f"""command -v needrestart >/dev/null 2>&1 || exit 0
nice -n 19 $root {ROOT}
""",
    within_s=60.0,
)

# 6.1.0-56 -cloud-amd64; 6.6.51 +rpt-rpi-v8; 5.14.0-503.11.1 .el9_5.x86_64; 6.8.0-1013 -raspi
_RELEASE = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,9})*(?:-rc[0-9]{1,9})?(?:-[0-9]{1,9}(?:\.[0-9]{1,9})*)?)(.*)"
)
_NO_FLAVOUR = re.compile(
    r"\+(?:deb\d+(?:u\d+)?|bpo(?:\.\d+)?)|\.(?:el|fc)\d+(?:_\d+)?|-arch\d+-\d+"
)
_BUILD = re.compile(r"\bDebian (\S+) \(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What runs, what is installed, and what was noted."""

    running: str  #: ``6.12.48+deb13-amd64``
    build: str = ""  #: version of the package that it was built as, if it says so
    installed: tuple[str, ...] = ()
    is_without_modules: bool = False  #: those of the running kernel are gone
    noted_at: datetime | None = None  #: by the machine's clock
    noted: str = ""  #: the file, or the program, that asks for a reboot
    noted_for: tuple[str, ...] = ()  #: packages

    @property
    def newest(self) -> str:
        """The newest installed one of the running one's flavour, if it is newer."""
        version, flavour = _split(self.running)
        newer = [
            (_split(one)[0], one)
            for one in self.installed
            if _split(one)[1] == flavour and _split(one)[0] > version
        ]
        return max(newer)[1] if newer and version else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What needrestart says."""

    outdated: tuple[str, ...] = ()  #: services that still run what was replaced
    needs_microcode: bool = False  #: newer microcode waits for a reboot


def _split(release: str) -> tuple[tuple[int, ...], str]:
    match = _RELEASE.fullmatch(release)
    if match is None:
        return (), release
    numbers = tuple(int(number) for number in re.findall(r"[0-9]+", match[1]))
    return numbers, _NO_FLAVOUR.sub("", match[2])


def read(answer: str) -> Kernels:
    """What `KERNEL` printed."""
    facts, lines = pairs(answer), answer.splitlines()
    installed = tuple(one.removeprefix("@installed ") for one in lines if one.startswith("@inst"))
    build = _BUILD.search(facts.get("build", ""))
    return Kernels(
        running=facts.get("running", ""),
        build=build[1] if build else "",
        installed=installed,
        # A kernel without loadable modules has none to miss.
        is_without_modules="modular" in facts and "has_modules" not in facts and bool(installed),
        noted_at=moment(facts.get("noted_s", "")),
        noted=facts.get("note", "") or facts.get("says", ""),
        noted_for=tuple(one.removeprefix("@for ") for one in lines if one.startswith("@for ")),
    )


def read_services(answer: str) -> Services:
    """What `SERVICES` printed; its word on the kernel is not taken, nor that on sessions."""
    found = [line.partition(": ") for line in answer.splitlines()]
    return Services(
        outdated=tuple(sorted(value for key, _, value in found if key == "NEEDRESTART-SVC")),
        needs_microcode=any((key, value) == ("NEEDRESTART-UCSTA", "2") for key, _, value in found),
    )
