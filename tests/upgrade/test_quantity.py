"""Quantities of the API are numbers."""

from __future__ import annotations

import pytest

from opsd.upgrade.quantity import number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("4", 4.0),
        ("250m", 0.25),
        ("1.5", 1.5),
        ("1Gi", 1073741824.0),
        ("512Ki", 524288.0),
        ("128974848", 128974848.0),
        ("129e6", 129e6),
        ("129M", 129e6),
        ("1E", 1e18),
        ("500u", 0.0005),
    ],
)
def test_a_quantity_is_its_value(text: str, value: float) -> None:
    assert number(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "Gi", "1.2.3", "1 Gi", "1Xi", "mi", "1mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        number(text)
