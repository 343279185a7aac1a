"""A month of bad days, as `make soak` lives ten years of them."""

from __future__ import annotations

import pytest

from tests.chaos.soak import Outlived, Size, soak, summary

MONTH = 31  # days
SMALL = Size(memory_bytes=100, threads=1, files=10)


def test_a_month_of_bad_days_breaks_no_promise_and_leaves_nothing_open() -> None:
    outlived = soak(days=MONTH, period=MONTH // 2, seed=1, told=lambda _line: None)

    assert outlived.complaints == ()
    assert sum(outlived.befell.values()) == MONTH
    assert {(size.threads, size.files) for size in outlived.sizes} == {
        (outlived.sizes[0].threads, outlived.sizes[0].files)
    }


@pytest.mark.parametrize(
    ("last", "grown"),
    [
        (SMALL, []),
        (Size(memory_bytes=105, threads=1, files=10), []),
        (Size(memory_bytes=106, threads=1, files=10), ["memory_bytes"]),
        (Size(memory_bytes=100, threads=2, files=11), ["threads", "files"]),
    ],
)
def test_what_grew_by_more_than_five_percent_is_told(last: Size, grown: list[str]) -> None:
    outlived = Outlived(
        zone="UTC",
        days=2,
        took_s=1.0,
        processor_s=1.0,
        sizes=(SMALL, SMALL, last),
        full_at=1,
        complaints=(),
        befell={"a job is slow": 2},
        outcomes={},
    )

    assert [line.partition(" ")[0] for line in outlived.growth()] == grown
    assert list(summary(outlived))[-1] == "every promise was kept"
