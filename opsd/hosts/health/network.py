"""A bad cable or plug: a link ten times slower than it should be, errors, a link that drops.

Only cards are looked at, no bridges and tunnels. Counts are told while they rise, and for a day.

Limits: that a card could be faster is known from ethtool, or because it was; not of Wi-Fi.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from opsd.hosts.health.counters import DAY, Count, counted
from opsd.hosts.health.look import Answer, Look, Part, number, values
from opsd.hosts.script import Probe
from opsd.model import Fact, Finding, Severity
from opsd.text import printable

PROBE = "health-network"
GIGABIT = 1000
DROPS = 6  # changes of the carrier in a day: it went away three times
ERRORS = 100  # in a day, and ...
ERRORS_OF_PACKETS = 0.0001  # ... more than one in ten thousand packets

_COMMAND = """\
[ -d /sys/class/net ] || exit 9
for path in /sys/class/net/*
do
    [ -e "$path/device" ] || continue
    [ -e "$path/phy80211" ] && echo "$path/is_wireless:1"
    grep -sH . "$path/operstate" "$path/carrier_changes" "$path/speed" "$path/duplex" \\
        "$path/statistics/rx_errors" "$path/statistics/tx_errors" "$path/statistics/rx_packets"
    case $(cat "$path/speed" 2>/dev/null) in 10|100)
        command -v ethtool >/dev/null && ethtool "${path##*/}" 2>/dev/null |
            sed -n '/Supported link/,/Supported pause/p' | grep -q 1000base &&
            echo "$path/is_gigabit:1";;
    esac
done
exit 0
"""


def read(look: Look) -> Answer:
    """Judge every card."""
    cards: dict[str, dict[str, str]] = {}
    for path, value in values(look.text(PROBE, what="network cards")).items():
        name, _, key = path.removeprefix("/sys/class/net/").partition("/")
        cards.setdefault(name, {})[key] = value
    found: list[Finding] = []
    facts: dict[str, Fact] = {}
    kept = {}
    for name, said in cards.items():
        before = look.kept.get(name)
        card = _Card(name, said, before if isinstance(before, Mapping) else {}, look)
        found.extend(card.findings())
        kept[name] = card.kept()
        facts[f"link_{name}"] = card.in_a_word()
    return Answer(findings=tuple(found), facts=facts, kept=kept)


class _Card:
    """One card, after what was kept of it."""

    def __init__(
        self, name: str, said: Mapping[str, str], before: Mapping[str, object], look: Look
    ) -> None:
        self._name, self._said, self._look = name, said, look
        self._speed = max(0, number(said.get("speed")) or 0)  # -1: unknown; virtual cards
        self._fastest = max(self._speed, number(str(before.get("fastest"))) or 0)
        if "is_gigabit" in said:
            self._fastest = max(self._fastest, GIGABIT)
        errors = sum(number(said.get(f"statistics/{way}_errors")) or 0 for way in ("rx", "tx"))
        self._errors = self._counted(before.get("errors"), errors)
        self._drops = self._counted(before.get("drops"), number(said.get("carrier_changes")) or 0)

    def _counted(self, kept: object, value: int) -> Count:
        is_new = not self._look.is_same_boot
        return counted(kept, value, at_s=self._look.at_s, period=DAY, is_new=is_new)

    def kept(self) -> dict[str, object]:
        return {
            "errors": self._errors.kept,
            "drops": self._drops.kept,
            "fastest": self._fastest,
        }

    @property
    def _is_up(self) -> bool:
        return self._said.get("operstate") in {"up", "unknown"}

    def in_a_word(self) -> str:
        if not self._is_up:
            return printable(self._said.get("operstate", "unknown"))
        speed = f", {self._speed} Mbit/s" if self._speed else ""
        return f"up{speed}{', Wi-Fi' if 'is_wireless' in self._said else ''}"

    def findings(self) -> Iterator[Finding]:
        machine, name = self._look.machine.name, printable(self._name)
        is_wired = "is_wireless" not in self._said
        if self._is_up and is_wired and 0 < self._speed < GIGABIT <= self._fastest:
            yield self._finding(
                "health.link_slow",
                f"{name} of {machine} runs at {self._speed} Mbit/s and could {self._fastest}",
            )
        if self._is_up and is_wired and self._said.get("duplex") == "half":
            yield self._finding("health.link_slow", f"{name} of {machine} runs half duplex")
        packets = number(self._said.get("statistics/rx_packets")) or 0
        if self._errors.risen_by >= max(ERRORS, packets * ERRORS_OF_PACKETS):
            yield self._finding(
                "health.link_errors",
                f"{name} of {machine} had {self._errors.risen_by} errors within a day",
            )
        if self._drops.risen_by >= DROPS:
            yield self._finding(
                "health.link_drops",
                f"{name} of {machine} lost its link {self._drops.risen_by // 2} times in a day",
            )

    def _finding(self, check: str, summary: str) -> Finding:
        return Finding(
            check=check,
            subject=self._look.subject(self._name),
            severity=Severity.WARNING,
            summary=summary[:120],
            remedy=f"replace the cable, try another port of the switch; on "
            f"{self._look.machine.name}: ethtool {self._name}",
            facts={
                "speed_mbit_s": self._speed or None,
                "duplex": self._said.get("duplex"),
                "errors": self._errors.value,
                "carrier_changes": self._drops.value,
            },
        )


PART = Part(name="network", probes=(Probe(name=PROBE, command=_COMMAND),), read=read)
