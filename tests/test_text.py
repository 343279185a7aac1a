from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsd.text import printable, shortened, storable

ANY_TEXT = st.text(alphabet=st.characters(codec=None))


@given(ANY_TEXT)
def test_what_is_storable_can_be_encoded_and_stays_as_it_is(text: str) -> None:
    once = storable(text)

    assert storable(once) == once
    assert once.encode().decode() == once


@given(ANY_TEXT)
def test_what_is_printable_is_one_line_without_control_characters(text: str) -> None:
    line = printable(text)

    assert len(line.splitlines()) <= 1
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in line)


def test_ordinary_names_are_untouched() -> None:
    assert printable("Müller's 数据 Datenbank") == "Müller's 数据 Datenbank"
    assert storable("Müller") == "Müller"


def test_text_that_reorders_what_is_around_it_is_taken_out() -> None:
    assert printable("a\u202egnp.exe\u2066b") == "a gnp.exe b"


@pytest.mark.parametrize(("text", "short"), [("12345", "12345"), ("123456", "1234…"), ("", "")])
def test_a_text_is_cut_where_it_is_too_long(text: str, short: str) -> None:
    assert shortened(text, 5) == short
