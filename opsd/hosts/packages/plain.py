"""What waits on Alpine (apk) and Arch (pacman), which do not mark security fixes?

Limits: only what the last refresh brought is known; its age is told with it.

Source: apk(8), pacman(8).
"""

from __future__ import annotations

import re

from opsd.hosts.packages.answers import Unreadable
from opsd.hosts.packages.pending import Pending, Standing, Update
from opsd.hosts.script import Probe

# The time of an index's content is the server's (%Y); that of its last change here is not (%Z).
APK = Probe(
    name="apk",
    command=r"""command -v apk >/dev/null 2>&1 || exit 0
apk version -l '<'; echo "@status $?"
for f in /var/cache/apk/APKINDEX.*.tar.gz /etc/apk/cache/APKINDEX.*.tar.gz; do
  [ -e "$f" ] && stat -c '@stamp %Z' "$f"
done
exit 0
""",
    within_s=60.0,
)
# -Qu compares with the databases as they are; -Sy would leave the machine half upgraded.
PACMAN = Probe(
    name="pacman",
    command=r"""command -v pacman >/dev/null 2>&1 || exit 0
pacman -Qu; echo "@status $?"
for f in /var/lib/pacman/sync/*.db; do [ -e "$f" ] && stat -c '@stamp %Z' "$f"; done
exit 0
""",
    within_s=60.0,
)

_APK = re.compile(r"(\S+)-(\d\S*-r\d+)\s+<\s+(\S+)")
_PACMAN = re.compile(r"(\S+) (\S+) -> (\S+)( \[ignored\])?")


def read_apk(answer: str) -> Pending:
    """What `APK` printed.

    Raises:
        Unreadable: apk failed, or has no index.
    """
    _refuse(answer, accepted=("0",), fix="apk update")
    found = (_APK.match(line) for line in answer.splitlines())
    return Pending(
        updates=tuple(
            Update(name=match[1], installed=match[2], candidate=match[3])
            for match in found
            if match
        ),
        knows_security=False,
    )


def read_pacman(answer: str) -> Pending:
    """What `PACMAN` printed.

    Raises:
        Unreadable: pacman failed, or has no databases.
    """
    _refuse(answer, accepted=("0", "1"), fix="pacman -Sy, as part of pacman -Syu")  # 1: none
    found = (_PACMAN.fullmatch(line.strip()) for line in answer.splitlines())
    return Pending(
        updates=tuple(
            Update(
                name=match[1],
                installed=match[2],
                candidate=match[3],
                standing=Standing.HELD if match[4] else Standing.READY,
            )
            for match in found
            if match
        ),
        knows_security=False,
    )


def _refuse(answer: str, *, accepted: tuple[str, ...], fix: str) -> None:
    if not re.search(rf"^@status ({'|'.join(accepted)})$", answer, re.MULTILINE):
        raise Unreadable("the package manager failed")
    if "@stamp " not in answer:
        raise Unreadable("no package list was ever fetched", fix=fix)
