"""One shell script that asks a machine many things, and its output taken apart again.

The script is read from stdin by `sh`. Each question is a section between two marks that the
output cannot forge, printed to both streams, so that complaints stay with their question. A
section whose end is missing was cut off: nothing is concluded from it.

Limits: POSIX sh; where `timeout` is missing only the whole script has a deadline.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NO_SUDO = (": sudo: not found", ": sudo: command not found")
PROBE_S = 10.0  # for one question, if it does not say otherwise

# `$root` stands before what only root may do. What a login shell set up is of no interest, and
# nothing is read from HOME or PATH that may lie on a dead file server.
_PREAMBLE = """\
LC_ALL=C LANG=C HOME=/ PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
export LC_ALL LANG HOME PATH
cd /
if [ "$(id -u)" = 0 ]; then root=; else root='sudo -n --'; fi
export root
if command -v timeout >/dev/null 2>&1; then
within() { timeout -s KILL "$@"; }
else
within() { shift; "$@"; }
fi
mark() { printf '\\n@@%s\\n' "$*"; printf '\\n@@%s\\n' "$*" >&2; }
"""

BEGIN, END = ".begin", ".end"  # no question has such a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to a machine."""

    name: str  #: unique in its script; letters, digits, ``-`` and ``.``
    command: str  #: POSIX shell; ``$root`` before what needs root; its stdin is empty
    within_s: float = PROBE_S  #: killed after that; its exit status is 137 then


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The whole answer to one question."""

    name: str
    stdout: str  #: undecodable bytes escaped
    stderr: str
    status: int  #: of the command

    @property
    def is_ok(self) -> bool:
        """Whether the command said that it succeeded."""
        return self.status == 0

    @property
    def is_refused(self) -> bool:
        """Whether sudo did not let it run, or is not there."""
        return any(
            line.startswith("sudo:") or line.endswith(_NO_SUDO)
            for line in self.stderr.splitlines()
        )

    def complaint(self) -> str:
        """The last line that says what was wrong, or the exit status."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return (
            f"{lines[-1]} (exit status {self.status})" if lines else f"exit status {self.status}"
        )


@dataclass(frozen=True, slots=True)
class Script:
    """Questions that are asked together."""

    probes: tuple[Probe, ...]
    token: str  #: nothing else prints it

    @classmethod
    def of(cls, probes: Iterable[Probe]) -> Script:
        """Put questions together; of two with one name the first is asked."""
        unique: dict[str, Probe] = {}
        for probe in probes:
            unique.setdefault(probe.name, probe)
        return cls(tuple(unique.values()), secrets.token_hex(8))

    @property
    def text(self) -> str:
        """What `sh` reads."""
        return (
            f'{_PREAMBLE}mark {self.token} {BEGIN} "$(date +%s)"\n'
            + "".join(self._section(probe) for probe in self.probes)
            + f"mark {self.token} {END}\nexit 0\n"
        )

    @property
    def mark(self) -> bytes:
        """What every mark begins with; a name follows, and of an answer its exit status."""
        return f"\n@@{self.token} ".encode()

    @property
    def longest_s(self) -> float:
        """Seconds that it may take when every question hangs."""
        return sum(probe.within_s for probe in self.probes)

    @property
    def silence_s(self) -> float:
        """Seconds for which it prints nothing at most."""
        return max((probe.within_s for probe in self.probes), default=0.0)

    def clock_s(self, stdout: bytes) -> int | None:
        """What the machine's clock showed when the script began; None: it did not say."""
        _, _, rest = stdout.partition(self.mark + f"{BEGIN} ".encode())
        seconds = rest.partition(b"\n")[0]
        return int(seconds) if seconds.isdigit() else None

    def _section(self, probe: Probe) -> str:
        mark = f"{self.token} {probe.name}"
        command = shlex.quote(probe.command)
        return (
            f"mark {mark}\n"
            f"within {probe.within_s:g} sh -c {command} </dev/null\n"
            f'mark {mark} "$?"\n'
        )

    def read(self, stdout: bytes, stderr: bytes) -> Mapping[str, Section]:
        """The answers that arrived whole, by name."""
        out, complaints = self._split(stdout), self._split(stderr)
        return {
            name: Section(
                name=name,
                stdout=text,
                stderr=complaints.get(name, ("", 0))[0],
                status=status,
            )
            for name, (text, status) in out.items()
        }

    def _split(self, stream: bytes) -> dict[str, tuple[str, int]]:
        """Text and exit status by name, of sections that have both marks."""
        found: dict[str, tuple[str, int]] = {}
        opened, lines = "", list[str]()
        for line in stream.decode("utf-8", "backslashreplace").split("\n"):
            marked = line.startswith(f"@@{self.token} ")
            _, name, status = (*line.split(" "), "", "")[:3] if marked else ("", "", "")
            if marked and not status:
                opened, lines = name, []
            elif marked and name == opened and status.isdigit():
                # The mark began with a newline of its own, so the text is as it was printed.
                found[opened] = ("\n".join(lines), int(status))
                opened = ""
            elif opened:
                lines.append(line)
        return found
