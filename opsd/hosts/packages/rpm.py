"""What waits on Fedora, RHEL and its rebuilds (dnf), and on SUSE (zypper)?

Only what these have in their caches is asked for, so nothing is downloaded and nothing written;
the age of the cache is told with it. Security fixes are told by the advisories of the repository:
some repositories ship none, and then nobody can say.

Limits: of zypper's security patches the names of the advisories are told, not of the packages.

Source: dnf(8), zypper(8); outputs of dnf 4.14 and zypper 1.14.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from xml.etree import ElementTree as ET

from opsd.hosts.packages.answers import Unreadable, moment
from opsd.hosts.packages.pending import KUBERNETES, Pending, Update
from opsd.hosts.script import Probe

DNF_CHECK = "dnf -q -C check-update"
DNF_LIST = "dnf -q -C updateinfo list --updates"

_KUBERNETES = rf"""rpm -q --qf '@installed %{{NAME}} %{{VERSION}}-%{{RELEASE}}\n' \
  {" ".join(sorted(KUBERNETES))} 2>/dev/null | grep '^@installed '"""

DNF = Probe(
    name="dnf",
    command=rf"""command -v dnf >/dev/null 2>&1 || exit 0
$root {DNF_CHECK}; status=$?; echo "@checked $status"
case $status in 0|100) ;; *) exit "$status";; esac
$root {DNF_LIST}; echo "@listed $?"
stat -c '@stamp %Y' /var/cache/dnf/*/repodata/repomd.xml /var/cache/libdnf5/*/repodata/repomd.xml \
  2>/dev/null
{_KUBERNETES}
sed -n 's/^exclude=/@exclude /p' /etc/yum.repos.d/*.repo 2>/dev/null
exit 0
""",
    within_s=120.0,
)
# The time of the file's content is the server's (%Y); that of its last change here is not (%Z).
ZYPPER = Probe(
    name="zypper",
    command=rf"""command -v zypper >/dev/null 2>&1 || exit 0
zypper --non-interactive --no-refresh --xmlout list-patches; echo "@patches $?"
zypper --non-interactive --no-refresh --xmlout list-updates; echo "@updates $?"
stat -c '@stamp %Z' /var/cache/zypp/raw/*/repodata/repomd.xml 2>/dev/null
{_KUBERNETES}
exit 0
""",
    within_s=120.0,
)

_CHECKED = re.compile(r"^@checked ([0-9]{1,3})$", re.MULTILINE)
_LINE = re.compile(r"(\S+)\.([^.\s]+)\s+(\S+)\s+(\S+)")
_NEVRA = re.compile(r"\s(\S+)-[^-\s]+-[^-\s]+\.[a-z]\w+(?:\s|$)")  # name-version-release.arch
_DNF_UPDATES = 100  # exit status of check-update: there are some


def read_dnf(answer: str) -> Pending:
    """What `DNF` printed.

    Raises:
        Unreadable: dnf failed, as without a cache.
    """
    checked = _CHECKED.search(answer)
    if checked is None or int(checked[1]) not in (0, _DNF_UPDATES):
        raise Unreadable("dnf check-update failed: is its cache filled?", fix="dnf makecache")
    listed = answer[checked.end() :].partition("\n@listed ")[0].strip("\n")
    fixed = {name for line in listed.splitlines() for name in _security_name(line)}
    updates = tuple(
        Update(
            name=match[1],
            candidate=match[3],
            is_security=match[1] in fixed,
        )
        for line in answer[: checked.start()].partition("\nObsoleting Packages")[0].splitlines()
        if (match := _LINE.fullmatch(line.strip()))
    )
    if bool(updates) != (int(checked[1]) == _DNF_UPDATES):
        raise Unreadable("dnf says otherwise than it lists")
    return Pending(updates=updates, knows_security=bool(listed) or not updates)


def _security_name(line: str) -> Iterator[str]:
    """The package of a security advisory: of ``RHSA-2026:1 Important/Sec. bash-5.1-9.noarch``."""
    is_security = any(word.endswith("/Sec.") or word == "security" for word in line.split())
    package = _NEVRA.search(line)
    if is_security and package:
        yield package[1]


def excluded(answer: str) -> set[str]:
    """Names that ``exclude=`` of a repository keeps where they are."""
    lines = [line for line in answer.splitlines() if line.startswith("@exclude ")]
    return {name for line in lines for name in re.split(r"[\s,]+", line)[1:]}


def read_zypper(answer: str) -> Pending:
    """What `ZYPPER` printed.

    Raises:
        Unreadable: zypper failed, or what it printed is no XML.
    """
    patches, _, rest = answer.partition("\n@patches ")
    updates, _, end = rest.partition("\n")[2].partition("\n@updates ")
    status = end.partition("\n")[0]
    if not (status == "0" or status.startswith("10")):  # 100 and above: and something to know
        raise Unreadable("zypper failed: are its repositories refreshed?", fix="zypper refresh")
    advisories = tuple(
        patch.get("name", "")
        for patch in _elements(patches, "patch")
        if patch.get("category") == "security" and patch.get("status", "needed") == "needed"
    )
    return Pending(
        updates=tuple(
            Update(
                name=one.get("name", ""),
                installed=one.get("edition-old", ""),
                candidate=one.get("edition", ""),
            )
            for one in _elements(updates, "package")
        ),
        advisories=advisories,
    )


def _elements(xml: str, kind: str) -> list[ET.Element]:
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise Unreadable("zypper printed what it never prints")
    try:
        root = ET.fromstring(xml.strip())  # noqa: S314 - without entities nothing can grow
    except ET.ParseError as exc:
        raise Unreadable(f"zypper printed no XML: {exc}") from exc
    if root.find(".//update-list") is None:
        raise Unreadable("zypper listed nothing, not even that there is nothing")
    return [one for one in root.iter("update") if one.get("kind") == kind]


def installed(answer: str) -> dict[str, str]:
    """The versions of the packages of Kubernetes."""
    lines = [line.split() for line in answer.splitlines() if line.startswith("@installed ")]
    return {words[1]: words[2] for words in lines if len(words) == 3}  # noqa: PLR2004


def filled_at(answer: str) -> datetime | None:
    """When the cache was last filled, by the machine's clock."""
    found = (line.removeprefix("@stamp ") for line in answer.splitlines())
    return max((at for one in found if (at := moment(one))), default=None)
