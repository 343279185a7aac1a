from __future__ import annotations

import pytest

from tests.model.checker import explore
from tests.model.retention import Retention


@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_the_newest_good_backups_stay_whatever_happens_when(minimum: int) -> None:
    explored = explore(Retention(minimum=minimum))

    assert (explored.broken, explored.trace) == ("", ())


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("minimum", [1, 2, 3])
def test_the_newest_good_backups_stay_within_wider_bounds(minimum: int) -> None:
    explored = explore(Retention(slots=9, faults=5, minimum=minimum))

    assert (explored.broken, explored.trace) == ("", ())


def test_retention_that_counts_damaged_backups_removes_good_ones() -> None:
    explored = explore(Retention(counts_only_good=False))

    assert explored.broken == "one of the newest good backups was removed"
    assert explored.trace[-4:] == (
        "publish",
        "1 is found damaged",
        "plan: remove (0,)",
        "bury 0",
    )


def test_a_removal_that_is_not_written_down_first_leaves_data_for_ever() -> None:
    explored = explore(Retention(buries=False))

    assert explored.broken == "data of a removed backup stays for ever"
    assert explored.trace[-2:] == ("delete the manifest of 0", "killed")


def test_data_that_goes_before_its_manifest_leaves_a_backup_that_is_none() -> None:
    explored = explore(Retention(buries=False, manifest_first=False))

    assert explored.broken == "a manifest names data that is gone"
    assert explored.trace[-1] == "delete the data of 0"
