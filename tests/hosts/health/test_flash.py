"""Wear of eMMC; cards that say nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsd.hosts.health.flash import PART
from opsd.hosts.health.look import Unreadable
from opsd.hosts.script import Section
from opsd.model import Severity
from tests.rig.checkups import SHELLS, Tree, judged


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def emmc(tree: Tree, *, life: str, reserve: str = "0x01") -> None:
    said = {"type": "MMC", "name": "BJTD4R", "life_time": life, "pre_eol_info": reserve}
    tree.files("sys/block/mmcblk0/device", said)
    tree.files("sys/block/mmcblk0boot0/device", said)


@pytest.mark.parametrize(
    ("life", "severity"),
    [
        ("0x00 0x00", None),
        ("0x08 0x08", None),
        ("0x01 0x09", Severity.WARNING),
        ("0x0a 0x01", Severity.WARNING),
        ("0x0B 0x0A", Severity.CRITICAL),
    ],
)
def test_wear_is_told_from_eighty_percent_on(
    tree: Tree, life: str, severity: Severity | None
) -> None:
    emmc(tree, life=life)

    answer = tree.judged(PART)

    assert [one.severity for one in answer.findings] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("reserve", "severity"),
    [("0x00", None), ("0x01", None), ("0x02", Severity.WARNING), ("0x03", Severity.CRITICAL)],
)
def test_spare_blocks_that_run_out_are_told(
    tree: Tree, reserve: str, severity: Severity | None
) -> None:
    emmc(tree, life="0x01 0x01", reserve=reserve)

    answer = tree.judged(PART)

    assert [one.severity for one in answer.findings] == ([severity] if severity else [])


@pytest.mark.parametrize("shell", SHELLS)
def test_a_chip_is_told_once_and_not_for_each_of_its_parts(tree: Tree, shell: str) -> None:
    emmc(tree, life="0x0B 0x0B")

    answer = tree.judged(PART, shell=shell)

    assert [one.key for one in answer.findings] == [
        ("health.flash_worn", "machine/rpi3/flash/mmcblk0")
    ]
    assert answer.facts == {"flash_mmcblk0": "MMC BJTD4R, 100 % worn"}


def test_a_card_that_does_not_tell_its_wear_is_stated_as_not_measurable(tree: Tree) -> None:
    tree.files("sys/block/mmcblk0/device", {"type": "SD", "name": "SN64G"})

    answer = tree.judged(PART)

    assert not answer.findings
    assert answer.facts == {"flash_mmcblk0": "SD SN64G, wear not measurable"}


def test_a_machine_without_flash_has_nothing_to_say(tree: Tree) -> None:
    answer = tree.judged(PART)

    assert (answer.findings, answer.facts, answer.unknown) == ((), {}, ())


def test_without_sys_nothing_is_concluded() -> None:
    failed = Section(name="health-flash", stdout="", stderr="", status=9)

    with pytest.raises(Unreadable):
        judged(PART, {"health-flash": failed})
