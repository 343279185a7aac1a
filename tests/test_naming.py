"""Hostile names become harmless keys, and no two become the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.backup.naming import (
    LONGEST_KEY,
    LONGEST_PART,
    InvalidKey,
    check_key,
    check_prefix,
    is_part,
    parse_stamp,
    quote,
    stamp,
    subject,
    unquote,
)

# Names as the operating system hands them over: any bytes, the undecodable ones escaped.
names = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("name", ["app", "App_2", "my.db", "a-b", "x" * 63])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert quote(name) == name


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("", "="),
        ("=", "=3D"),
        ("..", "=2E."),
        ("-rf", "=2Drf"),
        ("a/b", "a=2Fb"),
        ("a\nb", "a=0Ab"),
        ("Zürich", "Z=C3=BCrich"),
        ("\udcff", "=FF"),
        ("host=x port=1", "host=3Dx=20port=3D1"),
    ],
)
def test_what_is_outside_the_alphabet_is_written_by_its_bytes(name: str, quoted: str) -> None:
    assert quote(name) == quoted


@given(names)
def test_every_name_comes_back(name: str) -> None:
    assert unquote(quote(name)) == name


@given(names)
def test_every_quoted_name_is_a_part_of_a_key(name: str) -> None:
    assert is_part(quote(name))


@given(names, names)
def test_different_names_give_different_parts(one: str, other: str) -> None:
    assert (quote(one) == quote(other)) == (one == other)


def test_a_subject_joins_quoted_names() -> None:
    assert subject("database", "main", "a/b") == "database/main/a=2Fb"


def test_stamps_are_utc_and_come_back() -> None:
    slot = datetime(2026, 11, 22, 4, 0, 5, tzinfo=timezone(timedelta(hours=1)))

    assert stamp(slot) == "20261122T030005Z"
    assert parse_stamp(stamp(slot)) == slot
    assert parse_stamp(stamp(slot)).tzinfo is UTC


@pytest.mark.parametrize("text", ["", "20261122", "20261322T030000Z", "20261122T030000Z "])
def test_what_is_no_stamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"match|remains"):
        parse_stamp(text)


@pytest.mark.parametrize(("length", "fits"), [(LONGEST_PART, True), (LONGEST_PART + 1, False)])
def test_a_part_has_a_longest_length(length: int, *, fits: bool) -> None:
    assert is_part("a" * length) is fits


@pytest.mark.parametrize(("length", "fits"), [(LONGEST_KEY, True), (LONGEST_KEY + 1, False)])
def test_a_key_has_a_longest_length(length: int, *, fits: bool) -> None:
    key = "/".join(["a" * 99] * 20)[:length].rstrip("/").ljust(length, "b")

    if fits:
        assert check_key(key) == key
    else:
        with pytest.raises(InvalidKey):
            check_key(key)


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "a/b/"])
def test_a_prefix_may_end_anywhere(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["/", "a//", "../", "a/.", "a b"])
def test_what_no_key_starts_with_is_no_prefix(prefix: str) -> None:
    with pytest.raises(InvalidKey):
        check_prefix(prefix)
