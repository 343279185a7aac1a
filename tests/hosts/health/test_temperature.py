"""Heat, by each sensor's own limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsd.hosts.health.temperature import PART
from opsd.model import Severity
from tests.rig.checkups import SHELLS, Tree

WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def severity(tree: Tree, kept: dict[str, object] | None = None) -> Severity | None:
    found = tree.judged(PART, kept=kept or {}).findings
    return found[0].severity if found else None


@pytest.mark.parametrize(
    ("millidegrees", "told"),
    [(74_999, None), (75_000, WARNING), (84_999, WARNING), (85_000, CRITICAL)],
)
def test_a_sensor_without_limits_is_held_against_those_of_the_configuration(
    tree: Tree, millidegrees: int, told: Severity | None
) -> None:
    tree.files("sys/class/hwmon/hwmon0", {"name": "cpu_thermal", "temp1_input": millidegrees})

    assert severity(tree) is told


@pytest.mark.parametrize(
    ("before", "millidegrees", "told"),
    [
        (1, 70_000, WARNING),
        (1, 69_999, None),
        (2, 80_000, CRITICAL),
        (2, 79_999, WARNING),
        (0, 74_000, None),
    ],
)
def test_heat_ends_only_five_degrees_below_its_limit(
    tree: Tree, before: int, millidegrees: int, told: Severity | None
) -> None:
    tree.files("sys/class/hwmon/hwmon0", {"name": "cpu_thermal", "temp1_input": millidegrees})

    assert severity(tree, {"level": before}) is told


@pytest.mark.parametrize(
    ("millidegrees", "told"),
    [(81_000, None), (82_000, WARNING), (84_850, CRITICAL)],
)
def test_an_nvme_disk_is_held_against_its_own_limits(
    tree: Tree, millidegrees: int, told: Severity | None
) -> None:
    tree.files(
        "sys/class/hwmon/hwmon0",
        {
            "name": "nvme",
            "temp1_label": "Composite",
            "temp1_input": millidegrees,
            "temp1_max": 81_850,
            "temp1_crit": 84_850,
            "temp2_label": "Sensor 2",
            "temp2_input": 99_000,
            "temp2_max": 65_261_850,
        },
    )

    assert severity(tree) is told


@pytest.mark.parametrize(("millidegrees", "told"), [(86_000, None), (90_000, WARNING)])
def test_a_processor_made_to_run_hot_is_not_a_raspberry(
    tree: Tree, millidegrees: int, told: Severity | None
) -> None:
    tree.files(
        "sys/class/hwmon/hwmon0",
        {"name": "coretemp", "temp1_input": millidegrees, "temp1_crit": 100_000},
    )

    assert severity(tree) is told


def test_the_sensor_nearest_to_its_limit_is_the_one_told(tree: Tree) -> None:
    tree.files("sys/class/hwmon/hwmon0", {"name": "cpu_thermal", "temp1_input": 76_000})
    tree.files(
        "sys/class/hwmon/hwmon1",
        {"name": "coretemp", "temp1_input": 88_000, "temp1_crit": 100_000},
    )

    (finding,) = tree.judged(PART).findings

    assert finding.facts["sensor"] == "cpu_thermal"


@pytest.mark.parametrize("nonsense", [-128_000, 0, 65_261_850, 200_000])
def test_nonsense_of_a_broken_sensor_is_left_out(tree: Tree, nonsense: int) -> None:
    tree.files("sys/class/hwmon/hwmon0", {"name": "acpitz", "temp1_input": nonsense})

    assert tree.judged(PART).facts == {"temperature": "not measurable: no sensor"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_sata_disk_is_never_asked(tree: Tree, shell: str) -> None:
    tree.files("sys/class/hwmon/hwmon0", {"name": "drivetemp", "temp1_input": 99_000})
    tree.files("sys/class/hwmon/hwmon1", {"name": "cpu_thermal", "temp1_input": 50_000})

    answer = tree.judged(PART, shell=shell)

    assert answer.facts == {"temperature_c": 50.0}


def test_thermal_zones_are_read_where_there_is_no_sensor(tree: Tree) -> None:
    tree.files("sys/class/thermal/thermal_zone0", {"type": "cpu-thermal", "temp": 86_000})

    assert severity(tree) is CRITICAL
