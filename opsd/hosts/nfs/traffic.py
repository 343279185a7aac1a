"""What the kernel counts of its talk with file servers: requests that nobody answers. Pure.

Two samples tell what a look cannot: that requests went out, or wait to, and no answer came in.

Limits: counters of a connection belong to the server; mounts of one server usually share it.

Source: kernel, net/sunrpc/stats.c and xprtsock.c, the statistics of /proc/self/mountstats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Words after ``xprt: tcp``: port, binds, connects, connect time, idle time, then these.
_SENDS, _RECEIVES, _WORDS = 5, 6, 7
LEAST_S = 4.0  # between two samples that say something
_OP_WORDS = 3  # of an operation that count here: operations, transmissions, major timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters of a mount since it was made."""

    sent: int = 0  #: requests
    received: int = 0  #: answers
    operations: int = 0
    transmissions: int = 0  #: with repeated ones
    timeouts: int = 0  #: after which a hard mount says "not responding"

    def __add__(self, other: Sample) -> Sample:
        return Sample(
            sent=self.sent + other.sent,
            received=self.received + other.received,
            operations=self.operations + other.operations,
            transmissions=self.transmissions + other.transmissions,
            timeouts=self.timeouts + other.timeouts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What happened on a mount between two samples."""

    seconds: float
    sent: int
    received: int
    repeated: int  #: transmissions of requests that were sent before
    timeouts: int

    @property
    def unanswered(self) -> int:
        """Requests of this time without an answer.

        All that were ever sent do not count: those of processes that were killed are never
        answered, also by a server that is well.
        """
        return max(0, self.sent - self.received)

    @property
    def is_stalled(self) -> bool:
        """Whether something was asked, and nothing answered, for longer than any healthy delay."""
        asked = self.sent > 0 or self.repeated > 0
        return asked and self.received == 0 and self.seconds >= LEAST_S


def compare(before: str, after: str) -> Mapping[str, Traffic]:
    """What happened, by path of the mount; mounts that are not in both samples are left out."""
    (began_s, first), (ended_s, second) = _parse(before), _parse(after)
    return {
        path: Traffic(
            seconds=ended_s - began_s,
            sent=last.sent - first[path].sent,
            received=last.received - first[path].received,
            repeated=(last.transmissions - last.operations)
            - (first[path].transmissions - first[path].operations),
            timeouts=last.timeouts - first[path].timeouts,
        )
        for path, last in second.items()
        if path in first
    }


def _parse(text: str) -> tuple[float, dict[str, Sample]]:
    """Time of the sample in seconds since the start, and counters by path."""
    uptime_s, path, found = 0.0, "", dict[str, Sample]()
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["uptime", seconds] if seconds.replace(".", "", 1).isdecimal():
                uptime_s = float(seconds)
            case ["device", _, "mounted", "on", path, *_]:
                found[path] = Sample()
            case ["xprt:", _, *counters] if path and _are_numbers(counters, _WORDS):
                found[path] += Sample(
                    sent=int(counters[_SENDS]), received=int(counters[_RECEIVES])
                )
            case [name, *counters] if path and name.endswith(":"):
                found[path] += _operation(counters)
    return uptime_s, found


def _operation(counters: list[str]) -> Sample:
    if not _are_numbers(counters, _OP_WORDS):
        return Sample()
    operations, transmissions, timeouts = map(int, counters[:_OP_WORDS])
    return Sample(operations=operations, transmissions=transmissions, timeouts=timeouts)


def _are_numbers(words: list[str], count: int) -> bool:
    return len(words) >= count and all(word.isdecimal() for word in words[:count])
