"""SMART of every disk.

There is no disk with SMART here. `UNSUPPORTED` is what the real smartctl 7.3 prints for a
virtual disk; the other documents hold those fields of its JSON that are documented and read.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from opsd.hosts.health import disks
from opsd.hosts.health.disks import PART
from opsd.hosts.health.look import Answer, Unreadable
from opsd.hosts.script import Section
from opsd.model import Severity
from opsd.testing import START
from tests.rig.checkups import SHELLS, Tree, judged

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
UNSUPPORTED = {
    "json_format_version": [1, 0],
    "smartctl": {
        "version": [7, 3],
        "argv": ["smartctl", "-n", "standby", "-j", "-i", "-H", "-A", "/dev/vda"],
        "messages": [{"string": "/dev/vda: Unable to detect device type", "severity": "error"}],
        "exit_status": 1,
    },
}
ASLEEP = {
    "smartctl": {
        "messages": [{"string": "Device is in STANDBY mode, exit(2)", "severity": "information"}],
        "exit_status": 2,
    },
    "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
}


def ata(*, passed: bool = True, status: int = 0, **raw: int) -> dict[str, Any]:
    """A SATA disk; `raw` are values of attributes, as ``s197=8``."""
    return {
        "smartctl": {"exit_status": status},
        "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
        "model_name": "WDC WD40EFRX",
        "serial_number": "WD-1",
        "smart_support": {"available": True, "enabled": True},
        "smart_status": {"passed": passed},
        "ata_smart_attributes": {
            "table": [
                {
                    "id": int(key[1:]),
                    "name": f"Attribute_{key[1:]}",
                    "when_failed": "now" if status & 16 else "",
                    "raw": {"value": value, "string": str(value)},
                }
                for key, value in raw.items()
            ]
        },
        "temperature": {"current": 34},
        "power_on_time": {"hours": 9000},
    }


def nvme(*, status: int = 0, **log: int) -> dict[str, Any]:
    return {
        "smartctl": {"exit_status": status},
        "device": {"name": "/dev/nvme0", "type": "nvme", "protocol": "NVMe"},
        "model_name": "Samsung SSD 980",
        "serial_number": "S1",
        "smart_status": {"passed": not status & 8},
        "nvme_smart_health_information_log": {
            "critical_warning": 0,
            "available_spare": 100,
            "percentage_used": 3,
            "media_errors": 0,
            "num_err_log_entries": 900,
            **log,
        },
    }


def read(document: object, *, name: str = "sda", **about: Any) -> Answer:
    """A look at one disk."""
    text = document if isinstance(document, str) else json.dumps(document)
    status = document["smartctl"]["exit_status"] if isinstance(document, dict) else 0
    return judged(PART, {disks.PROBE: f"< {name}\n{text}\n> {status}\n"}, **about)


def severities(answer: Answer) -> list[Severity]:
    return [one.severity for one in answer.findings]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (ata(s5=0, s197=0, s198=0), []),
        (ata(s197=8), [WARNING]),
        (ata(s5=1), [WARNING]),
        (ata(s198=2), [WARNING]),
        (ata(s187=4), []),  # not about lost sectors of this disk
        (ata(passed=False, status=8), [CRITICAL]),
        (ata(status=16, s10=3), [CRITICAL]),
        (ata(status=32), [WARNING]),
        (ata(status=64), []),  # old errors of a cable
        (ata(status=128), [WARNING]),
        (nvme(), []),
        (nvme(critical_warning=1, status=8), [CRITICAL]),
        (nvme(critical_warning=8), [CRITICAL]),
        (nvme(media_errors=1), [WARNING]),
        (nvme(percentage_used=80), []),
        (nvme(percentage_used=81), [WARNING]),
        (nvme(status=64), []),  # commands that it does not know
    ],
)
def test_a_disk_is_judged_by_its_own_word_and_by_what_it_lost(
    document: dict[str, Any], told: list[Severity]
) -> None:
    answer = read(document)

    assert severities(answer) == told
    assert not answer.unknown


def test_sectors_lost_since_the_last_look_are_critical_for_a_week() -> None:
    before = read(ata(s197=8))

    risen = read(ata(s197=9), kept=before.kept, at=START + timedelta(hours=1))
    still = read(ata(s197=9), kept=risen.kept, at=START + timedelta(days=7))
    quiet = read(ata(s197=9), kept=risen.kept, at=START + timedelta(days=7, hours=1))

    assert [severities(one) for one in (before, risen, still, quiet)] == [
        [WARNING],
        [CRITICAL],
        [CRITICAL],
        [WARNING],
    ]


def test_counts_belong_to_the_disk_and_not_to_its_letter() -> None:
    before = read(ata(s5=2), name="sda")

    swapped = read({**ata(s5=900), "serial_number": "WD-2"}, name="sda", kept=before.kept)
    moved = read(ata(s5=3), name="sdb", kept=swapped.kept)

    assert severities(swapped) == [WARNING]
    assert severities(moved) == [CRITICAL]


def test_a_disk_that_sleeps_is_left_asleep_and_what_is_open_on_it_stays() -> None:
    before = read(ata(s197=8))

    answer = read(ASLEEP, kept=before.kept)
    awake = read(ata(s197=9), kept=answer.kept)

    assert answer.unseen == ("machine/rpi3/disk/sda",)
    assert (answer.findings, answer.unknown) == ((), ())
    assert severities(awake) == [CRITICAL]


def test_a_device_that_is_absent_is_no_disk_that_sleeps() -> None:
    failed = {
        "smartctl": {
            "messages": [{"string": "Smartctl open device: /dev/sda failed: No such device"}],
            "exit_status": 2,
        }
    }

    answer = read(failed)

    assert not answer.unseen
    assert "No such device" in answer.unknown[0].why


@pytest.mark.parametrize(
    "document",
    [
        UNSUPPORTED,
        {**ata(), "smart_support": {"available": False}, "smart_status": {}},
    ],
)
def test_what_has_no_smart_is_stated_and_not_told(document: dict[str, Any]) -> None:
    answer = read(document)

    assert (answer.findings, answer.unknown) == ((), ())
    assert str(answer.facts["disk_sda"]).startswith("not measurable")


def test_smart_that_is_switched_off_is_unknown_with_the_command_for_it() -> None:
    answer = read({**ata(), "smart_support": {"available": True, "enabled": False}})

    assert [one.fix for one in answer.unknown] == ["smartctl -s on /dev/sda"]


@pytest.mark.parametrize("text", ["", "{", "[]", "garbage", '{"smartctl": 7}'])
def test_what_is_no_answer_of_smartctl_is_unknown(text: str) -> None:
    answer = read(text)

    assert [one.what for one in answer.unknown] == ["disk sda"]
    assert not answer.findings


def test_a_disk_that_never_answers_is_named_and_the_others_are_judged() -> None:
    sda = f"< sda\n{json.dumps(ata(s197=8))}\n> 0\n< sdb\n"
    killed = Section(name=disks.PROBE, stdout=sda, stderr="", status=137)

    answer = judged(PART, {disks.PROBE: killed})

    assert severities(answer) == [WARNING]
    assert [one.what for one in answer.unknown] == ["disk sdb"]


def test_a_refused_sudo_is_unknown_with_the_page_of_rights() -> None:
    refused = Section(
        name=disks.PROBE,
        stdout="< sda\n\n> 1\n",
        stderr="sudo: a password is required\n",
        status=0,
    )

    answer = judged(PART, {disks.PROBE: refused})

    assert "sudo: a password is required" in answer.unknown[0].why
    assert "docs/nodes.md" in answer.unknown[0].fix


def test_an_answer_that_was_cut_off_says_nothing() -> None:
    with pytest.raises(Unreadable):
        judged(PART, {})


class TestTheScript:
    """Asked of a tree of files, with a program that prints what smartctl would."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Tree:
        tree = Tree(tmp_path)
        tree.files("sys/block/sda", {"size": 1000, "device/model": "WDC WD40EFRX"})
        return tree

    def says(self, tree: Tree, *cases: tuple[str, object], status: int = 0) -> None:
        """A program in the place of smartctl, that answers by what stands in its arguments."""
        branches = "".join(
            f"*'{word}'*) cat <<'END'\n{json.dumps(said)}\nEND\n;;\n" for word, said in cases
        )
        tree.program("smartctl", f'case "$*" in\n{branches}esac\nexit {status}')

    @pytest.mark.parametrize("shell", SHELLS)
    def test_every_disk_is_asked_and_none_is_woken(self, tree: Tree, shell: str) -> None:
        tree.files("sys/block/sdb", {"size": 0})  # a card reader without a card
        tree.files("sys/class/nvme/nvme0", {"model": "Samsung"})
        self.says(tree, ("-n standby -j", ata(s197=1)))

        answer = tree.judged(PART, shell=shell)

        assert [one.subject for one in answer.findings] == [
            "machine/rpi3/disk/nvme0",
            "machine/rpi3/disk/sda",
        ]

    def test_a_bridge_that_smartctl_does_not_know_is_asked_as_sata(self, tree: Tree) -> None:
        bridge = {"smartctl": {"messages": [{"string": "Unknown USB bridge [0x152d:0x0583]"}]}}
        self.says(tree, ("-d sat", ata(s197=1)), ("standby", bridge))

        answer = tree.judged(PART)

        assert severities(answer) == [WARNING]

    def test_the_exit_status_of_smartctl_is_its_own_and_no_failure(self, tree: Tree) -> None:
        self.says(tree, ("standby", ata(passed=False, status=8)), status=8)

        answer = tree.judged(PART)

        assert severities(answer) == [CRITICAL]
        assert answer.facts == {"disk_sda": "failing"}

    def test_a_machine_without_smartctl_is_unknown_with_the_package(self, tree: Tree) -> None:
        answer = tree.judged(PART)

        assert [one.fix for one in answer.unknown] == ["apt-get install smartmontools"]

    @pytest.mark.parametrize("model", ["QEMU HARDDISK", "Virtual Disk", "VIRTUAL-DISK"])
    def test_a_virtual_disk_is_not_asked(self, tree: Tree, model: str) -> None:
        tree.files("sys/block/sda", {"device/model": model})

        answer = tree.judged(PART)

        assert answer.facts == {"disk_sda": "not measurable: virtual"}

    def test_a_disk_over_the_network_is_not_asked(self, tree: Tree) -> None:
        place = tree.root / "sys/devices/platform/host2/session1/target2:0:0/2:0:0:1"
        place.mkdir(parents=True)
        (tree.root / "sys/block/sdc").mkdir()
        (tree.root / "sys/block/sdc/device").symlink_to(place)

        answer = tree.judged(PART)

        assert answer.facts["disk_sdc"] == "not measurable: virtual"

    def test_a_machine_without_disks_has_nothing_to_say(self, tmp_path: Path) -> None:
        answer = Tree(tmp_path / "other").judged(PART)

        assert (answer.facts, answer.unknown) == ({}, ())
