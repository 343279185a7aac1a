"""Network cards: slow, faulty and dropping links."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from opsd.hosts.health.look import Answer
from opsd.hosts.health.network import PART
from opsd.testing import START
from tests.rig.checkups import SHELLS, Tree

ETHTOOL = """cat <<'END'
Settings for eth0:
    Supported ports: [ TP MII ]
    Supported link modes:   10baseT/Half 10baseT/Full
                            100baseT/Half 100baseT/Full
                            1000baseT/Full
    Supported pause frame use: Symmetric Receive-only
    Speed: 100Mb/s
END"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def card(tree: Tree, **said: object) -> Tree:
    standard = {
        "device/vendor": "0x14e4",
        "operstate": "up",
        "speed": 1000,
        "duplex": "full",
        "carrier_changes": 2,
        "statistics/rx_errors": 0,
        "statistics/tx_errors": 0,
        "statistics/rx_packets": 10_000,
    }
    tree.files("sys/class/net/eth0", {**standard, **said})
    return tree


def checks(answer: Answer) -> list[str]:
    return [one.check for one in answer.findings]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_healthy_link_is_stated(tree: Tree, shell: str) -> None:
    answer = card(tree).judged(PART, shell=shell)

    assert checks(answer) == []
    assert answer.facts == {"link_eth0": "up, 1000 Mbit/s"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_gigabit_card_at_a_tenth_of_it_is_told(tree: Tree, shell: str) -> None:
    tree.program("ethtool", ETHTOOL)

    answer = card(tree, speed=100).judged(PART, shell=shell)

    assert checks(answer) == ["health.link_slow"]


def test_a_card_that_can_do_no_more_is_no_finding(tree: Tree) -> None:
    tree.program("ethtool", ETHTOOL.replace("1000baseT/Full", ""))

    assert checks(card(tree, speed=100).judged(PART)) == []


def test_without_ethtool_a_card_that_was_faster_is_told(tree: Tree) -> None:
    before = card(tree).judged(PART)

    slow = card(tree, speed=100).judged(PART, kept=before.kept)
    never_faster = card(tree, speed=100).judged(PART)

    assert checks(slow) == ["health.link_slow"]
    assert checks(never_faster) == []


def test_half_duplex_is_told(tree: Tree) -> None:
    assert checks(card(tree, duplex="half").judged(PART)) == ["health.link_slow"]


def test_a_cable_that_is_out_is_stated_and_not_told(tree: Tree) -> None:
    answer = card(tree, operstate="down", speed=-1).judged(PART)

    assert checks(answer) == []
    assert answer.facts == {"link_eth0": "down"}


@pytest.mark.parametrize(("errors", "told"), [(99, []), (100, ["health.link_errors"])])
def test_errors_that_rise_are_told_for_a_day(tree: Tree, errors: int, told: list[str]) -> None:
    before = card(tree, **{"statistics/rx_errors": 5000}).judged(PART)

    risen = card(tree, **{"statistics/rx_errors": 5000 + errors}).judged(PART, kept=before.kept)

    assert checks(before) == []
    assert checks(risen) == told


def test_a_hundred_errors_among_billions_of_packets_are_none(tree: Tree) -> None:
    many = {"statistics/rx_packets": 5_000_000_000}
    before = card(tree, **many).judged(PART)

    risen = card(tree, **{**many, "statistics/rx_errors": 200}).judged(PART, kept=before.kept)

    assert checks(risen) == []


def test_a_restart_never_is_a_rise(tree: Tree) -> None:
    before = card(tree).judged(PART)

    restarted = card(tree, **{"statistics/rx_errors": 700, "carrier_changes": 40}).judged(
        PART, kept=before.kept, is_same_boot=False
    )

    assert checks(restarted) == []


@pytest.mark.parametrize(("changes", "told"), [(7, []), (8, ["health.link_drops"])])
def test_a_link_lost_three_times_in_a_day_is_told(
    tree: Tree, changes: int, told: list[str]
) -> None:
    before = card(tree).judged(PART)

    risen = card(tree, carrier_changes=changes).judged(PART, kept=before.kept)

    assert checks(risen) == told


def test_drops_of_several_days_do_not_add_up(tree: Tree) -> None:
    answer = card(tree).judged(PART)

    for day in range(1, 6):
        look = card(tree, carrier_changes=2 + 2 * day)
        answer = look.judged(PART, kept=answer.kept, at=_day(day))

    assert checks(answer) == []


def _day(day: int) -> datetime:

    return START + timedelta(days=day)


def test_bridges_and_tunnels_are_no_cards(tree: Tree) -> None:
    tree.files("sys/class/net/cni0", {"operstate": "up", "speed": 10, "duplex": "half"})

    assert tree.judged(PART).facts == {}


def test_the_speed_of_wifi_is_not_judged(tree: Tree) -> None:
    card(tree, speed=54, duplex="half")
    tree.files("sys/class/net/eth0/phy80211", {"name": "phy0"})

    answer = tree.judged(PART)

    assert checks(answer) == []
    assert answer.facts == {"link_eth0": "up, 54 Mbit/s, Wi-Fi"}
