"""Was the question answered at all? What was not is unknown, with the reason and the fix.

An empty answer and no answer look alike to a careless reader, and "no updates" is the most
welcome of all wrong answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from opsd.errors import PermanentError
from opsd.hosts.script import Section

_NUMBER = re.compile(r"[0-9]{1,11}")  # as seconds since 1970 no longer than a date can be

KILLED = 137  # exit status of what took too long


class Unreadable(PermanentError):
    """One thing about a machine cannot be told; the text says why."""

    def __init__(self, why: str, *, fix: str = "") -> None:
        """`fix`: what to do on the machine."""
        super().__init__(why)
        self.fix = fix


def whole(sections: Mapping[str, Section], name: str, *, root: str = "") -> Section:
    """The answer to one question, whatever its exit status.

    Args:
        sections: of one visit.
        name: of the question.
        root: the command that sudo has to let through, if the question needs one.

    Raises:
        Unreadable: it was cut off, took too long, or sudo refused.
    """
    section = sections.get(name)
    if section is None:
        raise Unreadable("the answer was cut off")
    if section.status == KILLED:
        raise Unreadable("it took too long and was ended")
    if section.is_refused and not section.is_ok:  # sudo also warns, and runs it
        line = f"let opsd run {root} as root (docs/nodes.md)" if root else ""
        raise Unreadable(f"sudo refused: {section.complaint()}", fix=line)
    return section


def text(sections: Mapping[str, Section], name: str, *, root: str = "") -> str:
    """What was printed by a question that succeeded.

    Raises:
        Unreadable: as of `whole`, or it failed.
    """
    section = whole(sections, name, root=root)
    if not section.is_ok:
        raise Unreadable(_complaint(section))
    return section.stdout


def _complaint(section: Section) -> str:
    """Of the several errors of apt the first is the cause; of others the last line."""
    errors = [line for line in section.stderr.splitlines() if line.startswith("E: ")]
    return errors[0].removeprefix("E: ") if errors else section.complaint()


def pairs(answer: str) -> dict[str, str]:
    """The lines ``key=value``; of two with one key the last."""
    found = (line.partition("=") for line in answer.splitlines())
    return {key: value.strip() for key, sign, value in found if sign}


def number(written: str) -> int | None:
    """A whole number that a machine printed; None: it is none."""
    return int(written) if _NUMBER.fullmatch(written.strip()) else None


def moment(written: str) -> datetime | None:
    """Seconds since 1970 as an aware time in UTC; None: they are none."""
    seconds = number(written)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
