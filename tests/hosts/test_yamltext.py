"""Configuration in YAML is read as plain values, and nothing else is."""

from __future__ import annotations

import pytest

from opsd.hosts import yamltext


def test_a_mapping_is_read_and_nothing_is_an_empty_one() -> None:
    assert yamltext.mapping("a: {b: 1}\nc: true") == {"a": {"b": 1}, "c": True}
    assert yamltext.mapping("") == yamltext.mapping("# only a comment") == {}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "- a\n- b",
        "text",
        "a: 1\n---\nb: 2",
        "!!python/object/apply:os.system ['true']",
        "a: &a [*a",
        "[" * 5000,
        "a: " + "x" * (1 << 20),
    ],
    ids=["open", "list", "text", "two documents", "an object", "alias", "deep", "large"],
)
def test_what_is_no_mapping_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is|characters"):
        yamltext.mapping(text)


def test_what_is_below_a_name_is_a_mapping_or_none() -> None:
    value = {"a": {"b": 1}, "c": 3}

    assert yamltext.inner(value, "a") == {"b": 1}
    assert yamltext.inner(value, "c") == yamltext.inner(value, "d") == {}
    assert yamltext.inner(None, "a") == {}
