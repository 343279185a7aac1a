"""The supply of Raspberry Pis."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsd.hosts.health.power import PART
from opsd.model import Severity
from tests.rig.checkups import SHELLS, Tree


@pytest.fixture
def pi(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.write("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0")
    return tree


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ("0x0", []),
        ("0xe0000", []),  # was slowed down, long ago
        ("0x10000", [("health.undervoltage", Severity.WARNING)]),
        ("0x50000", [("health.undervoltage", Severity.WARNING)]),
        ("0x50005", [("health.undervoltage", Severity.CRITICAL)]),
        ("0x1", [("health.undervoltage", Severity.CRITICAL)]),
        ("0x80008", [("health.throttled", Severity.WARNING)]),
        ("0x2", [("health.throttled", Severity.WARNING)]),
    ],
)
def test_each_bit_is_told_as_what_it_means(
    pi: Tree, bits: str, told: list[tuple[str, Severity]]
) -> None:
    pi.program("vcgencmd", f"echo throttled={bits}")

    answer = pi.judged(PART)

    assert [(one.check, one.severity) for one in answer.findings] == told
    assert not answer.unknown


@pytest.mark.parametrize("shell", SHELLS)
def test_without_vcgencmd_the_sensor_of_the_kernel_is_read(pi: Tree, shell: str) -> None:
    pi.files("sys/class/hwmon/hwmon0", {"name": "cpu_thermal"})
    pi.files("sys/class/hwmon/hwmon1", {"name": "rpi_volt", "in0_lcrit_alarm": 1})

    answer = pi.judged(PART, shell=shell)

    assert [one.severity for one in answer.findings] == [Severity.CRITICAL]
    assert not answer.unknown


def test_an_alarm_of_the_sensor_counts_although_the_firmware_says_nothing(pi: Tree) -> None:
    pi.program("vcgencmd", "echo throttled=0x0")
    pi.files("sys/class/hwmon/hwmon1", {"name": "rpi_volt", "in0_lcrit_alarm": 1})

    answer = pi.judged(PART)

    assert answer.facts["power"] == "under-voltage now"


def test_a_firmware_that_may_not_be_asked_is_unknown_with_the_group_to_join(pi: Tree) -> None:
    pi.program("vcgencmd", 'echo "Can\'t open device file: /dev/vcio" >&2; exit 1')

    answer = pi.judged(PART)

    assert [one.fix for one in answer.unknown] == ["on rpi3: usermod -aG video opsd"]
    assert answer.facts["power"] == "unknown"


def test_a_pi_with_neither_is_unknown_and_not_healthy(pi: Tree) -> None:
    answer = pi.judged(PART)

    assert [one.what for one in answer.unknown] == ["power supply"]


def test_any_other_machine_has_no_such_reading(tmp_path: Path) -> None:
    answer = Tree(tmp_path).judged(PART)

    assert (answer.facts, answer.unknown, answer.findings) == ({}, (), ())
